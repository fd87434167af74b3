package fuse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAppends: lines from several open files on two nodes, none lost, none
// torn, none twice.
func TestAppends(t *testing.T) {
	s := newSite(t)
	nodes := []*mount{s.node(t, func(o *options) { o.vfs.AppendBytesMax = 2000 }), s.node(t)}
	const writers, lines = 6, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			f, err := os.OpenFile(nodes[w%2].path("log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range lines {
				if _, err := fmt.Fprintf(f, "writer %d line %d %s\n", w, i, strings.Repeat("x", i)); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range nodes {
		got, err := os.ReadFile(m.path("log"))
		must(t, err)
		next := map[string]int{}
		for line := range strings.Lines(string(got)) {
			var w, i int
			var rest string
			if _, err := fmt.Sscanf(line, "writer %d line %d %s\n", &w, &i, &rest); err != nil && i > 0 || len(rest) != i {
				t.Fatalf("torn line %q", line)
			}
			if key := fmt.Sprint(w); next[key] != i {
				t.Fatalf("writer %d: line %d after line %d", w, i, next[key]-1)
			}
			next[fmt.Sprint(w)]++
		}
		for w := range writers {
			if n := next[fmt.Sprint(w)]; n != lines {
				t.Errorf("writer %d: %d lines, want %d", w, n, lines)
			}
		}
	}
}

// TestOTruncIsNeverSeenApart: one node replaces content with O_TRUNC all the
// time, as file_put_contents does; the other never sees an empty or mixed file.
// It reads with O_DIRECT, and the size is always the same: the kernel makes
// several READs of one read(2) to fill its page cache, and when one is short,
// and the file may be replaced between them, as on a local disk.
func TestOTruncIsNeverSeenApart(t *testing.T) {
	for _, size := range []int{8_000, 60_000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			s := newSite(t)
			m, other := s.node(t), s.node(t)
			content := func(i int) []byte { return bytes.Repeat([]byte{'a' + byte(i%26)}, size) }
			must(t, os.WriteFile(m.path("f"), content(0), 0o644))
			var done atomic.Bool
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				defer done.Store(true)
				for i := 0; i < 300 && !t.Failed(); i++ {
					if err := os.WriteFile(m.path("f"), content(i), 0o644); err != nil {
						t.Error(err)
					}
				}
			})
			p := make([]byte, 1<<17)
			for n := 0; !done.Load() || n == 0; n++ {
				fd, err := unix.Open(other.path("f"), unix.O_RDONLY|unix.O_DIRECT, 0)
				must(t, err)
				got, err := unix.Pread(fd, p, 0)
				must(t, errors.Join(err, unix.Close(fd)))
				if same := bytes.Count(p[:got], p[:min(1, got)]); got != size || same != size {
					t.Errorf("read %d: %d bytes, %d of them as the first", n, got, same)
					return
				}
				if st := stat(t, other.path("f")); st.Size != int64(size) {
					t.Errorf("the size is %d", st.Size)
					return
				}
			}
		})
	}
}

// TestFtruncateIsContent: other nodes see it with what is written next.
func TestFtruncateIsContent(t *testing.T) {
	s := newSite(t)
	m, other := s.node(t), s.node(t)
	must(t, os.WriteFile(m.path("f"), []byte("content"), 0o644))
	f, err := os.OpenFile(m.path("f"), os.O_RDWR, 0)
	must(t, err)
	must(t, f.Truncate(3))
	if here, there := stat(t, m.path("f")).Size, stat(t, other.path("f")).Size; here != 3 || there != 7 {
		t.Errorf("size %d here and %d there, want 3 and 7", here, there)
	}
	must(t, f.Close())
	if there := stat(t, other.path("f")).Size; there != 3 {
		t.Errorf("size %d there after the close, want 3", there)
	}
	must(t, os.Truncate(m.path("f"), 1))
	if there := stat(t, other.path("f")).Size; there != 1 {
		t.Errorf("size %d there after truncate by name, want 1", there)
	}
}

// TestRenameStorm: both nodes move, make and remove the same names in the same
// directories; no call fails with what it may not fail with, none hangs, and in
// the end both see the same.
func TestRenameStorm(t *testing.T) {
	s := newSite(t)
	nodes := []*mount{s.node(t), s.node(t)}
	dirs := []string{"d1", "d2", "d2/d3"}
	for _, d := range dirs {
		must(t, os.Mkdir(nodes[0].path(d), 0o755))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() { storm(t, nodes[w%2], dirs, rand.New(rand.NewPCG(uint64(w), 5))) })
	}
	wg.Wait()
	for _, d := range dirs {
		var lists [2]string
		for i, m := range nodes {
			entries, err := os.ReadDir(m.path(d))
			must(t, err)
			for _, e := range entries {
				lists[i] += e.Name() + " "
			}
		}
		if lists[0] != lists[1] {
			t.Errorf("%s: one node lists %s, the other %s", d, lists[0], lists[1])
		}
	}
}

// storm makes random calls on names that others change at the same time.
func storm(t *testing.T, m *mount, dirs []string, rng *rand.Rand) {
	name := func() string { return m.path(fmt.Sprintf("%s/n%d", dirs[rng.IntN(len(dirs))], rng.IntN(5))) }
	for range 400 {
		var err error
		switch rng.IntN(6) {
		case 0, 1:
			err = os.WriteFile(name(), []byte("content"), 0o644)
		case 2, 3:
			err = unix.Rename(name(), name())
		case 4:
			err = unix.Link(name(), name())
		case 5:
			err = unix.Unlink(name())
		}
		for _, ok := range []error{unix.ENOENT, unix.EEXIST} {
			if errors.Is(err, ok) {
				err = nil
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestNextCallSeesIt: what a call on one node did, the next call on the other
// sees, with names and attributes looked at before.
func TestNextCallSeesIt(t *testing.T) {
	s := newSite(t)
	a, b := s.node(t), s.node(t)
	for i := range 50 {
		if i%2 == 1 {
			a, b = b, a
		}
		name := fmt.Sprint("f", i)
		missing := func(p string) {
			t.Helper()
			if err := unix.Access(p, unix.F_OK); err != unix.ENOENT {
				t.Fatalf("%s: %v, want %v", p, err, unix.ENOENT)
			}
		}
		missing(b.path(name))
		must(t, os.WriteFile(a.path(name), []byte("abc"), 0o644))
		if st := stat(t, b.path(name)); st.Size != 3 || st.Mode&0o777 != 0o644 {
			t.Fatalf("size %d mode %o", st.Size, st.Mode)
		}
		must(t, os.Chmod(a.path(name), 0o600))
		if st := stat(t, b.path(name)); st.Mode&0o777 != 0o600 {
			t.Fatalf("mode %o", st.Mode)
		}
		f, err := os.Open(b.path(name))
		must(t, err)
		read(t, f, "abc")
		must(t, os.WriteFile(a.path(name), []byte("xyz"), 0o644)) // same size
		read(t, f, "xyz")
		must(t, f.Close())
		must(t, os.Rename(a.path(name), a.path(name+"x")))
		missing(b.path(name))
		must(t, os.Remove(b.path(name+"x")))
		missing(a.path(name + "x"))
	}
}

// read reads an open file from the start.
func read(t testing.TB, f *os.File, want string) {
	t.Helper()
	p := make([]byte, 100)
	n, err := f.ReadAt(p, 0)
	if err != io.EOF || string(p[:n]) != want {
		t.Fatalf("read %q, %v; want %q", p[:n], err, want)
	}
}

// TestExclusiveCreate: of many O_EXCL creates of one name, one wins.
func TestExclusiveCreate(t *testing.T) {
	s := newSite(t)
	nodes := []*mount{s.node(t), s.node(t)}
	for i := range 50 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				f, err := os.OpenFile(nodes[w%2].path(fmt.Sprint(i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				switch {
				case err == nil:
					won.Add(1)
					_ = f.Close() // nothing was written
				case !errors.Is(err, os.ErrExist):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d creates of name %d won", won.Load(), i)
		}
	}
}
