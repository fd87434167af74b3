package main

import (
	"context"
	"time"
)

var idleCPU = measure{Name: "idle", Unit: "% of one core", Goal: goal{Value: 2},
	How: "user and system time of all agents together, by /proc/PID/stat, with the tree in the kernel's cache and nothing to upload, after 5 s without a call"}

const (
	idleRound = 4 * time.Second // 400 ticks of the clock that is read
	idleAfter = 5 * time.Second // longer than any lease of what was read
)

// idle measures what the agents do when nobody asks them.
func (b *bench) idle(ctx context.Context) error {
	if err := b.settle(); err != nil {
		return err
	}
	if err := pause(ctx, idleAfter); err != nil {
		return err
	}
	for round := range b.o.warmRounds {
		before, err := b.cpuTime()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := pause(ctx, idleRound); err != nil {
			return err
		}
		after, err := b.cpuTime()
		if err != nil {
			return err
		}
		b.book.add(idleCPU, "agents", round, 100*float64(after-before)/float64(time.Since(began)))
	}
	progress("idle", b.o.warmRounds, b.o.warmRounds)
	return nil
}

// cpuTime is that of all agents.
func (b *bench) cpuTime() (sum time.Duration, err error) {
	for _, n := range b.cluster.Nodes {
		d, err := n.CPUTime()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
