package fuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/meta/metatest"
	"github.com/wpfs/wpfs/fs/vfs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

// TestKilledWhileAsking: an agent that is killed while it has the kernel asked is
// gone at once, and its mount fails as that of any dead agent does. If it asked by a
// thread of its own, that would wait for itself for ever, and so would everybody.
func TestKilledWhileAsking(t *testing.T) {
	needFuse(t)
	dir := mountDir(t)
	cmd := command(t.Context(), "asking", dir, t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // normally gone already
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
			continue // until nothing is mounted
		}
	})
	said := bufio.NewScanner(out)
	hear := func(want string) {
		t.Helper()
		if !said.Scan() || said.Text() != want {
			t.Fatalf("the agent says %q, want %q", said.Text(), want)
		}
	}
	hear("ready")
	f, err := os.Open(filepath.Join(dir, "f"))
	must(t, err)
	stated := make(chan error, 1)
	fmt.Fprintln(in, "go on")
	hear("changed")
	go func() {
		var st unix.Stat_t
		stated <- unix.Fstat(int(f.Fd()), &st)
	}()
	hear("asked")
	must(t, cmd.Process.Kill())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := time.After(20 * time.Second)
	for what, c := range map[string]chan error{"the agent's end": ended, "fstat": stated} {
		select {
		case err := <-c:
			if what == "fstat" && !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("fstat: %v, want %v", err, unix.ENOTCONN)
			}
		case <-limit:
			t.Fatalf("waiting for %s", what)
		}
	}
	_ = f.Close() // fails: its mount is dead
}

// askingHelper is an agent that answers nothing any more once it has the kernel
// asked.
func askingHelper(args []string) error {
	l, err := metatest.NewLocal()
	if err != nil {
		return err
	}
	seat := newRing(l).sit()
	v, err := vfs.New(seat, &vfstest.Chunks{}, vfs.Options{StagingDir: args[1]})
	if err != nil {
		return err
	}
	s, err := fuse.Mount(args[0], v, fuse.Options{Asker: askerHelper})
	if err != nil {
		return err
	}
	seat.serve(s)
	served := make(chan error, 1)
	go func() { served <- s.Run(context.Background()) }()
	f := filepath.Join(args[0], "f")
	write := func() error { return exec.Command("/bin/sh", "-c", "echo x >> "+f).Run() }
	if err := write(); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	gate := func() {
		fmt.Println("asked")
		select {}
	}
	seat.gate.Store(&gate)
	fmt.Println("changed")
	return <-served
}
