package fuse_test

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

// TestInterrupt: signals that arrive while a call waits for its commit change
// nothing about it. What was proposed happens, so the caller must not hear EINTR.
func TestInterrupt(t *testing.T) {
	s := newSite(t)
	slow := &vfstest.Meta{Meta: s.meta}
	m := s.node(t, func(o *options) { o.meta = slow })
	slow.Before(func(fs.Op) error {
		time.Sleep(100 * time.Millisecond) // for the signals to arrive in
		return nil
	})
	if got := help(t, "interrupt", m.path("d")); got != "OK" {
		t.Errorf("mkdir and write under signals: %s", got)
	}
	if st := stat(t, m.path("d/f")); st.Size != 1 {
		t.Errorf("the file has %d bytes", st.Size)
	}
}

// interruptHelper makes calls on a thread that gets a signal all the time.
func interruptHelper(args []string) error {
	runtime.LockOSThread()
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR1)
	thread := unix.Gettid()
	go func() {
		for {
			_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGUSR1) // the thread lives as long as the process
			time.Sleep(time.Millisecond)
		}
	}()
	if err := unix.Mkdir(args[0], 0o755); err != nil {
		return fmt.Errorf("mkdir: %w", err)
	}
	fd, err := unix.Open(args[0]+"/f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	<-got // there were signals
	fmt.Print("OK")
	return nil
}
