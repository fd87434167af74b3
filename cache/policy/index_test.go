package policy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// name makes hash number n; they look random, as hashes do.
func name(n int) (h fs.Hash) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	rand.NewChaCha8(seed).Read(h[:])
	return h
}

// clock is seconds that a test sets.
type clock struct{ now uint32 }

func newIndex() (*Index, *clock) {
	c := &clock{}
	return New(Options{Now: func() uint32 { return c.now }}), c
}

// use is a use that counts.
func (c *clock) use(x *Index, h fs.Hash) {
	c.now += apart
	x.Use(h)
}

// evict drops the next victim.
func evict(t *testing.T, x *Index) fs.Hash {
	t.Helper()
	h, _, ok := x.Victim()
	if !ok || !x.Drop(h) {
		t.Fatal("there is no victim")
	}
	return h
}

// TestSlabIsAMap: after any number of random steps the slab answers as a map.
func TestSlabIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s, want := newSlab(), map[fs.Hash]uint32{}
	// Hashes that begin alike meet in the table.
	crowd := func(n int) (h fs.Hash) { h = name(n); clear(h[1:8]); h[0] &= 7; return h }
	for step := range 200_000 {
		h := crowd(rng.IntN(600))
		if _, ok := want[h]; ok && rng.IntN(2) == 0 {
			s.drop(h)
			delete(want, h)
		} else if !ok {
			want[h] = s.make(h)
		}
		probe := crowd(rng.IntN(600))
		i, ok := want[probe]
		if e := s.find(probe); ok != (e != nil) || ok && e != s.at(i) || s.count != len(want) {
			t.Fatalf("step %d: %v found: %v, want %v; %d entries, want %d", step, probe, e != nil, ok, s.count, len(want))
		}
	}
	for h := range want {
		s.drop(h)
	}
	if s.count != 0 || len(s.blocks) != 1 {
		t.Errorf("%d entries are left in %d blocks", s.count, len(s.blocks))
	}
}

// TestScanLeavesTheRest: a backup that reads everything once drops nothing that
// is used again and again.
func TestScanLeavesTheRest(t *testing.T) {
	x, c := newIndex()
	const size, room, hot = 1000, 1000, 500
	for i := range hot {
		x.Add(name(i), size, false)
		c.use(x, name(i))
		c.use(x, name(i))
	}
	for i := range 20 * room {
		x.Add(name(hot+i), size, false)
		for range 30 { // one read of a file, in many pieces
			x.Use(name(hot + i))
		}
		for x.Stats().Chunks > room {
			evict(t, x)
		}
		if i%room == 0 {
			for k := range hot {
				c.use(x, name(k))
			}
		}
	}
	left := 0
	for i := range hot {
		if _, ok := x.Size(name(i)); ok {
			left++
		}
	}
	if left != hot {
		t.Errorf("%d of %d chunks in use are left", left, hot)
	}
}

// TestGhost: what comes back soon was dropped too early, and gets a better place.
func TestGhost(t *testing.T) {
	x, c := newIndex()
	for i := range 10 {
		x.Add(name(i), 100, false)
	}
	gone := evict(t, x)
	if gone != name(0) {
		t.Fatalf("the newest of equals went first")
	}
	x.Add(gone, 100, false)
	// Nine newcomers are more than a tenth: they go before it.
	for range 9 {
		if evict(t, x) == gone {
			t.Fatal("what came back went before newcomers")
		}
	}
	c.use(x, gone)
	x.Add(name(20), 100, false)
	if h := evict(t, x); h != name(20) {
		t.Errorf("what was used again went first")
	}
}

func TestVictimIsSpared(t *testing.T) {
	for what, do := range map[string]func(*Index, *clock, fs.Hash){
		"used":   func(x *Index, c *clock, h fs.Hash) { c.use(x, h) },
		"put":    func(x *Index, _ *clock, h fs.Hash) { x.Add(h, 1, true) },
		"fresh":  func(x *Index, _ *clock, h fs.Hash) { x.Renew(h) },
		"spared": func(x *Index, _ *clock, h fs.Hash) { x.Spare(h) },
		"pinned": func(x *Index, _ *clock, h fs.Hash) { x.Pin(h) },
		"gone":   func(x *Index, _ *clock, h fs.Hash) { x.Remove(h) },
	} {
		x, c := newIndex()
		x.Add(name(1), 1, false)
		h, _, _ := x.Victim()
		do(x, c, h)
		if x.Drop(h) {
			t.Errorf("%s: dropped all the same", what)
		}
	}
}

func TestFreshEnds(t *testing.T) {
	x, _ := newIndex()
	x.Add(name(1), 1, true)
	x.Add(name(2), 1, false)
	for i, want := range []bool{true, true, false, false} {
		put, uncited := x.Fresh(name(1))
		fetched, _ := x.Fresh(name(2))
		if put != want || uncited != want || fetched {
			t.Errorf("after %d hours: %v, %v and %v", i, put, uncited, fetched)
		}
		x.Age()
	}
	x.Renew(name(1))
	x.Cited(name(1))
	if fresh, uncited := x.Fresh(name(1)); !fresh || uncited {
		t.Errorf("cited: %v, %v", fresh, uncited)
	}
}

func TestPinnedGoRound(t *testing.T) {
	x, _ := newIndex()
	for i := range 4 {
		x.Add(name(i), 10, true)
		x.Pin(name(i))
	}
	if _, _, ok := x.Victim(); ok {
		t.Error("a pinned chunk is a victim")
	}
	if s := x.Stats(); s.PinnedChunks != 4 || s.PinnedBytes != 40 || s.Bytes != 40 {
		t.Errorf("%+v", s)
	}
	for i := range 8 {
		if h, ok := x.NextPinned(); !ok || h != name(i%4) {
			t.Fatalf("look %d is not at the next one", i)
		}
	}
	x.Release(name(2))
	if h, _, ok := x.Victim(); !ok || h != name(2) {
		t.Error("what was released is not the next victim")
	}
}

// TestSumsAndLists: after random calls the lists hold every chunk once and the
// sums are right.
func TestSumsAndLists(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	x, c := newIndex()
	sizes := map[fs.Hash]int64{}
	for range 100_000 {
		h := name(rng.IntN(2000))
		switch rng.IntN(8) {
		case 0, 1, 2:
			size := 1 + rng.Int64N(fs.ChunkMax)
			if _, ok := sizes[h]; !ok {
				sizes[h] = size
			}
			x.Add(h, size, rng.IntN(2) == 0)
		case 3:
			c.use(x, h)
		case 4:
			x.Remove(h)
			delete(sizes, h)
		case 5:
			x.Pin(h)
		case 6:
			if v, ok := x.NextPinned(); ok {
				x.Release(v)
			}
		case 7:
			if v, size, ok := x.Victim(); ok && rng.IntN(2) == 0 {
				if size != sizes[v] || !x.Drop(v) {
					t.Fatalf("the victim has %d bytes, want %d", size, sizes[v])
				}
				delete(sizes, v)
			}
		}
	}
	var sum int64
	for _, s := range sizes {
		sum += s
	}
	seen := map[fs.Hash]bool{}
	for l := small; l < lists; l++ {
		for i := x.ends[l].hot; i != none; i = x.slab.at(i).next {
			e := x.slab.at(i)
			if seen[e.hash] || e.list() != l || e.size() != sizes[e.hash] {
				t.Fatalf("a wrong entry in list %d", l)
			}
			seen[e.hash] = true
		}
	}
	if s := x.Stats(); len(seen) != len(sizes) || s.Chunks != len(sizes) || s.Bytes != sum {
		t.Errorf("%d seen, %+v; want %d with %d bytes", len(seen), s, len(sizes), sum)
	}
}

// order is the sequence of victims.
func order(x *Index) (list []fs.Hash) {
	for {
		h, _, ok := x.Victim()
		if !ok || !x.Drop(h) {
			return list
		}
		list = append(list, h)
	}
}

func TestSaveAndLoad(t *testing.T) {
	x, c := newIndex()
	for i := range 3000 {
		x.Add(name(i), int64(1+i), false)
		if i%3 == 0 {
			c.use(x, name(i))
			c.use(x, name(i))
		}
	}
	for range 100 {
		x.Spare(first(x.Victim()))
	}
	var file bytes.Buffer
	if err := x.Save(&file); err != nil {
		t.Fatal(err)
	}
	y, _ := newIndex()
	y.Add(name(7), 8, false) // newer than the file
	var all []Record
	if err := Load(bytes.NewReader(file.Bytes()), func(r Record) { all = append(all, r) }); err != nil {
		t.Fatal(err)
	}
	y.Restore(all)
	if !y.Confirm(name(1)) || y.Confirm(name(5000)) {
		t.Error("Confirm does not know what is there")
	}
	if n := len(y.Doubtful()); n != 2998 { // neither 7, which was put, nor 1
		t.Errorf("%d chunks are doubtful", n)
	}
	if fresh, uncited := y.Fresh(name(3)); !fresh || uncited {
		t.Error("what was read back is not fresh, or uncited")
	}
	if x.Stats() != y.Stats() {
		t.Errorf("%+v became %+v", x.Stats(), y.Stats())
	}
	y.Remove(name(7))
	x.Remove(name(7))
	if a, b := order(x), order(y); len(a) != 2999 || !slices.Equal(a, b) {
		t.Errorf("the order of %d victims is not that of %d", len(b), len(a))
	}
	for i := 0; i < file.Len(); i += 997 {
		bad := bytes.Clone(file.Bytes())
		bad[i] ^= 4
		for _, b := range [][]byte{bad, file.Bytes()[:i]} {
			if err := Load(bytes.NewReader(b), func(Record) {}); !errors.Is(err, ErrBadFile) {
				t.Fatalf("damage at byte %d: %v", i, err)
			}
		}
	}
}

func first(h fs.Hash, _ int64, _ bool) fs.Hash { return h }

// TestMemoryPerChunk: a million chunks fit; see the package's comment.
func TestMemoryPerChunk(t *testing.T) {
	const chunks = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x, _ := newIndex()
	for i := range chunks {
		var h fs.Hash
		binary.LittleEndian.PutUint64(h[:], uint64(i)*0x9e3779b97f4a7c15)
		x.Add(h, 4096, false)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / chunks
	t.Logf("%.1f bytes per chunk", per)
	if per > 64 {
		t.Errorf("%.1f bytes per chunk, want at most 64", per)
	}
	runtime.KeepAlive(x)
}

// TestDoom: a chunk named by somebody is a victim wherever it was, and a use or a
// put saves it like any other.
func TestDoom(t *testing.T) {
	for what, row := range map[string]struct {
		before, after func(x *Index)
		gone          bool
	}{
		"small":    {func(*Index) {}, func(*Index) {}, true},
		"main":     {func(x *Index) { x.Remove(name(1)); x.AddCold(name(1), 100, false) }, func(*Index) {}, true},
		"pinned":   {func(x *Index) { x.Pin(name(1)) }, func(*Index) {}, true},
		"used":     {func(*Index) {}, func(x *Index) { x.Use(name(1)) }, false},
		"put":      {func(*Index) {}, func(x *Index) { x.Add(name(1), 100, true) }, false},
		"pinned 2": {func(*Index) {}, func(x *Index) { x.Pin(name(1)) }, false},
	} {
		x, _ := newIndex()
		x.Add(name(1), 100, false)
		x.Add(name(2), 50, false)
		row.before(x)
		if !x.Doom(name(1)) || x.Doom(name(3)) {
			t.Errorf("%s: who is here and who is not", what)
		}
		row.after(x)
		if got := x.Drop(name(1)); got != row.gone {
			t.Errorf("%s: dropped %t", what, got)
		}
		if st := x.Stats(); (st.Chunks == 1) != row.gone || st.PinnedChunks > 1 {
			t.Errorf("%s: %+v", what, st)
		}
	}
}
