package meta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/wpfs/wpfs/fs"
)

func quiet() PebbleOptions {
	return PebbleOptions{
		CacheBytes: 1 << 20, MemTableBytes: 64 << 10,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// stores are the implementations of KV; open opens an empty one, load a checkpoint.
var stores = map[string]struct {
	open func(dir string) (KV, error)
	load func(dir string) (KV, error)
}{
	"memory": {func(string) (KV, error) { return NewMemKV(), nil }, LoadMemKV},
	"pebble": {
		func(dir string) (KV, error) { return OpenPebble(filepath.Join(dir, "db"), quiet()) },
		func(dir string) (KV, error) { return OpenPebble(dir, quiet()) },
	},
}

// sortedMap is what a Reader must be like.
type sortedMap map[string]string

func (m sortedMap) in(lo, hi []byte) []string {
	var keys []string
	for k := range m {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (m sortedMap) commit(w []Write) {
	for _, x := range w {
		if x.Delete {
			delete(m, string(x.Key))
		} else {
			m[string(x.Key)] = string(x.Value)
		}
	}
}

func randomKey(rnd *rand.Rand) []byte {
	k := make([]byte, 1+rnd.IntN(3))
	for i := range k {
		k[i] = []byte{0, 1, 'a', 0xfe, 0xff}[rnd.IntN(5)]
	}
	return k
}

func randomWrites(rnd *rand.Rand) (w []Write) {
	for range rnd.IntN(6) {
		x := Write{Key: randomKey(rnd), Delete: rnd.IntN(3) == 0}
		if !x.Delete {
			x.Value = fmt.Append(nil, rnd.IntN(1000))[rnd.IntN(2):]
		}
		w = append(w, x)
	}
	slices.SortStableFunc(w, func(a, b Write) int { return bytes.Compare(a.Key, b.Key) })
	return slices.CompactFunc(w, func(a, b Write) bool { return bytes.Equal(a.Key, b.Key) })
}

// compareReader asks r for everything in a random range.
func compareReader(t *testing.T, rnd *rand.Rand, r Reader, want sortedMap) {
	t.Helper()
	k := randomKey(rnd)
	v, ok, err := r.Get(k)
	if w, has := want[string(k)]; err != nil || ok != has || string(v) != w {
		t.Fatalf("get %x: %q %t %v, want %q %t", k, v, ok, err, w, has)
	}
	lo, hi := randomKey(rnd), randomKey(rnd)
	if bytes.Compare(lo, hi) > 0 {
		lo, hi = hi, lo
	}
	keys := want.in(lo, hi)
	last, v, ok, err := r.Last(lo, hi)
	if err != nil || ok != (len(keys) > 0) || ok && (string(last) != keys[len(keys)-1] || string(v) != want[string(last)]) {
		t.Fatalf("last of [%x,%x): %x %q %t %v, want %x", lo, hi, last, v, ok, err, keys)
	}
	if rnd.IntN(8) == 0 {
		lo, hi, keys = nil, nil, want.in(nil, nil)
	}
	stop := len(keys)
	if rnd.IntN(3) == 0 {
		stop = rnd.IntN(5)
	}
	var got []string
	err = r.Scan(lo, hi, func(k, v []byte) bool {
		if string(v) != want[string(k)] {
			t.Fatalf("scan: %x has %q, want %q", k, v, want[string(k)])
		}
		got = append(got, string(k))
		return len(got) < stop
	})
	n := min(max(stop, 1), len(keys)) // the first is shown in any case
	if err != nil || !slices.Equal(got, keys[:n]) {
		t.Fatalf("scan of [%x,%x) to %d: %x %v, want %x", lo, hi, stop, got, err, keys[:n])
	}
}

func TestKVConformance(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 1))
			kv, err := store.open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			want := sortedMap{}
			type old struct {
				Snapshot
				want sortedMap
			}
			var snaps []old
			for i := range 1500 {
				w := randomWrites(rnd)
				if err := kv.Commit(w); err != nil {
					t.Fatal(err)
				}
				want.commit(w)
				for _, x := range w { // not kept: scribble over it
					clear(x.Key)
					clear(x.Value)
				}
				compareReader(t, rnd, kv, want)
				if i%300 == 0 {
					s, err := kv.Snapshot()
					if err != nil {
						t.Fatal(err)
					}
					snaps = append(snaps, old{s, maps.Clone(want)})
				}
				for _, s := range snaps {
					compareReader(t, rnd, s, s.want)
				}
			}
			for _, s := range snaps {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			checkpoint(t, rnd, kv, want, store.load)
		})
	}
}

func checkpoint(t *testing.T, rnd *rand.Rand, kv KV, want sortedMap, load func(string) (KV, error)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	if err := kv.Checkpoint(dir); err != nil {
		t.Fatal(err)
	}
	if err := kv.Checkpoint(dir); err == nil {
		t.Error("a checkpoint over another one")
	}
	if err := kv.Commit([]Write{{Key: []byte("later")}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(kv.Flush(), kv.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		compareReader(t, rnd, again, want)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestOverlay: an overlay reads like the store it will make, before and after
// commands are rolled back.
func TestOverlay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	kv, want := NewMemKV(), sortedMap{}
	for range 300 {
		o, over := newOverlay(kv), maps.Clone(want)
		for range rnd.IntN(5) {
			o.mark()
			w, before := randomWrites(rnd), maps.Clone(over)
			w = append(w, randomWrites(rnd)...) // the same key twice in one command
			for _, x := range w {
				o.write(x)
			}
			over.commit(w)
			compareReader(t, rnd, o, over)
			if rnd.IntN(2) == 0 {
				o.rollback()
				over = before
			}
			compareReader(t, rnd, o, over)
		}
		if err := kv.Commit(o.writes()); err != nil {
			t.Fatal(err)
		}
		want = over
		compareReader(t, rnd, kv, want)
	}
}

func TestAfter(t *testing.T) {
	for in, want := range map[string]string{"a": "b", "a\xff": "b", "a\x00": "a\x01", "\xff\xff": "", "": ""} {
		if got := string(after([]byte(in))); got != want {
			t.Errorf("after %q: %q, want %q", in, got, want)
		}
	}
}

// filled makes a store on disk with a thousand files and closes it.
func filled(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "db")
	kv, err := OpenPebble(dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(kv)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		_, _, err := s.Apply(fs.Index(i+1), []fs.Command{{Op: fs.Create{Parent: 1, Name: strings.Repeat("n", 100) + fmt.Sprint(i)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// oneFile finds a file of the store by its name's beginning or end.
func oneFile(t *testing.T, dir, pattern string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: %v %v", pattern, list, err)
	}
	return list[len(list)-1]
}

func TestOpenPebbleRefuses(t *testing.T) {
	edit := func(t *testing.T, path string, change func([]byte) []byte) {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, change(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var newer *VersionError
	for name, row := range map[string]struct {
		damage func(t *testing.T, dir string)
		want   func(error) bool
	}{
		"newer format": {func(t *testing.T, dir string) {
			old := oneFile(t, dir, "marker.format-version.*")
			if err := os.Rename(old, old[:len(old)-3]+"999"); err != nil {
				t.Fatal(err)
			}
		}, func(err error) bool { return errors.As(err, &newer) && newer.Got == 999 }},
		"a table is missing": {func(t *testing.T, dir string) {
			if err := os.Remove(oneFile(t, dir, "*.sst")); err != nil {
				t.Fatal(err)
			}
		}, corruptKind},
		"a table is cut off": {func(t *testing.T, dir string) {
			edit(t, oneFile(t, dir, "*.sst"), func(b []byte) []byte { return b[:len(b)/2] })
		}, corruptKind},
		"the manifest is missing": {func(t *testing.T, dir string) {
			if err := os.Remove(oneFile(t, dir, "MANIFEST-*")); err != nil {
				t.Fatal(err)
			}
		}, corruptKind},
		"the manifest is damaged": {func(t *testing.T, dir string) {
			edit(t, oneFile(t, dir, "MANIFEST-*"), func(b []byte) []byte { b[len(b)/2] ^= 0x55; return b })
		}, corruptKind},
		"not a directory": {func(t *testing.T, dir string) {
			if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, func(err error) bool { return fs.KindOf(err) == fs.ErrIO }},
		"open already": {func(t *testing.T, dir string) {
			kv, err := OpenPebble(dir, quiet())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := kv.Close(); err != nil {
					t.Error(err)
				}
			})
		}, func(err error) bool { return fs.KindOf(err) == fs.ErrBusy }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			row.damage(t, dir)
			kv, err := OpenPebble(dir, quiet())
			if err == nil {
				_ = kv.Close()
			}
			if err == nil || !row.want(err) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%T %v", err, err)
			}
		})
	}
}

func corruptKind(err error) bool { return fs.KindOf(err) == fs.ErrCorrupt }

// TestFlippedBitIsNeverServed: a table with a changed byte gives an error of kind
// corrupt, never wrong bytes.
func TestFlippedBitIsNeverServed(t *testing.T) {
	dir := filled(t)
	path := oneFile(t, dir, "*.sst")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	kv, err := OpenPebble(dir, quiet())
	if err != nil {
		if !corruptKind(err) {
			t.Fatal(err)
		}
		return
	}
	if err := kv.Scan(nil, nil, func(k, v []byte) bool { return true }); !corruptKind(err) {
		t.Errorf("scan of a damaged table: %v", err)
	}
	if err := kv.Commit([]Write{{Key: []byte("k")}}); err == nil {
		t.Error("a store known to be damaged takes changes")
	}
	if err := kv.Close(); err != nil {
		t.Error(err)
	}
}

func TestPebbleOptionsValidate(t *testing.T) {
	for field, o := range map[string]PebbleOptions{
		"CacheBytes": {CacheBytes: -1}, "MemTableBytes": {MemTableBytes: 1},
	} {
		if _, err := OpenPebble(t.TempDir(), o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if f := pebbleFormat; f > pebble.FormatNewest {
		t.Errorf("format %d", f)
	}
}

// TestFullDisk: when background writes fail, Commit and Flush fail too and do not
// hang, what was applied stays readable, Close returns, and after a restart the
// store is a prefix.
func TestFullDisk(t *testing.T) {
	disk := vfs.NewMem()
	full := errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Writes)}
	o := quiet()
	o.fs = errorfs.Wrap(disk, &full)
	kv, err := OpenPebble("db", o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(kv)
	if err != nil {
		t.Fatal(err)
	}
	create := func(i int) error {
		_, _, err := s.Apply(fs.Index(i), []fs.Command{{Op: fs.Create{Parent: 1, Name: strings.Repeat("n", 200) + fmt.Sprint(i)}}})
		return err
	}
	for i := 1; i <= 500; i++ {
		if err := create(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	full.On()
	i := 500
	for err = nil; err == nil && i < 100_000; {
		i++
		err = create(i)
	}
	if err == nil {
		t.Fatalf("%d files fit on a full disk", i)
	}
	if err := s.Flush(); err == nil {
		t.Error("flush succeeds on a full disk")
	}
	if s.Applied() != fs.Index(i-1) {
		t.Errorf("applied %d, want %d", s.Applied(), i-1)
	}
	if u, err := s.View().Usage(); err != nil || u.Inodes != uint64(i) {
		t.Errorf("%+v, %v", u, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Close() }) // it may report the failure again
	wg.Wait()
	full.Off()
	if s, err = reopenMem(disk); err != nil {
		t.Fatal(err)
	}
	if a := s.Applied(); a < 500 || int(a) >= i {
		t.Errorf("after a restart %d is applied", a)
	}
	if p := s.Check(); len(p) > 0 {
		t.Error(p)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func reopenMem(disk vfs.FS) (*State, error) {
	o := quiet()
	o.fs = disk
	kv, err := OpenPebble("db", o)
	if err != nil {
		return nil, err
	}
	return Open(kv)
}
