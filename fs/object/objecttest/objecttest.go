// Package objecttest is the suite that every driver and every wrapper of
// [object.Store] passes.
package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wpfs/wpfs/fs/object"
)

// Run runs the suite; open makes an empty bucket for each of its parts.
func Run(t *testing.T, open func(t *testing.T) object.Store) {
	for _, part := range []struct {
		name string
		test func(*testing.T, object.Store)
	}{
		{"PutGet", testPutGet},
		{"Overwrite", testOverwrite},
		{"Ranges", testRanges},
		{"BytesAreOwned", testBytesAreOwned},
		{"Absent", testAbsent},
		{"DeleteTwice", testDelete},
		{"IfAbsent", testIfAbsent},
		{"IfAbsentRace", testIfAbsentRace},
		{"IfMatch", testIfMatch},
		{"IfMatchRace", testIfMatchRace},
		{"OverwriteRace", testOverwriteRace},
		{"ListOrder", testListOrder},
		{"ListMany", testListMany},
		{"ListStop", testListStop},
		{"BadKeys", testBadKeys},
		{"LongestKey", testLongestKey},
		{"TooLarge", testTooLarge},
		{"EndedContext", testEndedContext},
		{"Probe", testProbe},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, open(t)) })
	}
}

// content makes n bytes that differ from place to place and from seed to seed.
func content(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func put(t *testing.T, st object.Store, key string, b []byte) {
	t.Helper()
	if err := st.Put(t.Context(), key, b, object.PutOptions{}); err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
}

func get(t *testing.T, st object.Store, key string, off, n int64) []byte {
	t.Helper()
	b, err := st.Get(t.Context(), key, off, n)
	if err != nil {
		t.Fatalf("Get %s from %d, %d bytes: %v", key, off, n, err)
	}
	return b
}

func wantKind(t *testing.T, what string, err error, kind object.Kind) {
	t.Helper()
	var e *object.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Errorf("%s: error %v, want an *object.Error of kind %q", what, err, kind)
	}
}

func keysOf(t *testing.T, st object.Store, prefix, after string) []string {
	t.Helper()
	var keys []string
	for info, err := range st.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func testPutGet(t *testing.T, st object.Store) {
	for _, n := range []int{0, 1, 8 << 10, 1<<20 + 3, 8 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			key := fmt.Sprintf("c/ab/size-%d", n)
			b := content(uint64(n), n)
			put(t, st, key, b)
			if got := get(t, st, key, 0, -1); !bytes.Equal(got, b) {
				t.Errorf("got %d bytes that are not the %d put", len(got), n)
			}
			info, err := st.Stat(t.Context(), key)
			if err != nil || info.Key != key || info.Size != int64(n) || info.Modified.IsZero() {
				t.Errorf("Stat = %+v, %v", info, err)
			}
		})
	}
}

func testOverwrite(t *testing.T, st object.Store) {
	put(t, st, "k", content(1, 3000))
	second := content(2, 1000)
	put(t, st, "k", second)
	if got := get(t, st, "k", 0, -1); !bytes.Equal(got, second) {
		t.Errorf("got %d bytes that are not the second object", len(got))
	}
}

func testRanges(t *testing.T, st object.Store) {
	const size = 10_000
	b := content(7, size)
	put(t, st, "r/object", b)
	put(t, st, "r/empty", nil)
	for _, row := range []struct {
		name      string
		off, n    int64
		from, end int64 // of b
	}{
		{"all by length", 0, size, 0, size},
		{"all by -1", 0, -1, 0, size},
		{"first byte", 0, 1, 0, 1},
		{"last byte", size - 1, 1, size - 1, size},
		{"middle", 4096, 512, 4096, 4608},
		{"rest by -1", 9000, -1, 9000, size},
		{"over the end", 9990, 100, 9990, size},
		{"at the end", size, 10, 0, 0},
		{"at the end by -1", size, -1, 0, 0},
		{"beyond the end", size + 5, 10, 0, 0},
		{"nothing", 100, 0, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := get(t, st, "r/object", row.off, row.n); !bytes.Equal(got, b[row.from:row.end]) {
				t.Errorf("got %d bytes, want those from %d to %d", len(got), row.from, row.end)
			}
		})
	}
	t.Run("of an empty object", func(t *testing.T) {
		if got := get(t, st, "r/empty", 0, 10); len(got) != 0 {
			t.Errorf("got %d bytes", len(got))
		}
	})
	t.Run("negative offset", func(t *testing.T) {
		_, err := st.Get(t.Context(), "r/object", -1, 1)
		wantKind(t, "Get", err, object.Invalid)
	})
	t.Run("nothing of an absent key", func(t *testing.T) {
		_, err := st.Get(t.Context(), "r/absent", 0, 0)
		wantKind(t, "Get", err, object.NotExist)
	})
}

func testBytesAreOwned(t *testing.T, st object.Store) {
	want := content(3, 5000)
	b := bytes.Clone(want)
	put(t, st, "own", b)
	clear(b)
	got := get(t, st, "own", 0, -1)
	if !bytes.Equal(got, want) {
		t.Error("Put kept a reference to the caller's bytes")
	}
	clear(got)
	if got := get(t, st, "own", 0, -1); !bytes.Equal(got, want) {
		t.Error("Get gave away its own bytes")
	}
}

func testAbsent(t *testing.T, st object.Store) {
	put(t, st, "present/file", nil)
	for _, key := range []string{"absent", "no/such/key", "present/other", "present", "present/file/below"} {
		_, err := st.Get(t.Context(), key, 0, -1)
		wantKind(t, "Get "+key, err, object.NotExist)
		_, err = st.Get(t.Context(), key, 3, 4)
		wantKind(t, "Get a range of "+key, err, object.NotExist)
		_, err = st.Stat(t.Context(), key)
		wantKind(t, "Stat "+key, err, object.NotExist)
	}
}

func testDelete(t *testing.T, st object.Store) {
	put(t, st, "d/one", []byte("1"))
	put(t, st, "d/two", []byte("2"))
	for i, key := range []string{"d/one", "d/one", "never/was"} {
		if err := st.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete %d of %s: %v", i, key, err)
		}
	}
	_, err := st.Stat(t.Context(), "d/one")
	wantKind(t, "Stat", err, object.NotExist)
	if got := keysOf(t, st, "", ""); !slices.Equal(got, []string{"d/two"}) {
		t.Errorf("left are %q", got)
	}
}

func testIfAbsent(t *testing.T, st object.Store) {
	once := object.PutOptions{IfAbsent: true}
	if err := st.Put(t.Context(), "OWNER", []byte("first"), once); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "other bytes", st.Put(t.Context(), "OWNER", []byte("second"), once), object.Exists)
	wantKind(t, "the same bytes", st.Put(t.Context(), "OWNER", []byte("first"), once), object.Exists)
	if got := get(t, st, "OWNER", 0, -1); string(got) != "first" {
		t.Errorf("the object is %q", got)
	}
	if err := st.Delete(t.Context(), "OWNER"); err != nil {
		t.Fatal(err)
	}
	if err := st.Put(t.Context(), "OWNER", []byte("third"), once); err != nil {
		t.Errorf("after Delete: %v", err)
	}
}

func testIfAbsentRace(t *testing.T, st object.Store) {
	const rounds, writers = 5, 8
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		var won atomic.Int32
		var winner atomic.Value
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				b := fmt.Sprintf("writer %d", w)
				err := st.Put(t.Context(), key, []byte(b), object.PutOptions{IfAbsent: true})
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(b)
				case !errors.Is(err, object.Exists):
					t.Errorf("Put: %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d had %d winners", round, won.Load())
		}
		if got := get(t, st, key, 0, -1); string(got) != winner.Load() {
			t.Errorf("the object is %q, the winner was %q", got, winner.Load())
		}
	}
}

func testIfMatch(t *testing.T, st object.Store) {
	version := func() string {
		t.Helper()
		info, err := st.Stat(t.Context(), "OWNER")
		if err != nil || info.Version == "" {
			t.Fatalf("Stat = %+v, %v", info, err)
		}
		return info.Version
	}
	swap := func(b, version string) error {
		return st.Put(t.Context(), "OWNER", []byte(b), object.PutOptions{IfMatch: version})
	}
	put(t, st, "OWNER", []byte("first"))
	first := version()
	if again := version(); again != first {
		t.Errorf("the version of an object that nobody touched was %s and is %s", first, again)
	}
	if err := swap("second", first); err != nil {
		t.Fatalf("the version that is there: %v", err)
	}
	second := version()
	if second == first {
		t.Errorf("two contents have the version %s", first)
	}
	wantKind(t, "an old version", swap("third", first), object.Changed)
	if got := get(t, st, "OWNER", 0, -1); string(got) != "second" {
		t.Errorf("the object is %q", got)
	}
	wantKind(t, "both conditions", st.Put(t.Context(), "OWNER", nil, object.PutOptions{IfMatch: second, IfAbsent: true}), object.Invalid)
	if err := st.Delete(t.Context(), "OWNER"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "an absent key", swap("fourth", second), object.Changed)
	_, err := st.Stat(t.Context(), "OWNER")
	wantKind(t, "Stat of a key that no swap may make", err, object.NotExist)
}

// testIfMatchRace: writers that add one each lose no addition.
func testIfMatchRace(t *testing.T, st object.Store) {
	const writers, rounds = 4, 5
	put(t, st, "OWNER", []byte("000"))
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < rounds && !t.Failed(); {
				info, err := st.Stat(t.Context(), "OWNER")
				if err != nil {
					t.Errorf("Stat: %v", err)
					return
				}
				b, err := st.Get(t.Context(), "OWNER", 0, -1)
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				n, err := strconv.Atoi(string(b))
				if err != nil {
					t.Errorf("the object is %q: %v", b, err)
					return
				}
				err = st.Put(t.Context(), "OWNER", fmt.Appendf(nil, "%03d", n+1), object.PutOptions{IfMatch: info.Version})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, object.Changed) && !errors.Is(err, object.Busy):
					t.Errorf("Put: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := string(get(t, st, "OWNER", 0, -1)), fmt.Sprintf("%03d", writers*rounds); got != want {
		t.Errorf("%d additions made %s", writers*rounds, got)
	}
}

// testOverwriteRace: readers of an object that is being replaced see one of its
// versions, whole.
func testOverwriteRace(t *testing.T, st object.Store) {
	versions := [][]byte{content(1, 100_000), content(2, 70_000)}
	put(t, st, "hot", versions[0])
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range 10 {
				if err := st.Put(t.Context(), "hot", versions[i%2], object.PutOptions{}); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				got, err := st.Get(t.Context(), "hot", 0, -1)
				if err != nil || !bytes.Equal(got, versions[0]) && !bytes.Equal(got, versions[1]) {
					t.Errorf("Get: %d bytes that are no version, or %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

func testListOrder(t *testing.T, st object.Store) {
	// '-' sorts before '/' and '0' after it: the order of whole keys is not the
	// order in which a tree of directories is walked.
	all := []string{"a-b/x", "a/b", "a/c/d", "a/c0", "a0", "b/A", "b/_", "b/a", "z"}
	for _, i := range rand.Perm(len(all)) {
		put(t, st, all[i], []byte(all[i]))
	}
	for _, row := range []struct {
		name, prefix, after string
		want                []string
	}{
		{"everything", "", "", all},
		{"part of a component", "a", "", all[:5]},
		{"directory", "a/", "", all[1:4]},
		{"below a directory", "a/c/", "", all[2:3]},
		{"exactly a key", "a/b", "", all[1:2]},
		{"no such prefix", "q/", "", nil},
		{"longer than a key", "z/z", "", nil},
		{"after a key", "", "a/b", all[2:]},
		{"after a key that is absent", "", "a/bb", all[2:]},
		{"after a directory", "", "a/c/", all[2:]},
		{"after within a prefix", "a/", "a/c/d", all[3:4]},
		{"after before the prefix", "b/", "a", all[5:8]},
		{"after behind the prefix", "a/", "b", nil},
		{"after the last", "", "z", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := keysOf(t, st, row.prefix, row.after); !slices.Equal(got, row.want) {
				t.Errorf("List(%q, %q) = %q, want %q", row.prefix, row.after, got, row.want)
			}
		})
	}
	for info, err := range st.List(t.Context(), "a/b", "") {
		if err != nil || info.Size != 3 || info.Modified.IsZero() {
			t.Errorf("listed %+v, %v", info, err)
		}
	}
}

func testListMany(t *testing.T, st object.Store) {
	const n = 57 // several pages where a driver is opened with small ones
	var want []string
	for i := range n {
		key := fmt.Sprintf("m/%02x/%03d", i%5, i)
		put(t, st, key, []byte{byte(i)})
		want = append(want, key)
	}
	slices.Sort(want)
	if got := keysOf(t, st, "m/", ""); !slices.Equal(got, want) {
		t.Errorf("List has %d keys, want %d, in order: %q", len(got), n, got)
	}
	if got := keysOf(t, st, "m/", want[23]); !slices.Equal(got, want[24:]) {
		t.Errorf("List after %s: %q", want[23], got)
	}
}

func testListStop(t *testing.T, st object.Store) {
	for i := range 30 {
		put(t, st, fmt.Sprintf("s/%02d", i), nil)
	}
	seen := 0
	for _, err := range st.List(t.Context(), "s/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 13 {
			break
		}
	}
	if seen != 13 {
		t.Errorf("saw %d keys", seen)
	}
}

func testBadKeys(t *testing.T, st object.Store) {
	long := string(bytes.Repeat([]byte("k"), object.KeyMax+1))
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".tmp/x", "a b", "a\x00", "ä", "a\\b", "a?b", long} {
		wantKind(t, fmt.Sprintf("Put %q", key), st.Put(t.Context(), key, nil, object.PutOptions{}), object.Invalid)
		_, err := st.Get(t.Context(), key, 0, -1)
		wantKind(t, fmt.Sprintf("Get %q", key), err, object.Invalid)
		_, err = st.Stat(t.Context(), key)
		wantKind(t, fmt.Sprintf("Stat %q", key), err, object.Invalid)
		wantKind(t, fmt.Sprintf("Delete %q", key), st.Delete(t.Context(), key), object.Invalid)
	}
	for _, prefix := range []string{"/", "a//", ".tmp", "a/.", "a b", long} {
		var last error
		for _, err := range st.List(t.Context(), prefix, "") {
			last = err
		}
		wantKind(t, fmt.Sprintf("List %q", prefix), last, object.Invalid)
	}
}

func testLongestKey(t *testing.T, st object.Store) {
	key := "long/" + string(bytes.Repeat([]byte("k"), object.KeyMax-len("long/")))
	put(t, st, key, []byte("x"))
	if got := get(t, st, key, 0, -1); string(got) != "x" {
		t.Errorf("got %q", got)
	}
	if got := keysOf(t, st, "long/", ""); !slices.Equal(got, []string{key}) {
		t.Errorf("List: %q", got)
	}
}

func testTooLarge(t *testing.T, st object.Store) {
	err := st.Put(t.Context(), "large", make([]byte, object.SizeMax+1), object.PutOptions{})
	wantKind(t, "Put", err, object.Invalid)
}

func testEndedContext(t *testing.T, st object.Store) {
	put(t, st, "present", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantKind(t, "Put", st.Put(ctx, "k", nil, object.PutOptions{}), object.Interrupted)
	_, err := st.Get(ctx, "present", 0, -1)
	wantKind(t, "Get", err, object.Interrupted)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Get does not wrap the context's error: %v", err)
	}
	_, err = st.Stat(ctx, "present")
	wantKind(t, "Stat", err, object.Interrupted)
	wantKind(t, "Delete", st.Delete(ctx, "present"), object.Interrupted)
	var last error
	for _, err := range st.List(ctx, "", "") {
		last = err
	}
	wantKind(t, "List", last, object.Interrupted)
	if got := get(t, st, "present", 0, -1); string(got) != "x" {
		t.Errorf("a call whose context had ended had an effect: %q", got)
	}
}

func testProbe(t *testing.T, st object.Store) {
	if err := object.Probe(t.Context(), st); err != nil {
		t.Errorf("Probe: %v", err)
	}
	if got := keysOf(t, st, object.ProbePrefix, ""); len(got) != 0 {
		t.Errorf("Probe left %q", got)
	}
}
