package vfs

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func newStage(t testing.TB) *staging {
	t.Helper()
	s, err := openStaging(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestStore compares random writes and cuts with a flat array, in memory,
// spilled, and on the way from one to the other.
func TestStore(t *testing.T) {
	const size = 3 * slotSize / 2
	stage := newStage(t)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		b := &budget{max: []int64{0, 1 << 14, 1 << 30}[seed%3]}
		s := &store{budget: b, stage: stage}
		var want [size]byte
		for range 60 {
			off, n := rng.IntN(size), rng.IntN(5000)+1
			if rng.IntN(3) == 0 {
				off = int(s.dirty.end()) % size // sequential
			}
			n = min(n, size-off)
			if rng.IntN(10) == 0 {
				s.cut(uint64(off))
				clear(want[off:])
				continue
			}
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(rng.Uint32()) | 1
			}
			if err := s.writeAt(p, uint64(off)); err != nil {
				t.Fatal(err)
			}
			copy(want[off:], p)
		}
		checkStore(t, seed, s, want[:])
		s.drop()
		if used := b.used.Load(); used != 0 {
			t.Errorf("seed %d: %d bytes of the budget are not given back", seed, used)
		}
	}
	for _, sf := range stage.files {
		st, err := sf.f.Stat()
		if err != nil || st.Size() != 0 || sf.live != 0 {
			t.Errorf("staging file: size %d, %d slots in use, %v; want it empty", st.Size(), sf.live, err)
		}
	}
}

func checkStore(t *testing.T, seed uint64, s *store, want []byte) {
	t.Helper()
	for _, x := range s.dirty {
		got := make([]byte, x.end-x.off)
		if err := s.readAt(got, x.off); err != nil {
			t.Fatal(err)
		}
		view, err := s.view(x.off, len(got))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[x.off:x.end]) || !bytes.Equal(view, got) {
			t.Fatalf("seed %d: bytes %d to %d differ", seed, x.off, x.end)
		}
	}
	_ = s.dirty.gaps(0, uint64(len(want)), func(x span) error {
		if i := bytes.IndexFunc(want[x.off:x.end], func(r rune) bool { return r != 0 }); i >= 0 {
			t.Fatalf("seed %d: byte %d is lost", seed, x.off+uint64(i))
		}
		return nil
	})
	if s.memory > storeMemoryMax || s.memory < 0 {
		t.Fatalf("seed %d: %d bytes in memory, want at most %d", seed, s.memory, storeMemoryMax)
	}
}

func TestStoreSpillsByRuns(t *testing.T) {
	s := &store{budget: &budget{max: 1 << 40}, stage: newStage(t)}
	for i := range uint64(storeRunsMax + 1) {
		if err := s.writeAt([]byte{1}, i*10); err != nil {
			t.Fatal(err)
		}
	}
	if s.file == nil || s.memory != 0 {
		t.Errorf("%d runs in memory with %d bytes, want them spilled", len(s.runs), s.memory)
	}
	s.drop()
}
