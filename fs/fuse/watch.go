package fuse

import (
	"context"
	"errors"
	"runtime"
	"time"
)

// Limits of the watch over notifications that the kernel does not return from.
const (
	watchEvery = time.Second
	// stuckWarn is when one is reported, with the stacks of all goroutines.
	stuckWarn  = 10 * time.Second
	stuckAgain = 5 * time.Minute // between two reports
	// stallFence is when the mount is given up because a change cannot be
	// acknowledged. What else is stuck holds up nobody on other nodes.
	stallFence = 30 * time.Second
	// stacksMax is how much of the stacks is logged.
	stacksMax = 256 << 10
)

// ErrStuck is what Run returns when the kernel did not let go of something that
// had to be dropped. Better no answer from one node than no write in the cluster.
var ErrStuck = errors.New("the kernel does not drop what has changed; the mount was cut off so that the others can go on; start the agent again")

// watch looks after notifications until ctx ends; ErrStuck means that the
// connection must be cut.
func (s *Server) watch(ctx context.Context) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var warned time.Time
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		s.cache.Sweep()
		if d := s.cache.Stalled(); d > stallFence {
			s.opt.Logger.Error("cutting off the mount: a change cannot be acknowledged", "for", d, "stacks", stacks())
			return ErrStuck
		}
		stuck := s.cache.Stuck(stuckWarn)
		if len(stuck) > 0 && time.Since(warned) > stuckAgain {
			warned = time.Now()
			s.opt.Logger.Error("the kernel does not return from a notification", "first", stuck[0].String(), "of", len(stuck), "stacks", stacks())
		}
	}
}

func stacks() string {
	b := make([]byte, stacksMax)
	return string(b[:runtime.Stack(b, true)])
}
