package fuse

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wpfs/wpfs/fs"
)

// errnos is the one table that makes errnos of kinds.
var errnos = map[fs.Kind]syscall.Errno{
	fs.OK:              0,
	fs.ErrNotFound:     syscall.ENOENT,
	fs.ErrExist:        syscall.EEXIST,
	fs.ErrNotDir:       syscall.ENOTDIR,
	fs.ErrIsDir:        syscall.EISDIR,
	fs.ErrNotEmpty:     syscall.ENOTEMPTY,
	fs.ErrInvalid:      syscall.EINVAL,
	fs.ErrPermission:   syscall.EPERM,
	fs.ErrAccess:       syscall.EACCES,
	fs.ErrNameTooLong:  syscall.ENAMETOOLONG,
	fs.ErrTooManyLinks: syscall.EMLINK,
	fs.ErrNoSpace:      syscall.ENOSPC,
	fs.ErrQuota:        syscall.EDQUOT,
	fs.ErrTooBig:       syscall.EFBIG,
	fs.ErrRange:        syscall.ERANGE,
	fs.ErrNoXattr:      syscall.ENODATA,
	fs.ErrNotSupported: syscall.EOPNOTSUPP,
	fs.ErrStale:        syscall.ESTALE,
	fs.ErrReadOnly:     syscall.EROFS,
	fs.ErrIO:           syscall.EIO,
	fs.ErrBadHandle:    syscall.EBADF,
	fs.ErrTooBigList:   syscall.E2BIG,
	fs.ErrInterrupted:  syscall.EINTR,
	fs.ErrCorrupt:      syscall.EIO,
	fs.ErrBusy:         syscall.EBUSY,
	fs.ErrNoDevice:     syscall.ENXIO,
}

// errno is what applications see of err: EIO for an error that carries no kind,
// or one that is not in the table.
func errno(err error) syscall.Errno {
	if n, ok := errnos[fs.KindOf(err)]; ok {
		return n
	}
	return syscall.EIO
}

// faults logs the errors that are not an answer but a fault, at most one per
// faultPause.
type faults struct {
	log        *slog.Logger
	next       atomic.Int64 // earliest time of the next line, in ns
	suppressed atomic.Uint64
}

const faultPause = time.Second

// status is err for the kernel.
func (f *faults) status(err error) gofuse.Status {
	if err == nil {
		return gofuse.OK
	}
	n := errno(err)
	if n == syscall.EIO {
		f.report(err)
	}
	return gofuse.Status(n)
}

func (f *faults) report(err error) {
	now := time.Now().UnixNano()
	next := f.next.Load()
	if now < next || !f.next.CompareAndSwap(next, now+int64(faultPause)) {
		f.suppressed.Add(1)
		return
	}
	args := []any{"error", err}
	var known *fs.Error
	if !errors.As(err, &known) {
		args = append(args, "note", "this error has no kind; that is a bug")
	}
	if n := f.suppressed.Swap(0); n > 0 {
		args = append(args, "suppressed", n)
	}
	f.log.Error("a file system call failed with EIO", args...)
}
