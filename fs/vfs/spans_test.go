package vfs

import (
	"math/rand/v2"
	"testing"
)

// TestSpans compares random changes with a bitmap.
func TestSpans(t *testing.T) {
	const size = 64
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s spans
		var want [size]bool
		for range 30 {
			off, end := uint64(rng.IntN(size)), uint64(rng.IntN(size+1))
			if rng.IntN(4) > 0 {
				s = s.add(off, end)
				for i := off; i < end; i++ {
					want[i] = true
				}
			} else {
				s = s.cut(off)
				clear(want[off:])
			}
			checkSpans(t, seed, s, want[:])
			if t.Failed() {
				return
			}
		}
	}
}

func checkSpans(t *testing.T, seed uint64, s spans, want []bool) {
	t.Helper()
	got := make([]bool, len(want))
	var sum uint64
	for i, x := range s {
		if x.off >= x.end || i > 0 && s[i-1].end >= x.off {
			t.Fatalf("seed %d: %v is not sorted and disjoint", seed, s)
		}
		sum += x.end - x.off
		for b := x.off; b < x.end; b++ {
			got[b] = true
		}
	}
	within, gaps := make([]bool, len(want)), make([]bool, len(want))
	mark := func(b []bool) func(span) error {
		return func(x span) error {
			for i := x.off; i < x.end; i++ {
				b[i] = true
			}
			return nil
		}
	}
	_ = s.within(5, 40, mark(within)) // mark never fails
	_ = s.gaps(5, 40, mark(gaps))
	for i := range want {
		inside := i >= 5 && i < 40
		if got[i] != want[i] || within[i] != (inside && want[i]) || gaps[i] != (inside && !want[i]) {
			t.Fatalf("seed %d: byte %d of %v: in %t within %t gap %t, want %t", seed, i, s, got[i], within[i], gaps[i], want[i])
		}
	}
	if s.bytes() != sum {
		t.Fatalf("seed %d: %v has %d bytes, want %d", seed, s, s.bytes(), sum)
	}
}
