package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	gateFresh  = 100 * time.Millisecond // how long a look at the limits is good for
	gateSoft   = 0.5                    // fuller than this, writers are slowed down
	gateSleep  = 250 * time.Millisecond // for gateBytes, when it is all but full
	gateBytes  = 128 << 10              // and less for less, but no write counts as less than
	gateCharge = 4 << 10                // this
)

// GateOptions for NewGate.
type GateOptions struct {
	// Backlog is how many bytes the object store does not have yet, and
	// BacklogMax how many it may lack; 0 is no bound.
	Backlog    func() uint64
	BacklogMax uint64
	// Pressure is Disk.Pressure: it slows writers down but refuses nobody,
	// for other nodes may have room.
	Pressure func() float64
	// Full says why nothing may be written on this node, or nil.
	Full func() error
}

// Gate is what writers pass before their bytes are taken. When the object store
// does not keep up they get slower, so that a burst is spread over the room there
// is, and at the limit they are refused: with a clear error, before anything is
// taken that could then not be kept.
type Gate struct {
	o GateOptions

	mu   sync.Mutex
	seen time.Time // when the two below were looked at
	fill float64
	full error

	slowed, refused uint64
}

// NewGate makes a Gate.
func NewGate(o GateOptions) *Gate { return &Gate{o: o} }

// Admit returns when n bytes may be written, at most gateSleep later or when ctx
// ends, or fails with ErrNoSpace.
func (g *Gate) Admit(ctx context.Context, n int) error {
	pause, err := g.judge(n)
	if err != nil || pause == 0 {
		return err
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done(): // the write itself notices
	}
	return nil
}

func (g *Gate) judge(n int) (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.Sub(g.seen) >= gateFresh {
		g.look()
		g.seen = now
	}
	if g.full != nil {
		g.refused++
		return 0, g.full
	}
	pause := Slowdown(g.fill, n)
	if pause > 0 {
		g.slowed++
	}
	return pause, nil
}

// look is called with mu held.
func (g *Gate) look() {
	g.full, g.fill = g.o.Full(), g.o.Pressure()
	if g.o.BacklogMax == 0 {
		return
	}
	backlog := g.o.Backlog()
	g.fill = max(g.fill, float64(backlog)/float64(g.o.BacklogMax))
	if g.full == nil && backlog >= g.o.BacklogMax {
		g.full = &fs.Error{Op: "write", Kind: fs.ErrNoSpace, Err: fmt.Errorf(
			"%d bytes wait for the object store, which is the limit of object.backlog_max_bytes", backlog)}
	}
}

// Slowdown is how long a write of n bytes waits when so much of the room is
// taken: nothing up to a half, then more with the square of what is above.
func Slowdown(fill float64, n int) time.Duration {
	over := min((fill-gateSoft)/(1-gateSoft), 1)
	if over <= 0 {
		return 0
	}
	share := min(float64(n+gateCharge)/gateBytes, 1)
	return time.Duration(over * over * share * float64(gateSleep))
}

// GateStats are for metrics and status pages.
type GateStats struct {
	Fill            float64 // of what limits it, from 0 to 1 and above
	Slowed, Refused uint64  // writes
	Full            error   // why writes are refused, or nil
}

// Stats tells how the last look went.
func (g *Gate) Stats() GateStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.Sub(g.seen) >= gateFresh {
		g.look()
		g.seen = now
	}
	return GateStats{Fill: g.fill, Slowed: g.slowed, Refused: g.refused, Full: g.full}
}
