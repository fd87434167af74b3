package fuse_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/meta/metatest"
	"github.com/wpfs/wpfs/fs/vfs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

// site is what the nodes of one test have in common.
type site struct {
	meta   *metatest.Local
	ring   *ring
	chunks *vfstest.Chunks
}

func newSite(t testing.TB) *site {
	t.Helper()
	l, err := metatest.NewLocal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range l.State().Check() {
			t.Errorf("metadata after the test: %v", p)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &site{meta: l, ring: newRing(l), chunks: &vfstest.Chunks{}}
}

// mount is one node: a mount of a site.
type mount struct {
	dir    string
	vfs    *vfs.FS
	server *fuse.Server
	seat   *seat
	stop   func() error // unmounts and returns what Run did
}

func (m *mount) path(name string) string { return filepath.Join(m.dir, name) }

// options may be changed by a test before a node is made.
type options struct {
	vfs  vfs.Options
	fuse fuse.Options
	meta fs.Meta
}

// node mounts another node of the site. The mount is gone when the test ends,
// whatever happens.
func (s *site) node(t testing.TB, change ...func(*options)) *mount {
	t.Helper()
	needFuse(t)
	seat := s.ring.sit()
	o := options{meta: seat}
	o.vfs.StagingDir = t.TempDir()
	o.vfs.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.fuse.Logger = o.vfs.Logger
	o.fuse.Asker = askerHelper
	for _, c := range change {
		c(&o)
	}
	v, err := vfs.New(o.meta, s.chunks, o.vfs)
	if err != nil {
		t.Fatal(err)
	}
	dir := mountDir(t)
	server, err := fuse.Mount(dir, v, o.fuse)
	if err != nil {
		t.Fatal(err)
	}
	seat.serve(server)
	m := &mount{dir: dir, vfs: v, server: server, seat: seat}
	m.stop = run(t, m)
	return m
}

// run starts a node and returns what stops it, once.
func run(t testing.TB, m *mount) func() error {
	ctx, cancel := context.WithCancel(context.Background())
	served, published := make(chan error, 1), make(chan error, 1)
	go func() { served <- m.server.Run(ctx) }()
	go func() { published <- m.vfs.Run(ctx) }()
	quietPoll(t, m.dir)
	stopped := false
	var result error
	stop := func() error {
		if stopped {
			return result
		}
		stopped = true
		cancel()
		result = errors.Join(<-served, <-published)
		m.seat.serve(nil)
		drain, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		result = errors.Join(result, m.vfs.Drain(drain), m.vfs.Close())
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		_ = unix.Unmount(m.dir, unix.MNT_DETACH) // normally gone already
	})
	return stop
}

// quietPoll makes the kernel ask for poll support once, from a thread of its
// own: otherwise the Go runtime's own poller would ask, and wait for an answer
// from this process on the thread that has to give it.
func quietPoll(t testing.TB, dir string) {
	t.Helper()
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatalf("first open on the mount: %v", err)
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}

func needFuse(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
}

// testWriter sends log lines to the test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
