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
//
// Each is a system call, and every read of the file system needs the time, so
// only CLOCK_BOOTTIME, which counts the time suspended, is read every time. The
// other two are read when it says that fullEvery has passed since they were, and
// until then taken to have moved as far as it has. That is off by little and for
// a short time only, since the next full reading starts from the clocks again:
// slewing (500 ppm) makes half a microsecond in a millisecond, and any other
// disagreement less than fullEvery, both far below the margin of leases; a leap
// of CLOCK_REALTIME is noticed fullEvery late, as if whoever corrects that clock
// after a pause had done it so much later.
type clock struct {
	read  func(id int32) time.Duration
	start [3]time.Duration

	mu    sync.Mutex
	last  [3]time.Duration // the last full reading,
	full  protocol.Instant // and what came of it
	jumps time.Duration    // what CLOCK_REALTIME leapt ahead, summed up
	now   protocol.Instant
}

// jumpMin is the least step that counts as a leap of CLOCK_REALTIME. Smaller
// differences are slewing, or the thread was preempted between two readings;
// summing those up would make Fast run away.
const jumpMin = 5 * time.Millisecond

// fullEvery is how long two of the clocks are not read.
const fullEvery = time.Millisecond

var clockIDs = [3]int32{unix.CLOCK_BOOTTIME, unix.CLOCK_MONOTONIC_RAW, unix.CLOCK_REALTIME}

func newClock() *clock { return newClockOf(readClock) }

func newClockOf(read func(id int32) time.Duration) *clock {
	c := &clock{read: read}
	for i, id := range clockIDs {
		c.start[i] = read(id)
	}
	c.last = c.start
	return c
}

func readClock(id int32) time.Duration {
	var ts unix.Timespec
	// It cannot fail: the three exist since Linux 2.6.39.
	_ = unix.ClockGettime(id, &ts)
	return time.Duration(ts.Nano())
}

// Now never goes back. Fast always grows, be it by a nanosecond, so that of two
// readings that differ one can tell which was first.
func (c *clock) Now() protocol.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	boot := c.read(clockIDs[0])
	passed := boot - c.last[0]
	if passed < 0 || passed >= fullEvery {
		c.readAll(boot)
		passed = 0
	}
	c.now.Fast = max(c.now.Fast+1, c.full.Fast+passed)
	c.now.Slow = max(c.now.Slow, c.full.Slow+passed)
	return c.now
}

// readAll makes a full reading around one of CLOCK_BOOTTIME. Under mu.
func (c *clock) readAll(boot time.Duration) {
	t := [3]time.Duration{boot, c.read(clockIDs[1]), c.read(clockIDs[2])}
	if leap := (t[2] - c.last[2]) - max(t[0]-c.last[0], t[1]-c.last[1]); leap > jumpMin {
		c.jumps += leap
	}
	c.last = t
	boot, raw := t[0]-c.start[0], t[1]-c.start[1]
	c.full = protocol.Instant{Fast: max(boot, raw) + c.jumps, Slow: min(boot, raw)}
}

// Last is what Now returned last: an instant before the call, though maybe long
// before.
func (c *clock) Last() protocol.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}
