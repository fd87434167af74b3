package fuse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRequests pins which requests common calls make: what the mount's options
// and the flags of opened files are for.
func TestRequests(t *testing.T) {
	m := newSite(t).node(t, func(o *options) { o.fuse.Asker = nil }) // its requests would be counted, too
	path := m.path("f")
	must(t, os.WriteFile(path, []byte("content"), 0o644))
	tests := []struct {
		name string
		do   func()
		want map[string]uint64 // of the kinds that matter
	}{
		{"read", func() { _, err := os.ReadFile(path); must(t, err) },
			map[string]uint64{"open": 1, "flush": 0}},
		{"O_TRUNC comes with OPEN", func() { must(t, os.WriteFile(path, []byte("x"), 0)) },
			map[string]uint64{"open": 1, "setattr": 0, "write": 1, "flush": 1}},
		{"no readdirplus", func() { _, err := os.ReadDir(m.dir); must(t, err) },
			map[string]uint64{"opendir": 1, "lookup": 0}},
		{"a listing is kept, and opendir is not asked for again", func() { _, err := os.ReadDir(m.dir); must(t, err) },
			map[string]uint64{"opendir": 0, "readdir": 0, "lookup": 0}},
		{"write 3 MiB", func() { must(t, os.WriteFile(path, make([]byte, 3<<20), 0)) },
			map[string]uint64{"write": 3}},
		{"O_APPEND has no page cache", func() { readTwice(t, path, unix.O_APPEND) },
			map[string]uint64{"read": 2}},
		{"O_SYNC has no page cache", func() { readTwice(t, path, unix.O_SYNC) },
			map[string]uint64{"read": 2}},
		{"other files have one", func() { readTwice(t, path, 0) },
			map[string]uint64{"read": 1}},
		{"stat", func() { stat(t, path); stat(t, path) }, nil},
		{"attributes are kept", func() { stat(t, path) },
			map[string]uint64{"lookup": 0, "getattr": 0}},
		{"pages are kept from open to open", func() { readTwice(t, path, 0) },
			map[string]uint64{"open": 1, "read": 0, "getattr": 0}},
		{"absent", func() { absent(t, m.path("none")); absent(t, m.path("none")) },
			map[string]uint64{"lookup": 2}},
		{"absence is kept", func() { absent(t, m.path("none")) },
			map[string]uint64{"lookup": 0}},
		{"symlink", func() { must(t, os.Symlink("target", m.path("l"))); readlink(t, m.path("l")); readlink(t, m.path("l")) }, nil},
		{"a link's target is kept", func() { readlink(t, m.path("l")) },
			map[string]uint64{"readlink": 0, "lookup": 0}},
	}
	for _, tt := range tests {
		before := m.server.Stats().Requests
		tt.do()
		after := m.server.Stats().Requests
		for kind, want := range tt.want {
			if got := after[kind] - before[kind]; got != want {
				t.Errorf("%s: %d %s requests, want %d", tt.name, got, kind, want)
			}
		}
	}
	if n := m.server.Stats().Kernel.Inodes; n < 1 || n > 3 {
		t.Errorf("the kernel is thought to know %d inodes", n)
	}
}

func absent(t testing.TB, path string) {
	t.Helper()
	if err := unix.Lstat(path, &unix.Stat_t{}); !errors.Is(err, unix.ENOENT) {
		t.Fatalf("lstat %s: %v, want ENOENT", path, err)
	}
}

func readlink(t testing.TB, path string) {
	t.Helper()
	if to, err := os.Readlink(path); err != nil || to != "target" {
		t.Fatalf("readlink %s: %q, %v", path, to, err)
	}
}

// readTwice reads the first bytes of an open file twice.
func readTwice(t testing.TB, path string, flags int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|flags, 0)
	must(t, err)
	for range 2 {
		_, err = unix.Pread(fd, make([]byte, 10), 0)
		must(t, err)
	}
	must(t, unix.Close(fd))
}

// TestTimes: utimensat sets what it is given, to the nanosecond, and "now" is
// this node's clock.
func TestTimes(t *testing.T) {
	now := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	m := newSite(t).node(t, func(o *options) { o.vfs.Now = func() time.Time { return now } })
	path := m.path("f")
	must(t, os.WriteFile(path, nil, 0o644))
	set := []unix.Timespec{{Sec: -5, Nsec: 999_999_999}, {Sec: 1 << 33, Nsec: 1}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, set, 0))
	if st := stat(t, path); st.Atim != set[0] || st.Mtim != set[1] {
		t.Errorf("times %v and %v, want %v", st.Atim, st.Mtim, set)
	}
	set[0].Nsec, set[1].Nsec = unix.UTIME_NOW, unix.UTIME_NOW
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, set, 0))
	want, err := unix.TimeToTimespec(now)
	must(t, err)
	if st := stat(t, path); st.Atim != want || st.Mtim != want {
		t.Errorf("times %v and %v, want %v", st.Atim, st.Mtim, want)
	}
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

// TestSparse: holes cost nothing and are zero, far out.
func TestSparse(t *testing.T) {
	m := newSite(t).node(t)
	f, err := os.Create(m.path("f"))
	must(t, err)
	defer f.Close()
	const far = 1 << 40
	for _, off := range []int64{0, 1 << 30, far} {
		_, err := f.WriteAt([]byte("data"), off)
		must(t, err)
	}
	must(t, f.Sync())
	if st := stat(t, m.path("f")); st.Size != far+4 || st.Blocks > 8 {
		t.Errorf("size %d in %d blocks", st.Size, st.Blocks)
	}
	p := make([]byte, 10)
	_, err = f.ReadAt(p, 1<<30-3)
	must(t, err)
	if string(p) != "\x00\x00\x00data\x00\x00\x00" {
		t.Errorf("around the data: %q", p)
	}
	for _, tt := range []struct{ off, data, hole int64 }{{0, 0, 4}, {4, 1 << 30, 4}, {far, far, far + 4}} {
		data, err := f.Seek(tt.off, unix.SEEK_DATA)
		must(t, err)
		hole, err := f.Seek(tt.off, unix.SEEK_HOLE)
		must(t, err)
		if data != tt.data || hole != tt.hole {
			t.Errorf("from %d: data %d, hole %d; want %d, %d", tt.off, data, hole, tt.data, tt.hole)
		}
	}
}

// TestLargeFile: more than memory and staging buffers, through the kernel.
func TestLargeFile(t *testing.T) {
	s := newSite(t)
	m := s.node(t, func(o *options) { o.vfs.MemoryBytesMax = 1 << 20 })
	block := func(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 4), 7, 9}, 1<<18) }
	const blocks = 64
	f, err := os.Create(m.path("f"))
	must(t, err)
	for i := range blocks {
		_, err := f.Write(block(i))
		must(t, err)
	}
	must(t, f.Close())
	f, err = os.Open(s.node(t).path("f"))
	must(t, err)
	defer f.Close()
	p := make([]byte, 1<<20)
	for i := range blocks {
		if _, err := io.ReadFull(f, p); err != nil || !bytes.Equal(p, block(i)) {
			t.Fatalf("block %d differs, %v", i, err)
		}
	}
}

// TestStagingFull: when neither memory nor the local disk has room for what is
// written, the writer is told at once, and what fitted is not lost.
func TestStagingFull(t *testing.T) {
	needFuse(t)
	small := mountDir(t)
	must(t, unix.Mount("none", small, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(small, unix.MNT_DETACH)) })
	s := newSite(t)
	m := s.node(t, func(o *options) { o.vfs.StagingDir, o.vfs.MemoryBytesMax = small, 1 })
	f, err := os.Create(m.path("f"))
	must(t, err)
	block, written := make([]byte, 100_000), 0
	for err == nil && written < 5<<20 {
		for i := range block {
			block[i] = byte(written)
		}
		if _, err = f.Write(block); err == nil {
			written += len(block)
		}
	}
	if !errors.Is(err, unix.ENOSPC) || written < 500_000 {
		t.Fatalf("after %d bytes: %v, want %v", written, err, unix.ENOSPC)
	}
	must(t, f.Sync()) // makes room
	_, err = f.WriteAt([]byte("again"), 0)
	must(t, err)
	must(t, f.Close())
	got, err := os.ReadFile(s.node(t).path("f"))
	must(t, err)
	if len(got) < written || string(got[:5]) != "again" || got[written-1] != byte(written-len(block)) {
		t.Errorf("%d bytes are there, want at least %d with the right content", len(got), written)
	}
}

// TestManyHandles: thousands of files open at once, each with its own content.
func TestManyHandles(t *testing.T) {
	m := newSite(t).node(t)
	const n = 2000
	var files []*os.File
	for i := range n {
		f, err := os.Create(m.path(fmt.Sprint(i)))
		must(t, err)
		files = append(files, f)
		_, err = fmt.Fprint(f, i)
		must(t, err)
	}
	_, err := os.ReadDir(m.dir)
	must(t, err)
	if h := m.vfs.Stats().Handles; h < n {
		t.Errorf("%d handles, want %d", h, n)
	}
	for i, f := range files {
		must(t, f.Close())
		if i%100 == 0 {
			got, err := os.ReadFile(f.Name())
			must(t, err)
			if string(got) != fmt.Sprint(i) {
				t.Errorf("file %d has %q", i, got)
			}
		}
	}
	eventually(t, "all are released", func() bool { return m.vfs.Stats().Handles == 0 })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestCopyFileRange: shared where possible, and copied by the kernel where not;
// the result is the same.
func TestCopyFileRange(t *testing.T) {
	s := newSite(t)
	m := s.node(t)
	for _, size := range []int{10, 300_000, 9 << 20} {
		content := bytes.Repeat([]byte("0123456789"), size/10)
		must(t, os.WriteFile(m.path("src"), content, 0o644))
		src, err := os.Open(m.path("src"))
		must(t, err)
		dst, err := os.Create(m.path("dst"))
		must(t, err)
		for at := 0; at < len(content); {
			n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, len(content)-at, 0)
			must(t, err)
			if n == 0 {
				t.Fatalf("%d of %d bytes copied", at, len(content))
			}
			at += n
		}
		must(t, errors.Join(src.Close(), dst.Close()))
		got, err := os.ReadFile(s.node(t).path("dst"))
		must(t, err)
		if !bytes.Equal(got, content) {
			t.Errorf("copy of %d bytes differs", len(content))
		}
	}
	if m.vfs.Stats().CopiedBytes < 9<<20 {
		t.Errorf("only %d bytes were shared", m.vfs.Stats().CopiedBytes)
	}
}

// TestOpenUnlinked: a file without a name is readable and writable on every
// node that has it open.
func TestOpenUnlinked(t *testing.T) {
	s := newSite(t)
	m, other := s.node(t), s.node(t)
	must(t, os.WriteFile(m.path("f"), []byte("content"), 0o644))
	here, err := os.OpenFile(m.path("f"), os.O_RDWR, 0)
	must(t, err)
	defer here.Close()
	there, err := os.OpenFile(other.path("f"), os.O_RDWR, 0)
	must(t, err)
	defer there.Close()
	ino := stat(t, m.path("f")).Ino
	must(t, os.Remove(m.path("f")))
	if _, err := os.Stat(other.path("f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat on the other node: %v", err)
	}
	_, err = there.WriteAt([]byte("CONT"), 0)
	must(t, err)
	must(t, there.Sync())
	p := make([]byte, 20)
	if n, err := here.ReadAt(p, 0); string(p[:n]) != "CONTent" || err != io.EOF {
		t.Errorf("read %q, %v", p[:n], err)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(int(here.Fd()), &st))
	if st.Nlink != 0 || st.Ino != ino {
		t.Errorf("nlink %d inode %d, want 0 and %d", st.Nlink, st.Ino, ino)
	}
	// Opening it again by the descriptor works as on a local disk.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", here.Fd()))
	must(t, err)
	must(t, again.Close())
}

// TestTreeCopy copies a tree in by many small files and compares it on another
// node.
func TestTreeCopy(t *testing.T) {
	s := newSite(t)
	m, other := s.node(t), s.node(t)
	want := map[string]string{}
	for i := range 300 {
		name := fmt.Sprintf("dir%d/sub%d/file%d.php", i%7, i%3, i)
		want[name] = strings.Repeat(fmt.Sprint(i, "\n"), i*i%5000)
		must(t, os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
		must(t, os.WriteFile(m.path(name), []byte(want[name]), 0o644))
	}
	got := map[string]string{}
	must(t, filepath.WalkDir(other.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(other.dir, path)
		got[name] = string(content)
		return err
	}))
	if !maps.Equal(got, want) {
		t.Errorf("%d files, want %d; or their content differs", len(got), len(want))
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				t.Fatalf("first difference: %s", name)
			}
		}
	}
}
