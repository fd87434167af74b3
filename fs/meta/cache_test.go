package meta_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/meta/metatest"
)

// Cache sizes of tests: no cache, one that holds about one record per shard and
// evicts all the time, and one that holds a part of what a script makes.
const (
	noCache    = -1
	tinyCache  = 24 << 10
	smallCache = 128 << 10
)

func openCached(t testing.TB, kv meta.KV, cacheBytes int) *meta.State {
	t.Helper()
	s, err := meta.OpenWith(kv, meta.Options{CacheBytes: cacheBytes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is all that the cache may have a hand in, of one key, as text.
func answer(v fs.View, k fs.Key) string {
	if k.Kind == fs.KeyName {
		a, err := v.Lookup(k.Ino, k.Name)
		return fmt.Sprintf("%+v %v", a, err)
	}
	a, err := v.Attr(k.Ino)
	up, uperr := v.Parent(k.Ino)
	target, terr := v.Readlink(k.Ino)
	return fmt.Sprintf("%+v %v, parent %d %v, target %q %v", a, err, up, uperr, target, terr)
}

// compareKeys says where the cache differs from the store.
func compareKeys(s *meta.State, keys []fs.Key) error {
	return s.Read(func(v fs.View) error {
		raw := meta.Uncached(v)
		for _, k := range keys {
			if got, want := answer(v, k), answer(raw, k); got != want {
				return fmt.Errorf("%+v:\n%s, the store has\n%s", k, got, want)
			}
		}
		return nil
	})
}

// keysOf plays entries and returns the keys that each one changes.
func keysOf(t *testing.T, entries []metatest.Entry) (list [][]fs.Key, all []fs.Key) {
	t.Helper()
	s := openMem(t)
	for _, e := range entries {
		_, keys, err := s.Apply(e.At, e.Batch)
		if err != nil {
			t.Fatal(err)
		}
		list, all = append(list, keys), append(all, keys...)
	}
	return list, all
}

// TestCacheEqualsStore plays random entries. What an entry is about to change is
// read before it, with some other records, and compared with the store after it:
// a commit that leaves one record in the cache as it was shows here.
func TestCacheEqualsStore(t *testing.T) {
	seed := seedOf(t)
	entries, _, err := write(seed, 1500)
	if err != nil {
		t.Fatal(err)
	}
	changes, all := keysOf(t, entries)
	for what, size := range map[string]int{"default": 0, "small": smallCache, "tiny": tinyCache} {
		t.Run(what, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			s := openCached(t, meta.NewMemKV(), size)
			for i, e := range entries {
				keys := changes[i]
				for range 20 {
					keys = append(keys, all[rnd.IntN(len(all))])
				}
				if err := compareKeys(s, keys); err != nil { // also warms
					t.Fatalf("before entry %d: %v", i, err)
				}
				if _, _, err := s.Apply(e.At, e.Batch); err != nil {
					t.Fatal(err)
				}
				if err := compareKeys(s, keys); err != nil {
					t.Fatalf("after entry %d: %v", i, err)
				}
			}
			if err := compareKeys(s, all); err != nil {
				t.Error(err)
			}
			if c := s.CacheStats(); c.Hits == 0 || c.Misses == 0 || size > 0 && c.Bytes > size {
				t.Errorf("with %d bytes: %+v", size, c)
			}
		})
	}
}

// TestCacheBesideCommits: readers that fill while entries commit never find the
// cache at another state than the store.
func TestCacheBesideCommits(t *testing.T) {
	seed := seedOf(t)
	entries, _, err := write(seed, 600)
	if err != nil {
		t.Fatal(err)
	}
	_, all := keysOf(t, entries)
	for what, size := range map[string]int{"default": 0, "tiny": tinyCache} {
		t.Run(what, func(t *testing.T) {
			s := openCached(t, meta.NewMemKV(), size)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for i := range 3 {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						n := rnd.IntN(len(all))
						if err := compareKeys(s, all[n:min(n+5, len(all))]); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for _, e := range entries {
				if _, _, err := s.Apply(e.At, e.Batch); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
			close(stop)
			wg.Wait()
		})
	}
}

// halfKV tells that a commit failed, after having done it.
type halfKV struct {
	meta.KV
	fail bool
}

func (h *halfKV) Commit(w []meta.Write) error {
	if err := h.KV.Commit(w); err != nil || !h.fail {
		return err
	}
	return errDisk
}

// TestFailedCommitEndsCache: after a failure nobody knows what the store has, so
// answers come from it and not from memory.
func TestFailedCommitEndsCache(t *testing.T) {
	kv := &halfKV{KV: meta.NewMemKV()}
	s := openCached(t, kv, 0)
	keys := []fs.Key{{Kind: fs.KeyName, Ino: 1, Name: "a"}, {Kind: fs.KeyAttr, Ino: 1}, {Kind: fs.KeyName, Ino: 1, Name: "b"}}
	if err := compareKeys(s, keys); err != nil {
		t.Fatal(err)
	}
	kv.fail = true
	if _, _, err := s.Apply(1, []fs.Command{{Op: fs.Mkdir{Parent: 1, Name: "a"}}}); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	for range 2 {
		if err := compareKeys(s, keys); err != nil {
			t.Error(err)
		}
	}
	if c := s.CacheStats(); c.Entries != 0 {
		t.Errorf("a cache that must not be believed: %+v", c)
	}
}

// TestCacheEdges: names that the cache could mistake for something else.
func TestCacheEdges(t *testing.T) {
	r := newRig(t)
	f, d := r.file(1, "f"), r.dir(1, "d")
	keys := []fs.Key{
		{Kind: fs.KeyName, Ino: d, Name: ""}, {Kind: fs.KeyAttr, Ino: d},
		{Kind: fs.KeyName, Ino: f, Name: "x"}, {Kind: fs.KeyName, Ino: d + 1, Name: "x"}, {Kind: fs.KeyAttr, Ino: d + 1},
		{Kind: fs.KeyName, Ino: d, Name: strings.Repeat("n", fs.NameMax+1)}, {Kind: fs.KeyName, Ino: d, Name: strings.Repeat("n", fs.NameMax)},
	}
	check := func(when string) {
		t.Helper()
		for range 2 { // cold, warm
			if err := compareKeys(r.s, keys); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	check("at first")
	if sub := r.dir(d, "sub"); sub != d+1 {
		t.Fatal(sub)
	}
	check("when the inode that was missing is a directory")
	r.file(d+1, "x")
	check("when the name is there")
	r.must(fs.Unlink{Parent: d + 1, Name: "x"})
	check("when the name is gone")
	r.must(fs.Rmdir{Parent: d, Name: "sub"})
	r.must(fs.Reclaim{Inos: []fs.Ino{d + 1}})
	check("when the directory is gone")
}

// TestCacheBuffer: a name is kept as a copy, not as a part of the caller's memory.
func TestCacheBuffer(t *testing.T) {
	r := newRig(t)
	big := make([]string, 1)
	size := heap(func() {
		for i := range 64 {
			b := strings.Repeat(fmt.Sprintf("%06d", i), 100_000)
			r.gone(1, b[:6])
			big[0] = b
		}
		big[0] = ""
	})
	if size > 8<<20 {
		t.Errorf("64 names keep %d bytes", size)
	}
	runtime.KeepAlive(r)
}

// heap is how much more memory is in use after f.
func heap(f func()) int {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int(after.HeapAlloc) - int(before.HeapAlloc)
}

// fill makes n files.
func fill(t testing.TB, s *meta.State, n int) {
	t.Helper()
	var batch []fs.Command
	for i := range n {
		batch = append(batch, fs.Command{Op: fs.Create{Parent: 1, Name: fmt.Sprintf("some-file-%06d.php", i)}})
	}
	if _, _, err := s.Apply(s.Applied()+1, batch); err != nil {
		t.Fatal(err)
	}
}

// lookups asks for files and for as many names that are not there.
func lookups(t testing.TB, s *meta.State, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := s.View().Lookup(1, fmt.Sprintf("some-file-%06d.php", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.View().Lookup(1, fmt.Sprintf("no-file-%06d.php", i)); fs.KindOf(err) != fs.ErrNotFound {
			t.Fatal(err)
		}
	}
}

// TestCacheBytesAreHonest compares what the cache says it takes with the heap.
func TestCacheBytesAreHonest(t *testing.T) {
	const n = 30_000
	s := openMem(t)
	fill(t, s, n)
	size := heap(func() { lookups(t, s, 0, n) })
	c := s.CacheStats()
	t.Logf("%+v, heap %d, %d bytes each", c, size, size/c.Entries)
	if c.Entries != 3*n+1 {
		t.Errorf("%d entries, want %d", c.Entries, 3*n+1)
	}
	if size > c.Bytes*5/4 || size < c.Bytes/2 {
		t.Errorf("heap %d, the cache says %d", size, c.Bytes)
	}
	runtime.KeepAlive(s)
}

// TestCacheKeepsWhatIsUsed: many names that are read once pass through a small
// cache, and neither make it larger nor push out what is read all the time.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	const n = 5000
	s := openCached(t, meta.NewMemKV(), smallCache)
	fill(t, s, n)
	lookups(t, s, 0, 20)
	var missed uint64
	for i := 20; i < n; i++ {
		lookups(t, s, i, i+1)
		before := s.CacheStats()
		lookups(t, s, 0, 20)
		missed += s.CacheStats().Misses - before.Misses
	}
	c := s.CacheStats()
	if c.Bytes > smallCache || c.Bytes < smallCache/2 || c.Entries == 0 {
		t.Errorf("%+v with a limit of %d", c, smallCache)
	}
	// Second chance is no promise: the hand may meet a record that has just come.
	if missed > 100 {
		t.Errorf("%d of %d reads of what is hot missed", missed, n*60)
	}

	// A new set of names, each read again only after all others, must get in.
	lookups(t, s, 1000, 1040)
	before := s.CacheStats()
	lookups(t, s, 1000, 1040)
	if missed := s.CacheStats().Misses - before.Misses; missed > 20 {
		t.Errorf("%d of 120 reads of what has just been read missed", missed)
	}
}

func TestCacheStats(t *testing.T) {
	s := openMem(t)
	v := s.View()
	_, _ = v.Attr(1)
	_, _ = v.Attr(1)
	_, _ = v.Lookup(1, "x")
	_, _ = v.Lookup(1, "x")
	if c := s.CacheStats(); c.Hits != 4 || c.Misses != 2 || c.Entries != 2 || c.Bytes == 0 {
		t.Errorf("%+v", c)
	}
	off := openCached(t, meta.NewMemKV(), noCache)
	_, _ = off.View().Attr(1)
	if c := off.CacheStats(); c != (meta.CacheStats{}) {
		t.Errorf("without a cache: %+v", c)
	}
}

// TestWarmReadsAllocateNothing, or the garbage collector would decide how many
// requests a node serves.
func TestWarmReadsAllocateNothing(t *testing.T) {
	s := openMem(t)
	fill(t, s, 10)
	lookups(t, s, 0, 10)
	for what, f := range map[string]func(fs.View) error{
		"present": func(v fs.View) error { _, err := v.Lookup(1, "some-file-000003.php"); return err },
		"absent":  func(v fs.View) error { _, err := v.Lookup(1, "no-file-000003.php"); return err },
		"attr":    func(v fs.View) error { _, err := v.Attr(2); return err },
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() { err = s.Read(f) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
		if want := map[bool]fs.Kind{true: fs.ErrNotFound}[what == "absent"]; fs.KindOf(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
}
