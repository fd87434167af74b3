package bulk

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/retry"
	"github.com/wpfs/wpfs/fs/object/s3"
	"github.com/wpfs/wpfs/integration/tree"
)

// memory is a bucket that takes every key, and that can be made to fail.
type memory struct {
	mu      sync.Mutex
	objects map[string]stored
	// fault, if set, is asked before each call, under the lock.
	fault func(op object.Op, key string) error
	puts  int
}

type stored struct {
	body     string
	head     object.PlainHead
	modified time.Time
	etag     string // "": the MD5
}

func (m *memory) enter(op object.Op, key string) error {
	m.mu.Lock()
	if m.fault != nil {
		if err := m.fault(op, key); err != nil {
			m.mu.Unlock()
			return err
		}
	}
	return nil
}

func (m *memory) info(key string, o stored) object.PlainInfo {
	if o.etag == "" {
		o.etag = fmt.Sprintf("%x", md5.Sum([]byte(o.body)))
	}
	return object.PlainInfo{Info: object.Info{Key: key, Size: int64(len(o.body)), Modified: o.modified}, ETag: o.etag, Head: o.head}
}

func (m *memory) List(context.Context) iter.Seq2[object.PlainInfo, error] {
	return func(yield func(object.PlainInfo, error) bool) {
		if err := m.enter(object.OpList, ""); err != nil {
			yield(object.PlainInfo{}, err)
			return
		}
		all := maps.Clone(m.objects)
		m.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(all)) {
			info := m.info(key, all[key])
			info.Head = object.PlainHead{}
			info.Modified = info.Modified.Add(345 * time.Millisecond) // lists of some servers are finer
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (m *memory) Stat(_ context.Context, key string) (object.PlainInfo, error) {
	if err := m.enter(object.OpStat, key); err != nil {
		return object.PlainInfo{}, err
	}
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return object.PlainInfo{}, &object.Error{Op: object.OpStat, Key: key, Kind: object.NotExist}
	}
	return m.info(key, o), nil
}

func (m *memory) Open(ctx context.Context, key string) (object.PlainInfo, io.ReadCloser, error) {
	if err := m.enter(object.OpGet, key); err != nil {
		return object.PlainInfo{}, nil, err
	}
	body := m.objects[key].body
	m.mu.Unlock()
	info, err := m.Stat(ctx, key)
	return info, io.NopCloser(strings.NewReader(body)), err
}

func (m *memory) Put(_ context.Context, key string, body io.ReaderAt, size int64, head object.PlainHead) (string, error) {
	b := make([]byte, size)
	if _, err := body.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if err := m.enter(object.OpPut, key); err != nil {
		return "", err
	}
	defer m.mu.Unlock()
	m.puts++
	o := stored{body: string(b), head: head, modified: time.Now().Truncate(time.Second)}
	m.objects[key] = o
	return m.info(key, o).ETag, nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	if err := m.enter(object.OpDelete, key); err != nil {
		return err
	}
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// filled is a bucket with objects as a program without attributes leaves them.
func filled(objects map[string]string) *memory {
	m := &memory{objects: map[string]stored{}}
	for k, v := range objects {
		m.objects[k] = stored{body: v, modified: time.Unix(1.5e9, 0)}
	}
	return m
}

func from(m object.Plain, dir string) Options {
	return Options{From: Place{Objs: m, Name: "s3://b"}, To: Place{Dir: dir}}
}
func to(dir string, m object.Plain) Options {
	return Options{From: Place{Dir: dir}, To: Place{Objs: m, Name: "s3://b"}}
}

// TestBucketRoundTrip: a tree goes to a real server and comes back the same.
func TestBucketRoundTrip(t *testing.T) {
	g := objecttest.StartGateway(t, "127.0.0.1")
	g.MakeBucket(t, "plain")
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p, err := s3.NewPlain(t.Context(), s3.Options{Bucket: "plain", Endpoint: g.Endpoint, Region: g.Region, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PageSize: 7}, fmt.Sprint("some where/", seed))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			objs := retry.NewPlain(p, retry.Options{})
			src, dst := makeTree(t, seed, true), t.TempDir()
			do(t, to(src, objs))
			nothing(t, do(t, to(src, objs)))
			o := to(src, objs)
			o.Checksum = true
			nothing(t, do(t, o))

			do(t, from(objs, dst))
			// The root is no object: its attributes stay at home.
			want, got := scan(t, src), scan(t, dst)
			if d := tree.Diff(want[1:], got[1:], tree.Copies, 20); len(d) > 0 {
				t.Errorf("the trees differ:\n%s", strings.Join(d, "\n"))
			}
			nothing(t, do(t, from(objs, dst)))
			o = from(objs, dst)
			o.Checksum = true
			nothing(t, do(t, o))

			other := makeTree(t, seed+100, true)
			o = to(other, objs)
			o.Delete = true
			do(t, o)
			o = from(objs, dst)
			o.Delete = true
			do(t, o)
			if d := tree.Diff(scan(t, other)[1:], scan(t, dst)[1:], tree.Copies, 20); len(d) > 0 {
				t.Errorf("after the second tree:\n%s", strings.Join(d, "\n"))
			}
		})
	}
}

// TestObjectsWithoutAttributes: as aws s3 sync and S3 plugins leave them.
func TestObjectsWithoutAttributes(t *testing.T) {
	m, dst := filled(map[string]string{"2026/11/a.jpg": "a", "2026/11/": "", "b.txt": "b", "empty/": ""}), t.TempDir()
	rep := do(t, from(m, dst))
	if rep.Copied != 2 || rep.Directories != 3 {
		t.Errorf("%+v", *rep)
	}
	st, err := os.Stat(dst + "/2026/11/a.jpg")
	if err != nil || !st.ModTime().Equal(time.Unix(1.5e9, 0)) {
		t.Errorf("%v, %v", st, err)
	}
	stats := 0
	m.fault = func(op object.Op, _ string) error {
		if op != object.OpList {
			stats++
		}
		return nil
	}
	again := from(m, dst)
	again.Verify = VerifyNone
	nothing(t, do(t, again))
	if stats > 2 { // of the two place holders; files are known by the list
		t.Errorf("an idle run asked for %d objects", stats)
	}
	// Exported again, what is there by content is left alone.
	write1(t, dst+"/new", "new")
	o := to(dst, m)
	if rep := do(t, o); rep.Copied != 1 || rep.Same != 2 {
		t.Errorf("%+v", *rep)
	}
	if h := m.objects["b.txt"].head; h.Meta != nil {
		t.Errorf("b.txt was put again: %+v", h)
	}
	if h := m.objects["new"].head; !strings.Contains(h.Meta[metaS3cmd], fmt.Sprintf("md5:%x", md5.Sum([]byte("new")))) || h.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("new has %+v", h)
	}
}

func TestOddKeysAreListed(t *testing.T) {
	m, dst := filled(map[string]string{"a": "file", "a/b": "below a file", "c//d": "", "../e": "", "f": "f"}), t.TempDir()
	rep, err := Run(t.Context(), from(m, dst), nil)
	if err != nil || rep.Copied != 2 {
		t.Fatalf("%v, %+v", err, rep)
	}
	var listed []string
	for _, f := range rep.Failed {
		listed = append(listed, f.Path)
	}
	if want := []string{"../e", "a/b", "c//d"}; !slices.Equal(listed, want) || rep.FailedCount != 3 {
		t.Errorf("listed %q, want %q", listed, want)
	}
	if _, err := os.Lstat(filepath.Dir(dst) + "/e"); err == nil {
		t.Error("a key led out of the destination")
	}
}

// TestLostBucket: the run ends, what is there is whole, and the next goes on.
func TestLostBucket(t *testing.T) {
	objects := map[string]string{}
	for i := range 50 {
		objects[fmt.Sprintf("d%d/%02d", i%3, i)] = strings.Repeat("x", 1000+i)
	}
	for _, kind := range []object.Kind{object.Unreachable, object.Busy, object.NoBucket} {
		t.Run(kind.Error(), func(t *testing.T) {
			m, dst := filled(objects), t.TempDir()
			gone := func(op object.Op, key string) error {
				if op == object.OpGet && key > "d1/25" || op == object.OpPut {
					return &object.Error{Op: op, Key: key, Kind: kind}
				}
				return nil
			}
			m.fault = gone
			o := from(m, dst)
			o.Workers = 2
			rep, err := Run(t.Context(), o, nil)
			if !errors.Is(err, kind) || rep.Copied == 0 || rep.Copied == 50 {
				t.Fatalf("%v, %+v", err, rep)
			}
			for _, e := range scan(t, dst) {
				if e.Target == "" && e.Size != int64(len(objects[e.Path])) && objects[e.Path] != "" {
					t.Errorf("%s has %d bytes", e.Path, e.Size)
				}
				if strings.Contains(e.Path, TempPrefix) {
					t.Errorf("%s was left behind", e.Path)
				}
			}
			m.fault = nil
			if again := do(t, o); again.Copied+again.Same != 50 || again.Same < rep.Copied {
				t.Errorf("first %+v, then %+v", *rep, *again)
			}
			m.fault = gone
			write1(t, dst+"/new", "x")
			if _, err := Run(t.Context(), to(dst, m), nil); !errors.Is(err, kind) {
				t.Errorf("export: %v", err)
			}
		})
	}
}

// TestSingleObjectsFail: one that is gone, forbidden, or not what s3cmd had
// uploaded stops nothing.
func TestSingleObjectsFail(t *testing.T) {
	m, dst := filled(map[string]string{"good": "g", "gone": "x", "forbidden": "x", "rotten": "x"}), t.TempDir()
	o := m.objects["rotten"]
	o.head.Meta = map[string]string{metaS3cmd: fmt.Sprintf("md5:%x/mode:33188", md5.Sum([]byte("y")))}
	m.objects["rotten"] = o
	m.fault = func(op object.Op, key string) error {
		switch {
		case op == object.OpGet && key == "gone":
			return &object.Error{Op: op, Key: key, Kind: object.NotExist}
		case op == object.OpGet && key == "forbidden":
			return &object.Error{Op: op, Key: key, Kind: object.Credentials}
		}
		return nil
	}
	rep, err := Run(t.Context(), from(m, dst), nil)
	if err != nil || rep.Copied != 1 || rep.FailedCount != 3 || rep.DiffCount != 0 {
		t.Errorf("%v, %+v", err, rep)
	}
	if names, err := os.ReadDir(dst); err != nil || len(names) != 1 {
		t.Errorf("there is %v, %v", names, err)
	}
}

// TestExportIsVerified: the server's ETag if it is an MD5, else by reading back.
func TestExportIsVerified(t *testing.T) {
	for _, etag := range []string{"", "0123-2"} {
		for _, rot := range []bool{false, true} {
			src, m := t.TempDir(), filled(nil)
			write1(t, src+"/f", "content")
			r, err := newRun(Options{From: Place{Dir: src}, To: Place{Objs: m}, Workers: 2, Verify: VerifyContent}, new(Progress))
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			if err := r.copyAll(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			o := m.objects["f"]
			if o.etag = etag; rot {
				o.body = "CONTENT"
			}
			m.objects["f"] = o
			if err := r.verifyAll(t.Context()); err != nil || (r.rep.DiffCount > 0) != rot {
				t.Errorf("ETag %q, rotten %v: %v, %+v", etag, rot, err, r.rep)
			}
		}
	}
}

// TestExportOfNewAttributes: an object's cannot be changed alone, so it is put
// again.
func TestExportOfNewAttributes(t *testing.T) {
	src, m := t.TempDir(), filled(nil)
	write1(t, src+"/d/f", "content")
	do(t, to(src, m))
	if err := errors.Join(os.Chmod(src+"/d/f", 0o600), os.Chmod(src+"/d", 0o700)); err != nil {
		t.Fatal(err)
	}
	if rep := do(t, to(src, m)); rep.Copied != 1 || rep.Updated != 0 {
		t.Errorf("%+v", *rep)
	}
	for key, mode := range map[string]string{"d/f": "mode:33152", "d/": "mode:16832"} {
		if meta := m.objects[key].head.Meta[metaS3cmd]; !strings.Contains(meta, mode) {
			t.Errorf("%s has %q, want %s", key, meta, mode)
		}
	}
	nothing(t, do(t, to(src, m)))
}

// TestExportOfChangingFile: written to before it is read, it is not put; while
// it is put, it is listed and comes with the next run.
func TestExportOfChangingFile(t *testing.T) {
	src, m := t.TempDir(), filled(nil)
	write1(t, src+"/f", "content")
	l, err := openLocal(Options{}, filter{}, src, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	want := &entry{path: "f"}
	if err := l.stat(l.fd, "f", want); err != nil {
		t.Fatal(err)
	}
	c, err := l.open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := os.Chtimes(src+"/f", time.Time{}, time.Unix(5, 5)); err != nil { // as a write does
		t.Fatal(err)
	}
	b := &bucket{objs: m}
	if _, _, err := b.put(t.Context(), nil, want, nil, c); !errors.Is(err, errChanged) || m.puts != 0 {
		t.Errorf("%v, %d puts", err, m.puts)
	}
	m.fault = func(op object.Op, key string) error {
		if op == object.OpPut && key == "f" {
			write1(t, src+"/f", "CONTENT")
		}
		return nil
	}
	rep, err := Run(t.Context(), to(src, m), nil)
	if err != nil || rep.FailedCount != 1 || rep.Failed[0].Path != "f" {
		t.Errorf("%v, %+v", err, rep)
	}
	m.fault = nil
	do(t, to(src, m))
	if m.objects["f"].body != "CONTENT" {
		t.Errorf("the object has %q", m.objects["f"].body)
	}
}

func TestContentTypes(t *testing.T) {
	for name, want := range map[string]string{"a.JPG": "image/jpeg", "a.css": "text/css; charset=utf-8", "noext": "image/png", "x.unknownext": "image/png"} {
		body := []byte("\x89PNG\r\n\x1a\n")
		if got := ContentType(name, bytes.NewReader(body), int64(len(body))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
