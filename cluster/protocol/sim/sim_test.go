package sim

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
)

var (
	flagSeed   = flag.Uint64("seed", 0, "replay this seed in TestSeed")
	flagMutant = flag.String("mutant", "none", "with this rule broken")
	flagFocus  = flag.String("focus", "none", "with the faults turned to: "+strings.Join(slices.Sorted(maps.Keys(focuses)), ", "))
)

// seeds tells how many seeds to run: WPFS_SIM_SEEDS if set.
func seeds(t *testing.T) uint64 {
	t.Helper()
	if s := os.Getenv("WPFS_SIM_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("WPFS_SIM_SEEDS: %v", err)
		}
		return n
	}
	switch {
	case raceDetector:
		return 40
	case testing.Short():
		return 200
	}
	return 2000
}

// report shows a violation with the end of its trace and how to see all of it.
func report(t *testing.T, o Options, violation string) {
	t.Helper()
	o.Trace = true
	trace := Run(o).Trace
	const lines = 60
	if len(trace) > lines {
		trace = append([]string{trace[0], "…"}, trace[len(trace)-lines:]...)
	}
	t.Errorf("seed %d: %s\n%s\nreplay: go test ./cluster/protocol/sim -v -run 'TestSeed$' -seed %d -mutant %s -focus %s",
		o.Seed, violation, strings.Join(trace, "\n"), o.Seed, o.Mutant, o.focus)
}

// many runs seeds from..from+n-1 on all cores and returns the sum of what
// happened. It stops at the first violation.
func many(t *testing.T, from, n uint64, o Options) Stats {
	t.Helper()
	var next atomic.Uint64
	next.Store(from)
	var mu sync.Mutex
	var sum Stats
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				o := o
				o.Seed = next.Add(1) - 1
				if o.Seed >= from+n {
					return
				}
				r := Run(o)
				mu.Lock()
				sum.add(r.Stats)
				if r.Violation != "" {
					next.Store(from + n)
					report(t, o, r.Violation)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return sum
}

func (s *Stats) add(o Stats) {
	for _, p := range []struct {
		sum *int
		n   int
	}{
		{&s.Events, o.Events}, {&s.Messages, o.Messages}, {&s.Lost, o.Lost},
		{&s.Reads, o.Reads}, {&s.KernelReads, o.KernelReads}, {&s.Writes, o.Writes},
		{&s.Grants, o.Grants}, {&s.Leaders, o.Leaders}, {&s.Adopted, o.Adopted}, {&s.Revoked, o.Revoked},
		{&s.Crashes, o.Crashes}, {&s.Freezes, o.Freezes}, {&s.Cuts, o.Cuts}, {&s.Config, o.Config},
	} {
		*p.sum += p.n
	}
	s.StallMax = max(s.StallMax, o.StallMax)
	s.LeaseGap = max(s.LeaseGap, o.LeaseGap)
}

// TestProtocolHolds is the proof: 60 virtual seconds for each seed. -short runs
// a tenth of the seeds, WPFS_SIM_SEEDS=N any number, WPFS_SIM_FROM=N begins there.
func TestProtocolHolds(t *testing.T) {
	from := uint64(1)
	if s := os.Getenv("WPFS_SIM_FROM"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("WPFS_SIM_FROM: %v", err)
		}
		from = n
	}
	n := seeds(t)
	sum := many(t, from, n, Options{})
	t.Logf("%d seeds from %d: %+v", n, from, sum)
	for _, c := range []struct {
		name string
		n    int
	}{
		{"reads", sum.Reads}, {"kernel reads", sum.KernelReads}, {"writes", sum.Writes},
		{"grants", sum.Grants}, {"leaders", sum.Leaders}, {"adoptions", sum.Adopted}, {"revocations", sum.Revoked},
		{"lost messages", sum.Lost}, {"crashes", sum.Crashes}, {"freezes", sum.Freezes}, {"cuts", sum.Cuts},
		{"configurations", sum.Config},
	} {
		if n >= 40 && uint64(c.n) < n {
			t.Errorf("only %d %s in %d runs: the simulator is idle", c.n, c.name, n)
		}
	}
}

// TestRunsRepeat: one seed is one run, to the last event.
func TestRunsRepeat(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := Run(Options{Seed: seed, Trace: true}), Run(Options{Seed: seed, Trace: true})
		if a.Stats != b.Stats || strings.Join(a.Trace, "\n") != strings.Join(b.Trace, "\n") {
			t.Errorf("seed %d: two runs differ: %+v and %+v", seed, a.Stats, b.Stats)
		}
	}
}

// TestSeed replays one seed with its whole trace: -seed N, and what the report of
// a violation says besides.
func TestSeed(t *testing.T) {
	if *flagSeed == 0 {
		t.Skip("no -seed given")
	}
	o := Options{Seed: *flagSeed, Trace: true, focus: *flagFocus}
	if _, ok := focuses[o.focus]; !ok {
		t.Fatalf("no focus is called %q", o.focus)
	}
	for o.Mutant.String() != *flagMutant {
		if o.Mutant++; o.Mutant >= mutant.End {
			t.Fatalf("no mutant is called %q", *flagMutant)
		}
	}
	o.Observe = o.Mutant != mutant.None
	r := Run(o)
	for _, l := range r.Trace {
		t.Log(l)
	}
	t.Logf("%+v", r.Stats)
	if r.Violation != "" {
		t.Error(r.Violation)
	}
}
