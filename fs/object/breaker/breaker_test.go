package breaker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/breaker"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/retry"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return breaker.New(mem.New(), breaker.Options{}) })
}

// bench is a running breaker around a bucket that can be made to fail, on fake
// time.
type bench struct {
	*testing.T
	faults *faulty.Store
	st     *breaker.Store
}

func run(t *testing.T, f func(b bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		faults := faulty.New(mem.New())
		b := bench{t, faults, breaker.New(faults, breaker.Options{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.st.Run(ctx) }()
		f(b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// fail makes calls until the circuit of reads is open.
func (b bench) failReads(n int, kind object.Kind) {
	b.Helper()
	for i := range n {
		if _, err := b.st.Get(b.Context(), "k", 0, -1); !errors.Is(err, kind) {
			b.Fatalf("call %d: %v, want %v", i, err, kind)
		}
	}
}

func TestOpensAfterFailuresInARow(t *testing.T) {
	run(t, func(b bench) {
		b.faults.Inject(faulty.Fault{Op: object.OpGet, Times: 4})
		b.failReads(4, object.Busy)
		b.failReads(1, object.NotExist) // an answer
		b.faults.Inject(faulty.Fault{Op: object.OpGet})
		b.failReads(5, object.Busy)
		before := len(b.faults.Calls())
		start := time.Now()
		b.failReads(1000, object.Suspended)
		if took := time.Since(start); took != 0 || len(b.faults.Calls()) != before {
			t.Errorf("an open circuit took %v and asked %d times", took, len(b.faults.Calls())-before)
		}
		if st := b.st.Status(); !st.ReadsOpen || st.WritesOpen || st.Opened != 1 || st.Refused != 1000 {
			t.Errorf("%+v", st)
		}
		if err := b.st.Put(b.Context(), "k", nil, object.PutOptions{}); err != nil {
			t.Errorf("Put while reads fail: %v", err)
		}
	})
}

// TestProbesDecide: only a probe that succeeds closes the circuit; the pauses
// grow, and a caller never is the probe.
func TestProbesDecide(t *testing.T) {
	run(t, func(b bench) {
		b.faults.Inject(faulty.Fault{})
		b.failReads(5, object.Busy)
		calls := len(b.faults.Calls())
		time.Sleep(2 * time.Minute)
		b.failReads(1, object.Suspended)
		// Pauses of 1, 2, 4, 8 s and then 15 s, each between half and all of it.
		if n := len(b.faults.Calls()) - calls; n < 10 || n > 20 {
			t.Errorf("%d probes in two minutes", n)
		}
		for _, c := range b.faults.Calls()[calls:] {
			if c.Op != object.OpStat {
				t.Errorf("%s %s while reads are suspended", c.Op, c.Key)
			}
		}
		b.faults.Heal()
		time.Sleep(31 * time.Second)
		b.failReads(1, object.NotExist)
		if st := b.st.Status(); st.ReadsOpen {
			t.Errorf("%+v", st)
		}
	})
}

// TestFlappingIsNotAskedOften: calls that fail while probes succeed open the
// circuit again and again, for longer each time.
func TestFlappingIsNotAskedOften(t *testing.T) {
	run(t, func(b bench) {
		b.faults.Inject(faulty.Fault{Op: object.OpGet})
		asked := func() (n int) {
			for _, c := range b.faults.Calls() {
				if c.Op == object.OpGet {
					n++
				}
			}
			return n
		}
		for range 600 {
			_, _ = b.st.Get(b.Context(), "k", 0, -1)
			time.Sleep(time.Second)
		}
		if n := asked(); n > 300 {
			t.Errorf("asked %d times in 10 minutes", n)
		}
		b.faults.Heal()
		time.Sleep(2 * time.Minute)
		b.failReads(1, object.NotExist)
		b.faults.Inject(faulty.Fault{})
		b.failReads(5, object.Busy)
		calls := len(b.faults.Calls())
		time.Sleep(time.Second)
		if n := len(b.faults.Calls()) - calls; n != 1 {
			t.Errorf("%d probes in the first second after a quiet time", n)
		}
	})
}

// TestStall: a bucket that accepts calls and says nothing costs five callers
// their limit, and nobody after them. Callers who gave up early prove nothing.
func TestStall(t *testing.T) {
	run(t, func(b bench) {
		b.faults.Inject(faulty.Fault{Do: faulty.Hang})
		get := func(limit time.Duration) {
			ctx, cancel := context.WithTimeout(b.Context(), limit)
			defer cancel()
			_, _ = b.st.Get(ctx, "k", 0, -1)
		}
		for range 50 {
			get(time.Second)
		}
		if b.st.Status().ReadsOpen {
			t.Error("impatient callers have opened the circuit")
		}
		for range 5 {
			get(10 * time.Second)
		}
		start := time.Now()
		b.failReads(1, object.Suspended)
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// TestRetryStops: a retry does not wait for a store that is suspended.
func TestRetryStops(t *testing.T) {
	run(t, func(b bench) {
		b.faults.Inject(faulty.Fault{})
		st := retry.New(b.st, retry.Options{Attempts: 20})
		if _, err := st.Get(b.Context(), "k", 0, -1); !errors.Is(err, object.Suspended) {
			t.Errorf("Get: %v", err)
		}
		if n := len(b.faults.Calls()); n != 5 && n != 6 { // a probe may have come between
			t.Errorf("%d calls", n)
		}
	})
}

func TestListIsOneCall(t *testing.T) {
	run(t, func(b bench) {
		for _, key := range []string{"a", "b"} {
			if err := b.st.Put(b.Context(), key, nil, object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		b.faults.Inject(faulty.Fault{Op: object.OpList, Do: faulty.LoseAnswer})
		for range 5 {
			seen := 0
			for _, err := range b.st.List(b.Context(), "", "") {
				if err != nil {
					break
				}
				seen++
			}
			if seen != 1 {
				t.Fatalf("%d keys before the failure", seen)
			}
		}
		for _, err := range b.st.List(b.Context(), "", "") {
			if !errors.Is(err, object.Suspended) {
				t.Errorf("List: %v", err)
			}
		}
	})
}
