package probe

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readFileMax bounds what readfile keeps in memory; larger files are for sum.
const readFileMax = 16 << 20

// busyPause is before each repetition of a call that gave ESTALE.
const busyPause = 200 * time.Microsecond

// do runs one Op, again if it is told to, and times it.
func do(hs *handles, op *Op) Result {
	r := once(hs, op)
	for n := 1; n <= op.Busy && r.Errno == unix.ESTALE; n++ {
		time.Sleep(busyPause)
		r = once(hs, op)
		r.Repeats = n
	}
	return r
}

func once(hs *handles, op *Op) Result {
	if op.Under != 0 {
		below := *op
		// Not by openat(2): every call that takes a path can do it this way.
		below.Path = fmt.Sprintf("/proc/self/fd/%d/%s", hs.get(op.Under), op.Path)
		op = &below
	}
	r := Result{Call: op.Call, Path: op.Path}
	r.Start = Now()
	err := call(hs, op, &r)
	r.End = Now()
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			r.Errno = errno
		} else {
			r.Lost = err.Error()
		}
	}
	return r
}

func call(hs *handles, op *Op, r *Result) error {
	switch op.Call {
	case CallOpen, CallClose, CallRead, CallWrite, CallFstat, CallGetdents, CallFtruncate, CallFsync, CallMmapRead:
		return callHandle(hs, op, r)
	case CallSetxattr, CallGetxattr, CallRemovexattr, CallListxattr:
		return callXattr(op, r)
	case CallReadFile, CallWriteFile, CallReaddir, CallFill, CallSum, CallScan:
		return callWhole(op, r)
	case CallWatch:
		watch(hs, op, r)
		return nil
	}
	return callPath(op, r)
}

func callPath(op *Op, r *Result) error {
	switch op.Call {
	case CallStat:
		var st unix.Stat_t
		if err := again(func() error { return unix.Lstat(op.Path, &st) }); err != nil {
			return err
		}
		r.Stat = statOf(&st)
		return nil
	case CallAccess:
		return unix.Access(op.Path, op.Mode)
	case CallMkdir:
		return unix.Mkdir(op.Path, op.Mode)
	case CallRmdir:
		return unix.Rmdir(op.Path)
	case CallUnlink:
		return unix.Unlink(op.Path)
	case CallMknod:
		return unix.Mknod(op.Path, op.Mode, 0)
	case CallSymlink:
		return unix.Symlink(op.Path2, op.Path)
	case CallReadlink:
		b := make([]byte, 4096)
		n, err := unix.Readlink(op.Path, b)
		if err != nil {
			return err
		}
		r.Str = string(b[:n])
		return nil
	case CallLink:
		return unix.Link(op.Path, op.Path2)
	case CallRename:
		return unix.Renameat2(unix.AT_FDCWD, op.Path, unix.AT_FDCWD, op.Path2, uint(op.Flags))
	case CallChmod:
		return unix.Chmod(op.Path, op.Mode)
	case CallChown:
		return unix.Lchown(op.Path, op.Uid, op.Gid)
	case CallTruncate:
		return unix.Truncate(op.Path, op.Len)
	case CallUtimens:
		ts := unix.NsecToTimespec(op.Mtime)
		return unix.UtimesNanoAt(unix.AT_FDCWD, op.Path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	case CallStatfs:
		var sf unix.Statfs_t
		if err := unix.Statfs(op.Path, &sf); err != nil {
			return err
		}
		r.N = int64(sf.Blocks-sf.Bfree) * sf.Bsize
		return nil
	}
	return errors.New("unknown call")
}

func callHandle(hs *handles, op *Op, r *Result) error {
	if op.Call == CallOpen {
		fd, err := open(op.Path, op.Flags, op.Mode)
		if err != nil {
			return err
		}
		hs.put(op.H, fd)
		return nil
	}
	if op.Call == CallClose {
		return unix.Close(hs.take(op.H))
	}
	fd := hs.get(op.H)
	switch op.Call {
	case CallRead:
		b := make([]byte, op.Len)
		n, err := preadFull(fd, b, op.Off)
		r.N, r.Data = int64(n), b[:n]
		return err
	case CallWrite:
		n, err := writeFull(fd, op.Data, op.Off)
		r.N = int64(n)
		return err
	case CallFstat:
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		r.Stat = statOf(&st)
		return nil
	case CallGetdents:
		l := hs.lister(op.H)
		l.Lock()
		defer l.Unlock()
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return err
		}
		return getdents(fd, op.Skip, r)
	case CallFtruncate:
		return unix.Ftruncate(fd, op.Len)
	case CallFsync:
		return unix.Fsync(fd)
	}
	b, err := unix.Mmap(fd, op.Off, int(op.Len), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	r.Data = slices.Clone(b)
	return unix.Munmap(b)
}

func callXattr(op *Op, r *Result) error {
	switch op.Call {
	case CallSetxattr:
		return unix.Lsetxattr(op.Path, op.Name, op.Data, op.Flags)
	case CallRemovexattr:
		return unix.Lremovexattr(op.Path, op.Name)
	case CallListxattr:
		names, err := listxattr(op.Path)
		r.Names = names
		return err
	}
	b := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(op.Path, op.Name, b)
	if err != nil {
		return err
	}
	r.Data = b[:n:n]
	return nil
}

// Where the kernel answers from its caches, a watcher that never waits keeps a
// core from the agents, and on a small machine the change it watches for does
// not come about: it pauses after some fast answers.
const (
	watchFast  = 20 * time.Microsecond
	watchBurst = 16
	watchPause = 50 * time.Microsecond
)

// watch repeats the inner operation until its time is up.
func watch(hs *handles, op *Op, r *Result) {
	fast := 0
	for {
		one := do(hs, op.Inner)
		v := one.Value()
		if n := len(r.Spans); n > 0 && r.Spans[n-1].Value == v {
			s := &r.Spans[n-1]
			s.LastStart, s.LastEnd = one.Start, one.End
			s.Calls++
		} else {
			r.Spans = append(r.Spans, Span{Value: v, FirstStart: one.Start, FirstEnd: one.End,
				LastStart: one.Start, LastEnd: one.End, Calls: 1})
		}
		if one.End >= op.Until {
			return
		}
		if one.Took() < watchFast {
			fast++
		}
		if fast == watchBurst {
			fast = 0
			time.Sleep(watchPause)
		}
		runtime.Gosched()
	}
}

func statOf(st *unix.Stat_t) *Stat {
	return &Stat{Ino: st.Ino, Rdev: st.Rdev, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid, Nlink: uint64(st.Nlink),
		Size: st.Size, Blocks: st.Blocks, Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

func open(path string, flags int, mode uint32) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// again repeats f while a signal interrupts it: the Go runtime preempts its
// threads with signals, which no application would see.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func preadFull(fd int, b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// writeFull writes all of b. A short write is continued, as every libc does; an
// append that is cut in two would show as a torn line.
func writeFull(fd int, b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		var m int
		var err error
		if off < 0 {
			m, err = unix.Write(fd, b[n:])
		} else {
			m, err = unix.Pwrite(fd, b[n:], off+int64(n))
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
		n += m
	}
	return n, nil
}
