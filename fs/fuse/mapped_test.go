package fuse_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

// TestMappedAppendFile: a file that is open with O_APPEND has no page cache for
// read and write, but can be mapped, privately and shared.
func TestMappedAppendFile(t *testing.T) {
	s := newSite(t)
	m, other := s.node(t), s.node(t)
	must(t, os.WriteFile(m.path("f"), bytes.Repeat([]byte("0123456789"), 1000), 0o644))
	help(t, "mapped", m.path("f"))
	got, err := os.ReadFile(other.path("f"))
	must(t, err)
	if want := "MAPPED6789"; !strings.HasPrefix(string(got), want) || !strings.HasSuffix(string(got), "tail") {
		t.Errorf("another node sees %q … %q", got[:10], got[len(got)-4:])
	}
}

func mappedHelper(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_APPEND, 0)
	if err != nil {
		return err
	}
	private, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("private: %w", err)
	}
	shared, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("shared: %w", err)
	}
	if !bytes.HasPrefix(private, []byte("0123456789")) {
		return fmt.Errorf("private mapping shows %q", private[:10])
	}
	copy(shared, "MAPPED")
	if _, err := unix.Write(fd, []byte("tail")); err != nil {
		return err
	}
	if err := unix.Msync(shared, unix.MS_SYNC); err != nil {
		return err
	}
	p := make([]byte, 10)
	if _, err := unix.Pread(fd, p, 0); err != nil || string(p) != "MAPPED6789" {
		return fmt.Errorf("read %q, %w", p, err)
	}
	return unix.Close(fd)
}

// TestTruncateMeetsAnotherNode: while a truncate is under way the kernel writes no
// mapped pages back, and dropping pages waits for that; so the answer to the
// truncate must not wait for dropped pages. Another node's publication comes right
// in between.
func TestTruncateMeetsAnotherNode(t *testing.T) {
	s := newSite(t)
	var m, other *mount
	changed := &vfstest.Meta{}
	m = s.node(t, func(o *options) {
		changed.Meta = o.meta
		o.meta = changed
	})
	other = s.node(t)
	must(t, os.WriteFile(m.path("f"), bytes.Repeat([]byte("x"), 16384), 0o644))
	var once sync.Once
	changed.Before(func(op fs.Op) error {
		if q, ok := op.(fs.SetAttr); ok && q.Mask&fs.SetSize != 0 {
			once.Do(func() { must(t, os.WriteFile(other.path("f"), bytes.Repeat([]byte("y"), 12288), 0o644)) })
		}
		return nil
	})
	help(t, "truncate", m.path("f"))
	for _, x := range []*mount{m, other} {
		if st := stat(t, x.path("f")); st.Size != 8192 {
			t.Errorf("size %d, want 8192", st.Size)
		}
	}
}

// truncateHelper cuts a file of which it has changed mapped pages.
func truncateHelper(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	shared, err := unix.Mmap(fd, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for i := 0; i < len(shared); i += 4096 {
		shared[i] = 'A'
	}
	return errors.Join(unix.Truncate(args[0], 8192), unix.Munmap(shared), unix.Close(fd))
}

// TestExec runs a program from the mount.
func TestExec(t *testing.T) {
	m := newSite(t).node(t)
	self, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(m.path("true"), self, 0o755))
	help(t, "exec", m.path("true"))
}

func execHelper(args []string) error { return exec.Command(args[0]).Run() }
