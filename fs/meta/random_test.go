package meta_test

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/meta/metatest"
)

// smallPebble writes to the disk often, so that little changes are spread over
// many files.
func smallPebble() meta.PebbleOptions {
	return meta.PebbleOptions{
		CacheBytes: 1 << 20, MemTableBytes: 64 << 10,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func openPebble(t testing.TB, dir string, cacheBytes int) *meta.State {
	t.Helper()
	kv, err := meta.OpenPebble(dir, smallPebble())
	if err != nil {
		t.Fatal(err)
	}
	return openCached(t, kv, cacheBytes)
}

func openMem(t testing.TB) *meta.State {
	t.Helper()
	return openCached(t, meta.NewMemKV(), 0)
}

// replica is one store that a sequence of entries is played into.
type replica struct {
	s      *meta.State
	reopen func(*meta.State) (*meta.State, error) // nil: it stays open
}

// keep stores what leaves the metadata where the model finds it, as a cache would.
func (r *replica) keep(content map[fs.Hash][]byte) {
	r.s.SetDroppedInline(func(id fs.ChunkID, b []byte) { content[id.Hash] = b })
}

// play applies entries to the model and to fresh replicas and says what differed
// first.
func play(entries []metatest.Entry, content map[fs.Hash][]byte, replicas []*replica) error {
	m := metatest.NewModel()
	m.Content = content
	for _, r := range replicas {
		r.keep(content)
	}
	for i, e := range entries {
		var want []fs.Result
		for _, c := range e.Batch {
			want = append(want, m.Apply(e.At, c))
		}
		if err := playEntry(e, want, replicas); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if i%64 != 63 && i != len(entries)-1 {
			continue
		}
		if err := compareAll(m, replicas); err != nil {
			return fmt.Errorf("after entry %d: %w", i, err)
		}
	}
	return nil
}

func playEntry(e metatest.Entry, want []fs.Result, replicas []*replica) error {
	var keys0 []fs.Key
	for i, r := range replicas {
		got, keys, err := r.s.Apply(e.At, e.Batch)
		if err != nil {
			return fmt.Errorf("replica %d: %w", i, err)
		}
		for j := range want {
			if got[j] != want[j] {
				return fmt.Errorf("replica %d: command %d: %+v gave\n%+v, want\n%+v", i, j, e.Batch[j], got[j], want[j])
			}
		}
		if i == 0 {
			keys0 = keys
		} else if !slices.Equal(keys, keys0) {
			return fmt.Errorf("replica %d: keys %v, replica 0 had %v", i, keys, keys0)
		}
		if h := replicas[0].s.StateHash(); r.s.StateHash() != h {
			return fmt.Errorf("replica %d: hash %x, replica 0 has %x", i, r.s.StateHash(), h)
		}
	}
	return nil
}

func compareAll(m *metatest.Model, replicas []*replica) error {
	var sum [32]byte
	for i, r := range replicas {
		if r.reopen != nil {
			s, err := r.reopen(r.s)
			if err != nil {
				return fmt.Errorf("replica %d: reopen: %w", i, err)
			}
			r.s = s
			r.keep(m.Content)
		}
		if err := m.Compare(r.s); err != nil {
			return fmt.Errorf("replica %d: %w", i, err)
		}
		if err := m.CompareLists(r.s); err != nil {
			return fmt.Errorf("replica %d: %w", i, err)
		}
		if p := broken(r.s); len(p) > 0 {
			return fmt.Errorf("replica %d: check: %v", i, p)
		}
		d, err := r.s.Digest()
		if err != nil {
			return err
		}
		if i == 0 {
			sum = d
		} else if d != sum {
			return fmt.Errorf("replica %d: digest differs from replica 0", i)
		}
	}
	return nil
}

// write makes up n entries.
func write(seed uint64, n int) ([]metatest.Entry, map[fs.Hash][]byte, error) {
	m := metatest.NewModel()
	s, err := meta.Open(meta.NewMemKV())
	if err != nil {
		return nil, nil, err
	}
	script := metatest.NewScript(seed, m)
	script.Undurable = func() (ids []fs.ChunkID) {
		list, err := s.Undurable(fs.ChunkID{}, 20)
		if err != nil {
			panic(err)
		}
		for _, u := range list {
			ids = append(ids, u.Info.ID)
		}
		return ids
	}
	script.Chunks = func() (list []fs.ChunkInfo) {
		dead, _, _, err := s.UncitedChunks(fs.ChunkID{}, 1<<20)
		if err != nil {
			panic(err)
		}
		return append(dead[:min(len(dead), 20)], meta.InPacks(s, 20)...)
	}
	var entries []metatest.Entry
	for range n {
		e := script.Next()
		for _, c := range e.Batch {
			m.Apply(e.At, c)
		}
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	return entries, m.Content, nil
}

// shrink returns a smallest part of entries that still fails: it leaves out ever
// smaller runs of entries, then single commands. Results change then, but model
// and state must still agree on them.
func shrink(entries []metatest.Entry, fails func([]metatest.Entry) bool) []metatest.Entry {
	for step := len(entries) / 2; step > 0; step /= 2 {
		for i := 0; i+step <= len(entries); {
			less := append(slices.Clone(entries[:i]), entries[i+step:]...)
			if fails(less) {
				entries = less
			} else {
				i += step
			}
		}
	}
	for i := range entries {
		for j := len(entries[i].Batch) - 1; j >= 0; j-- {
			less := slices.Clone(entries)
			less[i].Batch = slices.Delete(slices.Clone(less[i].Batch), j, j+1)
			if fails(less) {
				entries = less
			}
		}
	}
	return entries
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if v := os.Getenv("META_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d; repeat with META_SEED=%d", seed, seed)
	return seed
}

// TestRandomAgainstModel plays random commands into three memory stores, one on
// disk, one on disk that is reopened now and then, and the toy model: they
// must agree on every result, all content, and the stores byte for byte. Each
// has another cache, one none, so that these must agree too.
func TestRandomAgainstModel(t *testing.T) {
	seed := seedOf(t)
	rounds, length := 12, 400
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			entries, content, err := write(seed+uint64(round), length)
			if err != nil {
				t.Fatal(err)
			}
			disk := &replica{s: openPebble(t, t.TempDir(), tinyCache)}
			dir := t.TempDir()
			reopened := &replica{s: openPebble(t, dir, 0), reopen: func(s *meta.State) (*meta.State, error) {
				if err := s.Flush(); err != nil {
					return nil, err
				}
				if err := s.Close(); err != nil {
					return nil, err
				}
				return openPebble(t, dir, 0), nil
			}}
			err = play(entries, content, append(inMemory(t), disk, reopened))
			for _, r := range []*replica{disk, reopened} {
				if cerr := r.s.Close(); cerr != nil {
					t.Error(cerr)
				}
			}
			if err == nil {
				return
			}
			report(t, entries, content, err)
		})
	}
}

// inMemory is a replica that caches, one that hardly does, and one that does not.
func inMemory(t *testing.T) (list []*replica) {
	t.Helper()
	for _, size := range []int{0, tinyCache, noCache} {
		list = append(list, &replica{s: openCached(t, meta.NewMemKV(), size)})
	}
	return list
}

// report shrinks a failure that the memory store shows too, and prints it.
func report(t *testing.T, entries []metatest.Entry, content map[fs.Hash][]byte, err error) {
	t.Helper()
	fails := func(e []metatest.Entry) bool {
		return play(e, content, inMemory(t)) != nil
	}
	if !fails(entries) {
		t.Fatalf("only with a store on disk: %v", err)
	}
	small := shrink(entries, fails)
	err = play(small, content, inMemory(t))
	for _, e := range small {
		for _, c := range e.Batch {
			t.Logf("%d: session %d seq %d low %d now %v %T%.600s", e.At, c.Session, c.Seq, c.LowWater, c.Now, c.Op, fmt.Sprintf("%+v", c.Op))
		}
	}
	t.Fatal(err)
}

// TestScriptCovers guards the random test: every operation must be made up often
// enough to succeed, and to be refused in many ways.
func TestScriptCovers(t *testing.T) {
	entries, _, err := write(1, 6000)
	if err != nil {
		t.Fatal(err)
	}
	s := openMem(t)
	good, refused := map[string]int{}, map[fs.Kind]int{}
	for _, e := range entries {
		results, _, err := s.Apply(e.At, e.Batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Kind == fs.OK {
				good[reflect.TypeOf(e.Batch[i].Op).Name()]++
			} else {
				refused[r.Kind]++
			}
		}
	}
	for _, name := range []string{"Create", "Mkdir", "Mknod", "Symlink", "Tmpfile", "Link", "Unlink", "Rmdir", "Rename", "SetAttr",
		"SetXattr", "RemoveXattr", "Publish", "Append", "OpenSession", "ExpireSession", "Reclaim", "MarkDurable", "StorePack", "Condemn", "Forget", "SetLimits", "InitCluster", "Barrier", "SetSetting", "MarkLost"} {
		if good[name] < 3 {
			t.Errorf("%s succeeded %d times", name, good[name])
		}
	}
	for _, k := range []fs.Kind{fs.ErrNotFound, fs.ErrExist, fs.ErrNotDir, fs.ErrIsDir, fs.ErrNotEmpty, fs.ErrInvalid, fs.ErrPermission,
		fs.ErrNameTooLong, fs.ErrNoSpace, fs.ErrTooBig, fs.ErrRange, fs.ErrNoXattr, fs.ErrNotSupported, fs.ErrStale} {
		if refused[k] < 3 {
			t.Errorf("%v was the answer %d times", k, refused[k])
		}
	}
}
