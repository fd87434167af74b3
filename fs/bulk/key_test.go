package bulk

import (
	"context"
	"errors"
	"iter"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

func FuzzKeyToPath(f *testing.F) {
	for _, k := range []string{"", "/", "a", "a/", "a//b", "/a", "..", "a/../b", "./a", "a/.", "ä/ö", "a\x00b", strings.Repeat("x", 256), strings.Repeat("x/", 3000), "a\xffb", "a\\b", "..a/b.."} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		path, dir, err := pathOf(key)
		if err != nil {
			return
		}
		// Whatever a key says, the file is inside the tree, under this very name.
		if !filepath.IsLocal(path) || filepath.Clean(path) != path || strings.IndexByte(path, 0) >= 0 {
			t.Errorf("key %q became the path %q", key, path)
		}
		for part := range strings.SplitSeq(path, "/") {
			if part == "" || len(part) > nameMax {
				t.Errorf("key %q became the path %q", key, path)
			}
		}
		back, err := keyOf(path, dir)
		if ok := utf8.ValidString(key) && len(key) <= object.PlainKeyMax; ok != (err == nil) || ok && back != key {
			t.Errorf("key %q, path %q: back to %q, %v", key, path, back, err)
		}
	})
}

func TestKeysThatAreNoPaths(t *testing.T) {
	for _, key := range []string{"", "/", "//", "/a", "a//b", "a//", "..", "../a", "a/../b", ".", "a/./b", "a\x00", strings.Repeat("x", 256)} {
		if path, _, err := pathOf(key); err == nil {
			t.Errorf("key %q became the path %q", key, path)
		}
	}
	for _, path := range []string{"a\xff", strings.Repeat("ab/", 400) + "x"} {
		if key, err := keyOf(path, false); err == nil {
			t.Errorf("path %q became the key %q", path, key)
		}
	}
}

// listed is a bucket that can only be listed.
type listed struct {
	object.Plain
	keys []string
}

func (l listed) List(context.Context) iter.Seq2[object.PlainInfo, error] {
	return func(yield func(object.PlainInfo, error) bool) {
		for _, k := range l.keys {
			if !yield(object.PlainInfo{Info: object.Info{Key: k}}, nil) {
				return
			}
		}
	}
}

// walkKeys lists what a bucket with these keys is as a tree; refused are those
// that have no place in it.
func walkKeys(t *testing.T, f filter, keys ...string) (paths, refused []string) {
	t.Helper()
	slices.Sort(keys)
	b := &bucket{objs: listed{keys: keys}, filter: f}
	last := ""
	for e, err := range b.walk(t.Context()) {
		if errors.Is(err, errKey) {
			refused = append(refused, e.path)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.path == "" {
			continue
		}
		if e.order() <= last {
			t.Errorf("%q comes after %q", e.order(), last)
		}
		last = e.order()
		paths = append(paths, last)
	}
	return paths, refused
}

func TestKeysAsTree(t *testing.T) {
	exclude, err := newFilter([]string{"*.log", "cache"}, []string{"keep.log"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name           string
		f              filter
		keys           []string
		paths, refused []string
	}{
		{"directories are put in", filter{}, []string{"a/b/c", "a/d", "e"}, []string{"a/", "a/b/", "a/b/c", "a/d", "e"}, nil},
		{"place holders", filter{}, []string{"a/", "a/b/", "a/b/c"}, []string{"a/", "a/b/", "a/b/c"}, nil},
		{"names around the slash", filter{}, []string{"a/x", "a-b", "a.b/y", "a0", "a!"}, []string{"a!", "a-b", "a.b/", "a.b/y", "a/", "a/x", "a0"}, nil},
		{"file and directory", filter{}, []string{"a", "a-b", "a/", "a/b", "a/b/c", "ab"}, []string{"a", "a-b", "ab"}, []string{"a/", "a/b", "a/b/c"}},
		{"two levels of that", filter{}, []string{"a/b", "a/b!c", "a/b/c", "a/bc/d"}, []string{"a/", "a/b", "a/b!c", "a/bc/", "a/bc/d"}, []string{"a/b/c"}},
		{"no paths", filter{}, []string{"a//b", "/c", "../d", "a/e"}, []string{"a/", "a/e"}, []string{"../d", "/c", "a//b"}},
		{"excluded", exclude, []string{"cache/x", "a/cache/y", "a/z.log", "a/keep.log", "b.log/keep.log"}, []string{"a/", "a/keep.log"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			paths, refused := walkKeys(t, row.f, row.keys...)
			if !slices.Equal(paths, row.paths) || !slices.Equal(refused, row.refused) {
				t.Errorf("tree %q, refused %q\nwant %q, %q", paths, refused, row.paths, row.refused)
			}
		})
	}
}

func FuzzKeysAsTree(f *testing.F) {
	f.Add("a|a/b|a-b|b/c/d|b/c")
	f.Add("x/|x|x//y|x/../z")
	f.Fuzz(func(t *testing.T, joined string) {
		if len(joined) > 2000 {
			return // the check below is not made for many
		}
		keys := strings.Split(joined, "|")
		slices.Sort(keys)
		keys = slices.Compact(keys)
		paths, refused := walkKeys(t, filter{}, keys...)
		files := map[string]bool{}
		for _, p := range paths {
			if !strings.HasSuffix(p, "/") {
				files[p] = true
			}
		}
		n := 0
		for _, p := range paths {
			for i := range len(p) - 1 {
				if p[i] == '/' && files[p[:i]] {
					t.Errorf("%q is in the file %q", p, p[:i])
				}
			}
			if slices.Contains(keys, p) {
				n++
			}
		}
		if n+len(refused) != len(keys) {
			t.Errorf("of %q came %q and %q", keys, paths, refused)
		}
	})
}

func TestMetaRoundTrip(t *testing.T) {
	for _, e := range []entry{
		{mode: unix.S_IFREG | 0o4755, uid: 33, gid: 1<<32 - 2, mtime: 1234567890_123456789, known: 31},
		{mode: unix.S_IFREG | 0o600, mtime: -1, known: 31, xattrs: map[string]string{"user.a": "\x00\xff/:", "user.b": ""}, link: "a/b c/\xff:"},
		{mode: unix.S_IFLNK | 0o777, mtime: 5, known: 31},
		{mode: unix.S_IFCHR | 0o666, rdev: 259, known: 31},
	} {
		m, err := e.meta("0123456789abcdef0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		got := entry{mode: fileMode}
		got.readMeta(m)
		e.md5 = "0123456789abcdef0123456789abcdef"
		if !reflect.DeepEqual(got, e) {
			t.Errorf("%+v\nbecame %+v by %q", e, got, m)
		}
		for name, value := range m {
			if strings.ContainsFunc(name+value, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("%s: %q is not fit for a header", name, value)
			}
		}
	}
	big := entry{xattrs: map[string]string{"user.a": strings.Repeat("x", 2000)}}
	if _, err := big.meta(""); err == nil || !strings.Contains(err.Error(), "--xattrs=false") {
		t.Errorf("attributes that do not fit: %v", err)
	}
}

// TestS3cmdMeta: as s3cmd 2.3.0 writes it, what later runs of it change, and
// nonsense.
func TestS3cmdMeta(t *testing.T) {
	const header = "atime:1795646068/ctime:1795646068/gid:34/gname:www-data/md5:764efa883dda1e11db47671c4a3bbd9e/mode:33188/mtime:981173106/uid:33/uname:www-data"
	e := entry{mode: fileMode}
	e.readMeta(map[string]string{metaS3cmd: header})
	want := entry{mode: 33188, uid: 33, gid: 34, mtime: 981173106e9, md5: "764efa883dda1e11db47671c4a3bbd9e", known: knowsMode | knowsOwner | knowsMtime}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("%+v, want %+v", e, want)
	}
	e = entry{mode: fileMode}
	e.readMeta(map[string]string{metaS3cmd: "mtime:981173106", metaMtime: "1000000000123456789"})
	if e.mtime != 981173106e9 {
		t.Errorf("time %d: s3cmd's own is the newer one", e.mtime)
	}
	for _, meta := range []map[string]string{
		nil, {metaS3cmd: ""}, {metaS3cmd: "mode:0/uid:-1/gid:x/mtime:99999999999999"}, {metaS3cmd: "mode:16877"}, // a directory's
		{metaXattrs: "?", metaLink: "%zz", metaRdev: "x"},
	} {
		e := entry{mode: fileMode}
		e.readMeta(maps.Clone(meta))
		if !reflect.DeepEqual(e, entry{mode: fileMode}) {
			t.Errorf("%q became %+v", meta, e)
		}
	}
}

// TestSameTime: to the nanosecond, or to the second where one side has no more.
func TestSameTime(t *testing.T) {
	for _, row := range []struct {
		a, b int64
		same bool
	}{{5e9, 5e9 + 1, true}, {5e9 + 2, 5e9 + 1, false}, {5e9, 6e9, false}, {5e9 + 999_999_999, 5e9, true}, {-1e9 + 5, -1e9, true}, {-5, 0, false}} {
		if got := sameTime(&entry{mtime: row.a}, &entry{mtime: row.b}); got != row.same {
			t.Errorf("%d and %d: %v", row.a, row.b, got)
		}
	}
}

func TestFilter(t *testing.T) {
	f, err := newFilter([]string{"*.bak", "/cache/**", "wp-content/cache", "**/node_modules/x", "[a-b]c"}, []string{"keep*"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"": false, "x.bak": true, "d/x.bak": true, "d/keep.bak": false, "cache/a": true, "d/cache/a": false, "cache/a/b": true,
		"wp-content/cache": true, "wp-content/cache/x": true, "wp-content/cached": false,
		"a/b/node_modules/x": true, "node_modules/y": false, "ac": true, "cc": false,
	} {
		if got := f.left(path); got != want {
			t.Errorf("%q is left out: %v, want %v", path, got, want)
		}
	}
	var usage *UsageError
	if _, err := newFilter([]string{"[a"}, nil); !errors.As(err, &usage) {
		t.Errorf("a broken pattern: %v", err)
	}
}

func TestQueueTakesTurns(t *testing.T) {
	q := newQueue(t.Context())
	a, b := &dir{}, &dir{}
	for _, d := range []*dir{a, a, a, b} {
		if err := q.push(t.Context(), &job{d: d}); err != nil {
			t.Fatal(err)
		}
	}
	q.close()
	var got []*dir
	for j := q.pop(t.Context()); j != nil; j = q.pop(t.Context()) {
		got = append(got, j.d)
	}
	if !slices.Equal(got, []*dir{a, b, a, a}) {
		t.Errorf("order %v", got)
	}
}

func TestQueueIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	q := newQueue(ctx)
	for range queueMax {
		if err := q.push(ctx, &job{d: &dir{}}); err != nil {
			t.Fatal(err)
		}
	}
	failed := make(chan error)
	go func() { failed <- q.push(ctx, &job{d: &dir{}}) }()
	select {
	case err := <-failed:
		t.Fatalf("a full queue took a job (%v)", err)
	default:
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("push after the end: %v", err)
	}
	if j := q.pop(ctx); j != nil {
		t.Error("a job after the end")
	}
}
