package fuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/meta/metatest"
	"github.com/wpfs/wpfs/fs/vfs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

func newVFS(t testing.TB) *vfs.FS {
	t.Helper()
	v, err := vfs.New(newSite(t).meta, &vfstest.Chunks{}, vfs.Options{StagingDir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

// TestMountErrors: each one is told apart, and says what to do.
func TestMountErrors(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	tmpfs := filepath.Join(dir, "tmpfs with a blank")
	must(t, os.Mkdir(tmpfs, 0o755))
	must(t, unix.Mount("none", tmpfs, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(tmpfs, unix.MNT_DETACH)) })
	must(t, os.Symlink(tmpfs, filepath.Join(dir, "link")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	live := newSite(t).node(t)
	tests := []struct {
		dir    string
		reason error
		advice string
	}{
		{dir + "/absent", fuse.ErrAbsent, "mkdir -p"},
		{dir + "/absent/below", fuse.ErrAbsent, "mkdir -p"},
		{dir + "/dangling", fuse.ErrAbsent, "mkdir -p"},
		{dir + "/file", fuse.ErrNotDir, "choose a directory"},
		{dir + "/file/below", fuse.ErrNotDir, "choose a directory"},
		{tmpfs, fuse.ErrBusy, "type tmpfs"},
		{dir + "/link", fuse.ErrBusy, "type tmpfs"},
		{live.dir, fuse.ErrBusy, "another wpfs agent"},
	}
	for _, tt := range tests {
		_, err := fuse.Mount(tt.dir, newVFS(t), fuse.Options{})
		var typed *fuse.MountError
		if !errors.Is(err, tt.reason) || !errors.As(err, &typed) || !strings.Contains(err.Error(), tt.advice) {
			t.Errorf("mount %s: %v; want %v and %q", tt.dir, err, tt.reason, tt.advice)
		}
	}
}

// TestStoppedAgent: a mount whose agent does not answer is busy, not dead, and
// asking does not take for ever.
func TestStoppedAgent(t *testing.T) {
	needFuse(t)
	dir := mountDir(t)
	agent := startAgent(t, dir)
	must(t, agent.Process.Signal(unix.SIGSTOP))
	_, err := fuse.Mount(dir, newVFS(t), fuse.Options{})
	if !errors.Is(err, fuse.ErrBusy) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("mount over a stopped agent: %v", err)
	}
}

// TestStaleMount: what agents that were killed left behind is cleaned up, also
// if a mount was stacked on a mount.
func TestStaleMount(t *testing.T) {
	needFuse(t)
	dir := mountDir(t)
	agent := startAgent(t, dir)
	held, err := os.Create(filepath.Join(dir, "held")) // still open when the mount dies
	must(t, err)
	defer held.Close()
	must(t, agent.Process.Kill())
	_ = agent.Wait() // it was killed
	if _, err := os.Stat(dir); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("stat of a dead mount: %v, want %v", err, unix.ENOTCONN)
	}
	v := newVFS(t)
	s, err := fuse.Mount(dir, v, fuse.Options{})
	must(t, err)
	m := &mount{dir: dir, vfs: v, server: s}
	stopServer := runServer(t, m)
	must(t, os.WriteFile(filepath.Join(dir, "alive"), []byte("x"), 0o644))
	must(t, stopServer())
	notMounted(t, dir)
}

// runServer is run without the end of the vfs.
func runServer(t testing.TB, m *mount) func() error {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- m.server.Run(ctx) }()
	quietPoll(t, m.dir)
	return func() error {
		cancel()
		return <-served
	}
}

// startAgent mounts dir in a process of its own.
func startAgent(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := command(context.Background(), "mount", dir, t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // normally gone already
		_ = cmd.Wait()
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
			continue // until nothing is mounted
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the agent says %q, %v", line, err)
	}
	return cmd
}

// mountHelper serves a mount until it is killed.
func mountHelper(args []string) error {
	l, err := metatest.NewLocal()
	if err != nil {
		return err
	}
	v, err := vfs.New(l, &vfstest.Chunks{}, vfs.Options{StagingDir: args[1]})
	if err != nil {
		return err
	}
	s, err := fuse.Mount(args[0], v, fuse.Options{})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return s.Run(context.Background())
}

func notMounted(t testing.TB, dir string) {
	t.Helper()
	list, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(list), dir+" ") {
		t.Errorf("%s is still mounted", dir)
	}
}

// TestUnmount: Run ends the mount when its context ends, whoever uses it.
func TestUnmount(t *testing.T) {
	tests := []struct {
		name string
		use  func(t *testing.T, m *mount)
	}{
		{"idle", func(*testing.T, *mount) {}},
		{"a user who leaves", func(t *testing.T, m *mount) {
			f, err := os.Create(m.path("f"))
			must(t, err)
			time.AfterFunc(50*time.Millisecond, func() { f.Close() })
		}},
		{"a user who stays", func(t *testing.T, m *mount) {
			f, err := os.Create(m.path("f"))
			must(t, err)
			t.Cleanup(func() { f.Close() })
			_, err = f.WriteString("unpublished")
			must(t, err)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			m := s.node(t, func(o *options) { o.fuse.UnmountWait, o.fuse.DetachWait = 200*time.Millisecond, 200*time.Millisecond })
			tt.use(t, m)
			must(t, m.stop())
			notMounted(t, m.dir)
			if h := m.vfs.Stats().Handles; h != 0 {
				t.Errorf("%d handles are left", h)
			}
			if tt.name == "a user who stays" {
				got, err := os.ReadFile(s.node(t).path("f"))
				if string(got) != "unpublished" || err != nil {
					t.Errorf("after the drain the file has %q, %v", got, err)
				}
			}
		})
	}
}

// TestUnmountedBySomebodyElse: Run tells.
func TestUnmountedBySomebodyElse(t *testing.T) {
	needFuse(t)
	dir, v := mountDir(t), newVFS(t)
	s, err := fuse.Mount(dir, v, fuse.Options{})
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Run(context.Background()) }()
	quietPoll(t, dir)
	must(t, unix.Unmount(dir, 0))
	if err := <-served; !errors.Is(err, fuse.ErrUnmounted) {
		t.Errorf("Run returned %v, want %v", err, fuse.ErrUnmounted)
	}
}

// TestCloseWithoutRun: a mount that was never served goes away.
func TestCloseWithoutRun(t *testing.T) {
	needFuse(t)
	dir := mountDir(t)
	s, err := fuse.Mount(dir, newVFS(t), fuse.Options{})
	must(t, err)
	must(t, s.Close())
	notMounted(t, dir)
}
