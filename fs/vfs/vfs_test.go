package vfs_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta/metatest"
	"github.com/wpfs/wpfs/fs/vfs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

const (
	rdwr  = unix.O_RDWR
	trunc = unix.O_RDWR | unix.O_TRUNC
)

// bench is one or more nodes over one metadata.
type bench struct {
	testing.TB
	ctx    context.Context
	local  *metatest.Local
	meta   *vfstest.Meta
	chunks *vfstest.Chunks
	*node  // the first node
}

// node is one FS.
type node struct {
	t   testing.TB
	ctx context.Context
	*vfs.FS
}

func newBench(t testing.TB, change ...func(*vfs.Options)) *bench {
	t.Helper()
	l, err := metatest.NewLocal()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, ctx: t.Context(), local: l, meta: &vfstest.Meta{Meta: l}, chunks: &vfstest.Chunks{}}
	t.Cleanup(func() {
		for _, p := range l.State().Check() {
			t.Errorf("metadata after the test: %v", p)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b.node = b.newNode(change...)
	return b
}

// newNode makes another node. Its background publisher does not run.
func (b *bench) newNode(change ...func(*vfs.Options)) *node {
	b.Helper()
	o := vfs.Options{StagingDir: b.TempDir(), Logger: slog.New(slog.NewTextHandler(logWriter{b}, nil))}
	for _, c := range change {
		c(&o)
	}
	f, err := vfs.New(b.meta, b.chunks, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		f.ReleaseAll()
		s := f.Stats()
		if s.DirtyInodes == 0 && s.MemoryBytes != 0 {
			b.Errorf("%d bytes of memory are not given back", s.MemoryBytes)
		}
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	})
	return &node{b, b.ctx, f}
}

// background runs the node's publisher until the test ends.
func (n *node) background() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
}

// create makes a file in the root directory and opens it.
func (n *node) create(name string) (fs.Ino, vfs.Handle) {
	n.t.Helper()
	a, h, err := n.Create(n.ctx, fs.Create{Parent: fs.RootIno, Name: name, Mode: 0o644}, vfs.OpenFlags{Flags: rdwr})
	if err != nil {
		n.t.Fatal(err)
	}
	return a.Ino, h
}

func (n *node) open(ino fs.Ino, flags uint32) vfs.Handle {
	n.t.Helper()
	h, err := n.Open(n.ctx, ino, vfs.OpenFlags{Flags: flags})
	if err != nil {
		n.t.Fatal(err)
	}
	return h
}

func (n *node) write(h vfs.Handle, s string, off uint64) {
	n.t.Helper()
	if err := n.Write(n.ctx, h, []byte(s), off, vfs.WriteFlags{}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) appendTo(h vfs.Handle, s string) {
	n.t.Helper()
	if err := n.Write(n.ctx, h, []byte(s), 1<<40, vfs.WriteFlags{Append: true}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) flush(h vfs.Handle) {
	n.t.Helper()
	if err := n.Flush(n.ctx, h); err != nil {
		n.t.Fatal(err)
	}
}

// close is close(2) of the last descriptor.
func (n *node) close(h vfs.Handle) {
	n.t.Helper()
	n.flush(h)
	n.Release(h)
}

func (n *node) truncate(ino fs.Ino, h vfs.Handle, size uint64) {
	n.t.Helper()
	q := vfs.SetAttr{SetAttr: fs.SetAttr{Ino: ino, Mask: fs.SetSize, Size: size}, Handle: h}
	if a, err := n.FS.SetAttr(n.ctx, q); err != nil || a.Size != size {
		n.t.Fatalf("ftruncate to %d: size %d, %v", size, a.Size, err)
	}
}

func (n *node) attr(ino fs.Ino) fs.Attr {
	n.t.Helper()
	a, _, err := n.Attr(n.ctx, ino)
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

// content reads the whole file, and checks its size.
func (n *node) content(ino fs.Ino) string {
	n.t.Helper()
	h := n.open(ino, unix.O_RDONLY)
	defer n.Release(h)
	p := make([]byte, 1<<20)
	got, err := n.Read(n.ctx, h, p, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	if size := n.attr(ino).Size; size != uint64(got) && got < len(p) {
		n.t.Fatalf("read %d bytes of a file of %d", got, size)
	}
	return string(p[:got])
}

func (n *node) want(ino fs.Ino, content string) {
	n.t.Helper()
	if got := n.content(ino); got != content {
		n.t.Errorf("content is %q, want %q", short(got), short(content))
	}
}

func short(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

func (n *node) setAttr(q fs.SetAttr, h vfs.Handle) fs.Attr {
	n.t.Helper()
	a, err := n.FS.SetAttr(n.ctx, vfs.SetAttr{SetAttr: q, Handle: h})
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
