package cluster

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/cluster/protocol"
)

// fakeClocks are the machine's clocks, moved by a test.
type fakeClocks struct {
	at    map[int32]time.Duration
	reads map[int32]int
}

func newFakeClocks() (*fakeClocks, *clock) {
	f := &fakeClocks{
		at:    map[int32]time.Duration{unix.CLOCK_BOOTTIME: 10 * time.Hour, unix.CLOCK_MONOTONIC_RAW: 9 * time.Hour, unix.CLOCK_REALTIME: 20000 * time.Hour},
		reads: map[int32]int{},
	}
	return f, newClockOf(func(id int32) time.Duration {
		f.reads[id]++
		return f.at[id]
	})
}

func (f *fakeClocks) move(boot, raw, wall time.Duration) {
	f.at[unix.CLOCK_BOOTTIME] += boot
	f.at[unix.CLOCK_MONOTONIC_RAW] += raw
	f.at[unix.CLOCK_REALTIME] += wall
}

// near: Fast may be ahead by a nanosecond per reading.
func near(got, want protocol.Instant) bool {
	d := got.Fast - want.Fast
	return d >= 0 && d < 100 && got.Slow == want.Slow
}

func TestClockTakesFurthestAndLeastFar(t *testing.T) {
	const ms = time.Millisecond
	for what, row := range map[string]struct {
		boot, raw, wall time.Duration
		fast, slow      time.Duration
	}{
		"all alike":             {50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms},
		"raw behind":            {50 * ms, 40 * ms, 50 * ms, 50 * ms, 40 * ms},
		"suspended":             {3600_000 * ms, 40 * ms, 3600_000 * ms, 3600_000 * ms, 40 * ms},
		"suspended for little":  {2 * ms, 0, 2 * ms, 2 * ms, 0},
		"raw ahead":             {40 * ms, 50 * ms, 50 * ms, 50 * ms, 40 * ms},
		"wall clock leaps":      {50 * ms, 50 * ms, 2050 * ms, 2050 * ms, 50 * ms},
		"wall clock slews":      {50 * ms, 50 * ms, 55 * ms, 50 * ms, 50 * ms},
		"wall clock goes back":  {50 * ms, 50 * ms, -9000 * ms, 50 * ms, 50 * ms},
		"boot behind its start": {-5 * ms, 50 * ms, 50 * ms, 50 * ms, 0},
	} {
		f, c := newFakeClocks()
		f.move(row.boot, row.raw, row.wall)
		want := protocol.Instant{Fast: row.fast, Slow: row.slow}
		if got := c.Now(); !near(got, want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		if got := c.Now(); !near(got, want) {
			t.Errorf("%s: again: %+v, want %+v", what, got, want)
		}
	}
}

// TestClockSparesReadings: below fullEvery only BOOTTIME is read, and what the
// other two do meanwhile counts from the next full reading on.
func TestClockSparesReadings(t *testing.T) {
	f, c := newFakeClocks()
	f.move(fullEvery, fullEvery, fullEvery)
	first := c.Now()
	full := f.reads[unix.CLOCK_REALTIME]
	const leap = time.Second
	f.move(fullEvery-1, fullEvery-300, fullEvery+leap)
	if got, want := c.Now(), (protocol.Instant{Fast: first.Fast + fullEvery - 1, Slow: first.Slow + fullEvery - 1}); !near(got, want) {
		t.Errorf("within fullEvery %+v, want %+v", got, want)
	}
	if f.reads[unix.CLOCK_REALTIME] != full || f.reads[unix.CLOCK_MONOTONIC_RAW] != full {
		t.Errorf("readings %v, full ones %d", f.reads, full)
	}
	f.move(1, 1, 0)
	if got, want := c.Now(), (protocol.Instant{Fast: first.Fast + fullEvery + leap, Slow: first.Slow + fullEvery - 1}); !near(got, want) {
		t.Errorf("after fullEvery %+v, want %+v, Slow held where it was", got, want)
	}
	if f.reads[unix.CLOCK_REALTIME] != full+1 || f.reads[unix.CLOCK_MONOTONIC_RAW] != full+1 {
		t.Errorf("readings %v, full ones %d", f.reads, full+1)
	}
}

// TestClockStaysNearEachReading plays random moves against the same clock that
// reads everything every time: they differ by less than fullEvery at any time,
// and Now never goes back.
func TestClockStaysNearEachReading(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f, c := newFakeClocks()
	_, exact := newFakeClocks()
	exact.read = func(id int32) time.Duration { return f.at[id] }
	before := c.Now()
	for i := range 20_000 {
		step := time.Duration(rnd.Int64N(int64(fullEvery / 3)))
		boot, raw := step, step-step*time.Duration(rnd.IntN(1000)-500)/1_000_000
		if rnd.IntN(500) == 0 {
			boot += time.Duration(rnd.Int64N(int64(time.Minute))) // suspended
		}
		f.move(boot, raw, boot)
		now := c.Now()
		exact.last[0] = -1 << 62 // makes it read all, and no leaps
		want := exact.Now()
		if fast, slow := (now.Fast - want.Fast).Abs(), (now.Slow - want.Slow).Abs(); fast >= fullEvery || slow >= fullEvery {
			t.Fatalf("step %d: %+v, all clocks say %+v", i, now, want)
		}
		if now.Fast <= before.Fast || now.Slow < before.Slow {
			t.Fatalf("step %d: %+v after %+v", i, now, before)
		}
		if c.Last() != now {
			t.Fatalf("step %d: last %+v, was %+v", i, c.Last(), now)
		}
		before = now
	}
}

// TestClockOfThisMachine: many readers, and the time that passes is the one that
// Go sees.
func TestClockOfThisMachine(t *testing.T) {
	c, start := newClock(), time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for before := c.Now(); time.Since(start) < 20*time.Millisecond; {
				now := c.Now()
				if now.Fast <= before.Fast || now.Slow < before.Slow {
					t.Errorf("%+v after %+v", now, before)
				}
				before = now
			}
		})
	}
	wg.Wait()
	least := time.Since(start)
	if now := c.Now(); now.Slow < least-time.Millisecond || now.Fast < now.Slow {
		t.Errorf("after %v: %+v", least, now)
	}
}

func BenchmarkClock(b *testing.B) {
	c := newClock()
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}
