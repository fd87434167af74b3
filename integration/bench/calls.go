package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The timed loops make their calls with paths that were prepared before, without
// a copy and an allocation for each: on a local file system these are a tenth of
// an lstat, and would make its lead look smaller.

// cpath is a path as the kernel takes it.
type cpath struct{ p *byte }

func (c cpath) String() string { return unix.BytePtrToString(c.p) }

func toCPath(path string) (cpath, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return cpath{}, fmt.Errorf("path %q: %w", path, err)
	}
	return cpath{p}, nil
}

func toCPaths(root string, names []string) ([]cpath, error) {
	out := make([]cpath, len(names))
	for i, n := range names {
		var err error
		if out[i], err = toCPath(filepath.Join(root, n)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lstatAt is lstat as today's libraries do it: one statx of the basic
// attributes. errno is what it returned.
func lstatAt(dir int, name *byte, st *unix.Statx_t) (errno unix.Errno) {
	for {
		_, _, errno = unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(name)),
			unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
		if errno != unix.EINTR { // by a signal of the Go runtime
			return errno
		}
	}
}

// atCWD is the constant in a variable: a negative constant is no uintptr.
var atCWD = unix.AT_FDCWD

func openCAt(dir int, name *byte, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(flags|unix.O_CLOEXEC), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// lstatPaths wants the same errno for all, 0 for success.
func lstatPaths(paths []cpath, want unix.Errno) error {
	var st unix.Statx_t
	for _, p := range paths {
		if got := lstatAt(atCWD, p.p, &st); got != want {
			return fmt.Errorf("lstat %s: %v, want %v", p, got, want)
		}
	}
	return nil
}

// readPaths reads each file and wants the bytes of all of them together. A
// negative want takes any number.
func readPaths(paths []cpath, buf []byte, want int64) error {
	var got int64
	for _, p := range paths {
		n, err := readPath(p, buf)
		if err != nil {
			return err
		}
		got += n
	}
	if want >= 0 && got != want {
		return fmt.Errorf("read %d bytes from %d files, want %d", got, len(paths), want)
	}
	return nil
}

// readPath opens, reads and closes. Less than was asked for is the end of a
// regular file, so that a small one is read by a single call.
func readPath(p cpath, buf []byte) (total int64, err error) {
	fd, err := openCAt(atCWD, p.p, unix.O_RDONLY)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", p, err)
	}
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return total, fmt.Errorf("read %s: %w", p, err)
		}
		total += int64(n)
		if n < len(buf) {
			break
		}
	}
	if err := unix.Close(fd); err != nil {
		return total, fmt.Errorf("close %s: %w", p, err)
	}
	return total, nil
}

// lister lists trees the way find and fts do: directories are opened in their
// parents, and the names are used where the kernel put them.
type lister struct {
	st   unix.Statx_t
	bufs [][]byte // by depth: a directory is not read to its end before the ones in it
}

const direntBuf = 32 << 10 // as in glibc

// list counts the entries below a directory, itself included, with an lstat for
// each.
func (l *lister) list(dir int, name *byte, depth int) (entries int, err error) {
	fd, err := openCAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return 0, fmt.Errorf("open directory %s: %w", unix.BytePtrToString(name), err)
	}
	defer unix.Close(fd)
	if depth == len(l.bufs) {
		l.bufs = append(l.bufs, make([]byte, direntBuf))
	}
	buf := l.bufs[depth]
	entries = 1
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return entries, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			name, reclen := dirent(rest)
			rest = rest[reclen:]
			if name == nil {
				continue
			}
			below, err := l.entry(fd, name, depth)
			if err != nil {
				return entries, err
			}
			entries += below
		}
	}
}

func (l *lister) entry(dir int, name *byte, depth int) (entries int, err error) {
	if errno := lstatAt(dir, name, &l.st); errno != 0 {
		return 0, fmt.Errorf("lstat %s: %w", unix.BytePtrToString(name), errno)
	}
	if l.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return l.list(dir, name, depth+1)
	}
	return 1, nil
}

// dirent is the name of the first struct linux_dirent64 in b, nil for a
// directory's own two, and the struct's length.
func dirent(b []byte) (name *byte, reclen int) {
	const lenAt, nameAt = 16, 19
	reclen = int(binary.NativeEndian.Uint16(b[lenAt:]))
	n := b[nameAt:reclen]
	if n[0] == '.' && (n[1] == 0 || n[1] == '.' && n[2] == 0) {
		return nil, reclen
	}
	return &n[0], reclen
}

// ownCost is what a system call costs this program more than one in C: Go tells
// its scheduler before and after. It is the difference for a call that does
// nothing.
func ownCost() time.Duration {
	const calls = 200_000
	loop := func(f func()) time.Duration {
		best := time.Duration(1<<63 - 1)
		for range 5 {
			began := time.Now()
			for range calls {
				f()
			}
			best = min(best, time.Since(began))
		}
		return best / calls
	}
	return loop(func() { unix.Syscall(unix.SYS_GETPPID, 0, 0, 0) }) - loop(func() { unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) })
}
