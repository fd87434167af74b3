package fuse_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNames: renameat2, link and O_TMPFILE.
func TestNames(t *testing.T) {
	m := newSite(t).node(t)
	a, b := m.path("a"), m.path("b")
	must(t, os.WriteFile(a, []byte("A"), 0o644))
	must(t, os.WriteFile(b, []byte("B"), 0o644))
	rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
	if err := rename(unix.RENAME_NOREPLACE); err != unix.EEXIST {
		t.Errorf("NOREPLACE: %v, want %v", err, unix.EEXIST)
	}
	must(t, rename(unix.RENAME_EXCHANGE))
	if got, _ := os.ReadFile(a); string(got) != "B" {
		t.Errorf("after the exchange a has %q", got)
	}
	if err := rename(unix.RENAME_WHITEOUT); err != unix.EINVAL {
		t.Errorf("WHITEOUT: %v, want %v", err, unix.EINVAL)
	}
	fd, err := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR, 0o644)
	must(t, err)
	_, err = unix.Write(fd, []byte("T"))
	must(t, err)
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, m.path("t"), unix.AT_SYMLINK_FOLLOW))
	must(t, unix.Close(fd))
	if got, err := os.ReadFile(m.path("t")); string(got) != "T" || err != nil {
		t.Errorf("linked temporary file has %q, %v", got, err)
	}
	if err := os.WriteFile(m.path(strings.Repeat("x", 256)), nil, 0o644); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("name of 256 bytes: %v, want %v", err, unix.ENAMETOOLONG)
	}
	if _, err := os.Stat(m.path(strings.Repeat("x", 256))); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("stat of a name of 256 bytes: %v, want %v", err, unix.ENAMETOOLONG)
	}
}

// TestNodes: fifos, sockets and devices keep type and number; statx knows the
// birth time.
func TestNodes(t *testing.T) {
	m := newSite(t).node(t)
	for i, mode := range []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK} {
		path, dev := m.path(fmt.Sprint(i)), 0
		if i >= 2 {
			dev = int(unix.Mkdev(259, 70_000))
		}
		must(t, unix.Mknod(path, mode|0o640, dev))
		var stx unix.Statx_t
		must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_ALL, &stx))
		if st := stat(t, path); st.Mode != mode|0o640 || int(st.Rdev) != dev {
			t.Errorf("mode %o rdev %d, want %o and %d", st.Mode, st.Rdev, mode|0o640, dev)
		}
		if stx.Mask&unix.STATX_BTIME == 0 || stx.Btime != stx.Mtime || int(unix.Mkdev(stx.Rdev_major, stx.Rdev_minor)) != dev {
			t.Errorf("statx: mask %x, btime %v, mtime %v, device %d:%d", stx.Mask, stx.Btime, stx.Mtime, stx.Rdev_major, stx.Rdev_minor)
		}
	}
}

// TestFileHandles: NFS export and open_by_handle_at(2) find files by inode
// number after the kernel forgot them.
func TestFileHandles(t *testing.T) {
	m := newSite(t).node(t)
	must(t, os.MkdirAll(m.path("d/e"), 0o755))
	must(t, os.WriteFile(m.path("d/e/f"), []byte("content"), 0o644))
	file, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.path("d/e/f"), 0)
	must(t, err)
	dir, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.path("d/e"), 0)
	must(t, err)
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
	root, err := unix.Open(m.dir, unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(root)
	fd, err := unix.OpenByHandleAt(root, dir, unix.O_RDONLY)
	must(t, err)
	must(t, unix.Close(fd))
	fd, err = unix.OpenByHandleAt(root, file, unix.O_RDONLY)
	must(t, err)
	p := make([]byte, 20)
	if n, err := unix.Read(fd, p); string(p[:n]) != "content" || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
	must(t, unix.Close(fd))
	must(t, os.Remove(m.path("d/e/f")))
	if _, err := unix.OpenByHandleAt(root, file, unix.O_RDONLY); err != unix.ESTALE {
		t.Errorf("open of a removed file: %v, want %v", err, unix.ESTALE)
	}
}

// TestReadDirStable: a listing of 10,000 entries by small portions, while
// another node adds and removes others, has each that stays exactly once.
func TestReadDirStable(t *testing.T) {
	s := newSite(t)
	m, other := s.node(t), s.node(t)
	must(t, os.Mkdir(m.path("d"), 0o755))
	const n = 10_000
	for i := range n {
		must(t, os.Symlink("x", m.path(fmt.Sprintf("d/stays%d", i))))
		if i%10 == 0 { // leaves a gap
			must(t, os.Symlink("x", m.path("d/goes")))
			must(t, os.Remove(m.path("d/goes")))
		}
	}
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := other.path(fmt.Sprintf("d/comes%d", i%50))
			if os.Symlink("x", name) != nil {
				_ = os.Remove(name) // it exists
			}
		}
	})
	for range 3 {
		d, err := os.Open(m.path("d"))
		must(t, err)
		seen := map[string]int{}
		for {
			names, err := d.Readdirnames(100)
			if err == io.EOF {
				break
			}
			must(t, err)
			for _, name := range names {
				seen[name]++
			}
		}
		must(t, d.Close())
		for i := range n {
			if k := seen[fmt.Sprintf("stays%d", i)]; k != 1 {
				t.Fatalf("stays%d is listed %d times", i, k)
			}
		}
	}
	close(stop)
	changing.Wait()
}

// TestXattrLimits through the kernel.
func TestXattrLimits(t *testing.T) {
	m := newSite(t).node(t)
	path := m.path("f")
	must(t, os.WriteFile(path, nil, 0o644))
	// user::rw-, group::r--, other::r-- as linux/posix_acl_xattr.h has it.
	acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")
	if err := unix.Setxattr(path, "system.posix_acl_access", acl, 0); err != unix.EOPNOTSUPP {
		t.Errorf("set an ACL: %v, want %v", err, unix.EOPNOTSUPP)
	}
	must(t, unix.Setxattr(path, "user.a", make([]byte, 64<<10), 0))
	if _, err := unix.Getxattr(path, "user.a", make([]byte, 10)); err != unix.ERANGE {
		t.Errorf("short buffer: %v, want %v", err, unix.ERANGE)
	}
	if err := unix.Setxattr(path, "user.a", nil, unix.XATTR_CREATE); err != unix.EEXIST {
		t.Errorf("create again: %v, want %v", err, unix.EEXIST)
	}
	if err := unix.Setxattr(path, "user.b", nil, unix.XATTR_REPLACE); err != unix.ENODATA {
		t.Errorf("replace nothing: %v, want %v", err, unix.ENODATA)
	}
	must(t, unix.Setxattr(path, "user.b", nil, 0))
	if n, err := unix.Getxattr(path, "user.b", nil); n != 0 || err != nil {
		t.Errorf("empty value: %d, %v", n, err)
	}
}

// TestStatfs has sane numbers.
func TestStatfs(t *testing.T) {
	m := newSite(t).node(t)
	must(t, os.WriteFile(m.path("f"), make([]byte, 1<<20), 0o644))
	var st unix.Statfs_t
	must(t, unix.Statfs(m.dir, &st))
	used := (st.Blocks - st.Bfree) * uint64(st.Bsize)
	if st.Bsize != 4096 || st.Namelen != 255 || used != 1<<20 || st.Files-st.Ffree != 2 || st.Bavail == 0 {
		t.Errorf("%+v, %d bytes used", st, used)
	}
}
