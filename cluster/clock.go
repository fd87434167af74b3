package cluster

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/cluster/protocol"
)

// clock makes protocol.Instants from the machine's clocks (rule R2). Go's own
// monotonic time stops while the machine is suspended, so it is not used here:
// CLOCK_BOOTTIME goes on, CLOCK_MONOTONIC_RAW is not slewed, and CLOCK_REALTIME
// may jump over a pause that both miss. Fast is the furthest of them and Slow
// the least far of the first two, so a holder ends its lease early rather than
// late and a leader waits too long rather than too short.
type clock struct {
	start [3]time.Duration

	mu    sync.Mutex
	last  [3]time.Duration
	jumps time.Duration // what CLOCK_REALTIME leapt ahead, summed up
	now   protocol.Instant
}

// jumpMin is the least step that counts as a leap of CLOCK_REALTIME. Smaller
// differences are slewing, or the thread was preempted between two readings;
// summing those up would make Fast run away.
const jumpMin = 5 * time.Millisecond

var clockIDs = [3]int32{unix.CLOCK_BOOTTIME, unix.CLOCK_MONOTONIC_RAW, unix.CLOCK_REALTIME}

func newClock() *clock {
	t := readClocks()
	return &clock{start: t, last: t}
}

func readClocks() (t [3]time.Duration) {
	for i, id := range clockIDs {
		var ts unix.Timespec
		// It cannot fail: the three exist since Linux 2.6.39.
		_ = unix.ClockGettime(id, &ts)
		t[i] = time.Duration(ts.Nano())
	}
	return t
}

// Now never goes back.
func (c *clock) Now() protocol.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := readClocks()
	if leap := (t[2] - c.last[2]) - max(t[0]-c.last[0], t[1]-c.last[1]); leap > jumpMin {
		c.jumps += leap
	}
	c.last = t
	boot, raw := t[0]-c.start[0], t[1]-c.start[1]
	c.now.Fast = max(c.now.Fast, max(boot, raw)+c.jumps)
	c.now.Slow = max(c.now.Slow, min(boot, raw))
	return c.now
}
