package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// holdings is what the metadata says, as a test sets it.
type holdings struct {
	mu       sync.Mutex
	promised map[fs.Hash]bool
	backed   map[fs.Hash]bool
}

func newHoldings() *holdings {
	return &holdings{promised: map[fs.Hash]bool{}, backed: map[fs.Hash]bool{}}
}

func (h *holdings) CopyOf(c fs.Hash) (bool, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.promised[c], h.backed[c]
}

// commit says what the metadata knows, and that it has just cited the chunk.
func (h *holdings) commit(d *Disk, c fs.Hash, promised, backed bool) {
	h.set(c, promised, backed)
	d.Cited(c)
}

func (h *holdings) set(c fs.Hash, promised, backed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.promised[c], h.backed[c] = promised, backed
}

// boundedDisk has room for limit bytes.
func boundedDisk(t testing.TB, dir string, limit int64, h Holdings) *Disk {
	t.Helper()
	return openDisk(t, dir, DiskOptions{MaxBytes: limit, Holdings: h})
}

// TestEvictionMakesRoom: a full cache takes what comes and stays within its bound.
func TestEvictionMakesRoom(t *testing.T) {
	h := newHoldings()
	d := boundedDisk(t, filepath.Join(ramDir(t), "cache"), 100_000, h)
	for i := range 100 {
		h.commit(d, mustPut(t, d, content(i, 5000), false), false, true)
		if st := d.Stats(); st.Bytes > 100_000 {
			t.Fatalf("%d bytes are held", st.Bytes)
		}
	}
	st := d.Stats()
	if st.Chunks < 15 || st.Evicted != uint64(100-st.Chunks) || st.EvictedBytes != 5000*st.Evicted || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
	files := 0
	for i := range 100 {
		if d.Has(hashOf(content(i, 5000))) {
			files++
		}
	}
	if files != int(st.Chunks) {
		t.Errorf("%d files, %d chunks in the index", files, st.Chunks)
	}
}

// TestNothingToDrop: a cache full of promises refuses another put, says why, and
// takes it once the object store has what is there.
func TestNothingToDrop(t *testing.T) {
	h := newHoldings()
	d := boundedDisk(t, filepath.Join(ramDir(t), "cache"), 50_000, h)
	for i := range 10 {
		h.commit(d, mustPut(t, d, content(i, 5000), false), true, false)
	}
	d.index.Age()
	d.index.Age() // hours later
	_, err := d.Put(content(99, 5000), false)
	wantKind(t, "Put", err, fs.ErrNoSpace)
	if p := d.Pressure(); p != 1 {
		t.Errorf("pressure %v, want 1", p)
	}
	for i := range 10 {
		got, err := readAll(d, hashOf(content(i, 5000)), 5000)
		wantBytes(t, "a promised chunk", got, err, content(i, 5000))
	}
	for i := range 8 {
		h.set(hashOf(content(i, 5000)), false, true)
	}
	d.checked.Store(0) // the time between two looks has passed
	mustPut(t, d, content(99, 5000), false)
	if d.recheck(100); d.Pressure() > 0.5 {
		t.Errorf("pressure %v after the backlog has drained", d.Pressure())
	}
}

// TestFreshIsKept: what was just put stays until the metadata knows of it, or for
// an hour; what was only fetched does not.
func TestFreshIsKept(t *testing.T) {
	d := boundedDisk(t, filepath.Join(ramDir(t), "cache"), 10_000, newHoldings())
	put := mustPut(t, d, content(1, 5000), false)
	if err := d.Cache(hashOf(content(2, 5000)), content(2, 5000)); err != nil {
		t.Fatal(err)
	}
	mustPut(t, d, content(3, 5000), false)
	if !d.Has(put) || d.Has(hashOf(content(2, 5000))) {
		t.Error("what was put went before what was fetched")
	}
	_, err := d.Put(content(4, 5000), false)
	wantKind(t, "Put", err, fs.ErrNoSpace)
	d.index.Age()
	d.index.Age()
	d.checked.Store(0)
	mustPut(t, d, content(4, 5000), false)
}

// TestFoundIsKept: what a process finds on the disk may be about to be cited, by an
// entry that is on its way to this node.
func TestFoundIsKept(t *testing.T) {
	for _, index := range []bool{true, false} {
		dir := filepath.Join(ramDir(t), "cache")
		d := boundedDisk(t, dir, 0, newHoldings())
		if index {
			if err := d.Scan(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		found := mustPut(t, d, content(1, 5000), true)
		d.Close()
		d = boundedDisk(t, dir, 5000, newHoldings())
		if err := d.Scan(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := d.Put(content(2, 5000), false)
		wantKind(t, "Put", err, fs.ErrNoSpace)
		d.index.Age()
		d.index.Age()
		d.keepRoom()
		mustPut(t, d, content(2, 5000), false)
		if d.Has(found) {
			t.Error("what nobody cites is kept for ever")
		}
	}
}

// TestPutOfWhatIsThereIsKept: a put that makes do with the file that is there is
// about to rely on it, whatever the metadata knows of earlier chunks like it.
func TestPutOfWhatIsThereIsKept(t *testing.T) {
	h := newHoldings()
	d := boundedDisk(t, filepath.Join(ramDir(t), "cache"), 20_000, h)
	old := mustPut(t, d, content(1, 5000), false)
	h.commit(d, old, false, true)
	for i := range 10 {
		mustPut(t, d, content(1, 5000), false) // again; its commit is on the way
		h.commit(d, mustPut(t, d, content(10+i, 5000), false), false, true)
		if !d.Has(old) {
			t.Fatalf("dropped between put and commit, after %d others", i+1)
		}
	}
	h.commit(d, old, false, true)
	d.keepRoom() // as each second
	for i := range 5 {
		h.commit(d, mustPut(t, d, content(30+i, 5000), false), false, true)
	}
	if d.Has(old) {
		t.Error("kept for ever")
	}
}

// TestFullDisk: the reserve is kept by dropping, and so is what others take away.
func TestFullDisk(t *testing.T) {
	h := newHoldings()
	f := newFaultFiles(0)
	var free atomic.Int64
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{ReserveBytes: 1000, Holdings: h, files: countedFiles{f, &free}})
	free.Store(20_000)
	for i := range 4 {
		h.commit(d, mustPut(t, d, content(i, 5000), false), false, true)
		free.Add(-5000)
	}
	d.keepRoom()
	if st := d.Stats(); st.Evicted != 1 {
		t.Errorf("%d chunks dropped for a reserve that lacks 1000 bytes, want 1", st.Evicted)
	}
	free.Store(999 + 5000)
	h.commit(d, mustPut(t, d, content(9, 5000), false), false, true)
}

// countedFiles is a disk of which a test says how full it is; removing a file frees
// what the tests put into each.
type countedFiles struct {
	files
	free *atomic.Int64
}

func (f countedFiles) Free(string) (uint64, error) { return uint64(f.free.Load()), nil }
func (f countedFiles) Remove(path string) error {
	f.free.Add(5000)
	return f.files.Remove(path)
}

// TestEvictionFailureEnds: a disk that removes nothing is refused, not searched
// for ever.
func TestEvictionFailureEnds(t *testing.T) {
	h := newHoldings()
	f := newFaultFiles(0)
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{MaxBytes: 10_000, Holdings: h, files: f})
	for i := range 2 {
		h.commit(d, mustPut(t, d, content(i, 5000), false), false, true)
	}
	f.fails = func(op, _ string) error {
		if op == "remove" {
			return errFault
		}
		return nil
	}
	_, err := d.Put(content(3, 5000), false)
	wantKind(t, "Put", err, fs.ErrNoSpace)
	f.fails = nil
	mustPut(t, d, content(3, 5000), false)
}

// TestEvictionNeverDropsAPromise is a random model: writers put and then promise,
// the object store catches up, readers read, others fetch, all at once, in a
// cache that is always full. What is promised must be there at every moment.
func TestEvictionNeverDropsAPromise(t *testing.T) {
	h := newHoldings()
	d := boundedDisk(t, filepath.Join(ramDir(t), "cache"), 400_000, h)
	var wg sync.WaitGroup
	var kept, refused atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 5))
			var mine []int // promised
			for range 1500 {
				n := w*1000 + rng.IntN(150)
				b := content(n, 2000+n)
				switch c := rng.IntN(10); {
				case c < 4:
					if _, err := d.Put(b, false); err != nil {
						if !errors.Is(err, fs.ErrNoSpace) {
							t.Errorf("Put: %v", err)
						}
						refused.Add(1)
						break
					}
					if rng.IntN(8) == 0 {
						time.Sleep(time.Millisecond) // the commit takes its time
					}
					h.commit(d, hashOf(b), true, false)
					mine = append(mine, n)
					kept.Add(1)
				case c < 6 && len(mine) > 0:
					h.set(hashOf(content(mine[0], 2000+mine[0])), false, true)
					mine = mine[1:]
				case c < 8:
					_ = d.Cache(hashOf(b), b) // no room is no fault
				}
				for _, n := range mine {
					if p, _ := h.CopyOf(hashOf(content(n, 2000+n))); p && !d.Has(hashOf(content(n, 2000+n))) {
						t.Errorf("promised chunk %d is gone", n)
						return
					}
				}
				d.checked.Store(0)
			}
		})
	}
	wg.Wait()
	st := d.Stats()
	t.Logf("%d puts, %d refused, %d dropped", kept.Load(), refused.Load(), st.Evicted)
	if kept.Load() < 100 || st.Evicted < 100 {
		t.Errorf("only %d puts and %d evictions: the model tests nothing", kept.Load(), st.Evicted)
	}
	checkIndex(t, d)
}

// checkIndex compares the index with the files.
func checkIndex(t *testing.T, d *Disk) {
	t.Helper()
	chunks, bytes := int64(0), int64(0)
	err := filepath.WalkDir(d.path(chunkDir), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		chunks++
		bytes += info.Size()
		if h, ok := parseHash(e.Name()); !ok || !d.index.Confirm(h) {
			t.Errorf("the index does not know %s", e.Name())
		}
		return nil
	})
	if st := d.Stats(); err != nil || st.Chunks != chunks || st.Bytes != bytes {
		t.Errorf("the index has %d chunks with %d bytes, the disk %d with %d (%v)", st.Chunks, st.Bytes, chunks, bytes, err)
	}
}

// TestIndexSurvives: what was in use before a restart is in use after it; without
// the index, or with a wrong one, everything is found all the same.
func TestIndexSurvives(t *testing.T) {
	for _, row := range []struct {
		name   string
		before func(t *testing.T, dir string)
		lost   int // of the two files
	}{
		{"clean", func(*testing.T, string) {}, 0},
		{"no index", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, indexFile)) }, 0},
		{"damaged index", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, indexFile), 60); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"a file is gone", func(t *testing.T, dir string) {
			h := hashOf(content(1, 700))
			remove(t, filepath.Join(dir, chunkDir, h.String()[:2], h.String()))
		}, 1},
		{"a file has come", func(t *testing.T, dir string) {
			h := hashOf(content(5, 700))
			if err := os.WriteFile(filepath.Join(dir, chunkDir, h.String()[:2], h.String()), content(5, 700), 0o600); err != nil {
				t.Fatal(err)
			}
		}, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(ramDir(t), "cache")
			d := boundedDisk(t, dir, 0, newHoldings())
			if err := d.Scan(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				mustPut(t, d, content(i, 700), true)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			row.before(t, dir)
			d = boundedDisk(t, dir, 0, newHoldings())
			mustPut(t, d, content(3, 100), true) // served at once
			if err := d.Scan(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkIndex(t, d)
			if st := d.Stats(); st.Chunks != int64(3-row.lost) || !st.Counted {
				t.Errorf("%+v", st)
			}
			if _, err := os.Stat(filepath.Join(dir, indexFile)); !errors.Is(err, os.ErrNotExist) {
				t.Error("the index is still there: after a crash it would be believed")
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestOldestGoFirstWithoutIndex: after a crash the files' times stand for their use.
func TestOldestGoFirstWithoutIndex(t *testing.T) {
	dir := filepath.Join(ramDir(t), "cache")
	d := newDiskAt(t, dir)
	for i := range 10 {
		h := mustPut(t, d, content(i, 1000), true)
		at := time.Now().Add(-time.Duration(10-(i*7)%10) * time.Hour)
		if err := os.Chtimes(d.chunkPath(h), at, at); err != nil {
			t.Fatal(err)
		}
	}
	d.Close() // without a scan there is no index
	h := newHoldings()
	d = boundedDisk(t, dir, 10_000, h)
	if err := d.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		h.set(hashOf(content(i, 1000)), false, true)
	}
	mustPut(t, d, content(20, 3000), true)
	for i := range 10 {
		if want := (i*7)%10 >= 3; d.Has(hashOf(content(i, 1000))) != want {
			t.Errorf("the file of age rank %d is there: %v", (i*7)%10, !want)
		}
	}
}

func newDiskAt(t testing.TB, dir string) *Disk { return openDisk(t, dir, DiskOptions{}) }

// TestReadsGoPastAFullDisk: what cannot be kept is served all the same, and one
// fetch serves a whole chunk's reads.
func TestReadsGoPastAFullDisk(t *testing.T) {
	c := newCluster(t, "a", "b")
	h := newHoldings()
	c.disks["a"] = boundedDisk(t, filepath.Join(ramDir(t), "cache"), 5200, h)
	tier := tierOf(t, c, "a", nil)
	mine := content(1, 5000)
	h.set(hashOf(mine), true, false)
	mustPut(t, c.disks["a"], mine, false)
	b := content(2, 100_000)
	mustPut(t, c.disks["b"], b, false)
	info := infoOf(b, 1, "b")
	for off := int64(0); off < 100_000; off += 10_000 {
		p := make([]byte, 10_000)
		n, err := tier.ReadAt(context.Background(), info, p, off)
		wantBytes(t, "read", p[:n], err, b[off:off+10_000])
	}
	tier.prefetchOne(t.Context(), infoOf(content(3, 100_000), 1, "b"))
	if p := c.disks["a"].Pressure(); c.fetched() != 1 || p < prefetchPressure {
		t.Errorf("at pressure %v %d chunks were fetched, and there is no room for them", p, c.fetched())
	}
	if c.fetched() != 1 || c.disks["a"].Has(info.ID.Hash) || !c.disks["a"].Has(hashOf(mine)) {
		t.Errorf("%d fetches; the wrong chunk is on the disk", c.fetched())
	}
}
