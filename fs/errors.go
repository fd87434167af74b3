package fs

import (
	"errors"
	"fmt"
)

// Kind classifies an error. Kinds travel between nodes and into the log
// unchanged, so their numbers never change; fs/fuse has the one table that
// makes errnos of them.
type Kind uint8

// The kinds. The comment is the errno that applications see.
const (
	OK              Kind = 0
	ErrNotFound     Kind = 1  // ENOENT
	ErrExist        Kind = 2  // EEXIST
	ErrNotDir       Kind = 3  // ENOTDIR
	ErrIsDir        Kind = 4  // EISDIR
	ErrNotEmpty     Kind = 5  // ENOTEMPTY
	ErrInvalid      Kind = 6  // EINVAL
	ErrPermission   Kind = 7  // EPERM
	ErrAccess       Kind = 8  // EACCES
	ErrNameTooLong  Kind = 9  // ENAMETOOLONG
	ErrTooManyLinks Kind = 10 // EMLINK
	ErrNoSpace      Kind = 11 // ENOSPC
	ErrQuota        Kind = 12 // EDQUOT
	ErrTooBig       Kind = 13 // EFBIG
	ErrRange        Kind = 14 // ERANGE
	ErrNoXattr      Kind = 15 // ENODATA
	ErrNotSupported Kind = 16 // EOPNOTSUPP
	ErrStale        Kind = 17 // ESTALE: the inode or the session is gone
	ErrReadOnly     Kind = 18 // EROFS: the node lost its lease, policy "stale"
	ErrIO           Kind = 19 // EIO: outcome unknown, or content cannot be had
	ErrBadHandle    Kind = 20 // EBADF
	ErrTooBigList   Kind = 21 // E2BIG
	ErrInterrupted  Kind = 22 // EINTR
	ErrCorrupt      Kind = 23 // EIO: bytes that fail their checksum; never served
	ErrBusy         Kind = 24 // EBUSY
	ErrNoDevice     Kind = 25 // ENXIO: seek beyond the last data
)

var kindText = [...]string{
	OK: "ok", ErrNotFound: "no such file or directory", ErrExist: "file exists",
	ErrNotDir: "not a directory", ErrIsDir: "is a directory", ErrNotEmpty: "directory not empty",
	ErrInvalid: "invalid argument", ErrPermission: "operation not permitted", ErrAccess: "permission denied",
	ErrNameTooLong: "file name too long", ErrTooManyLinks: "too many links", ErrNoSpace: "no space left",
	ErrQuota: "quota exceeded", ErrTooBig: "file too large", ErrRange: "result too large",
	ErrNoXattr: "no such attribute", ErrNotSupported: "operation not supported", ErrStale: "stale file handle",
	ErrReadOnly: "read-only: this node has no lease", ErrIO: "input/output error", ErrBadHandle: "bad file handle",
	ErrTooBigList: "list too long", ErrInterrupted: "interrupted", ErrCorrupt: "content fails its checksum",
	ErrBusy: "busy", ErrNoDevice: "no such data",
}

// Error makes a Kind usable with errors.Is: errors.Is(err, fs.ErrExist).
func (k Kind) Error() string {
	if int(k) < len(kindText) && kindText[k] != "" {
		return kindText[k]
	}
	return fmt.Sprintf("error kind %d", uint8(k))
}

// Error says operation, object and kind, in that order, and wraps its cause.
type Error struct {
	Op   string
	Ino  Ino    // 0: none
	Name string // "": none
	Kind Kind
	Err  error // may be nil
}

func (e *Error) Error() string {
	s := e.Op
	if e.Ino != 0 {
		s += " inode " + e.Ino.String()
	}
	if e.Name != "" {
		s += fmt.Sprintf(" %q", e.Name)
	}
	s += ": " + e.Kind.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, kind) true for the error's own kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf finds the kind of err: OK for nil, ErrIO for an error that carries none.
func KindOf(err error) Kind {
	switch x := err.(type) { //nolint:errorlint // the usual cases first: errors.As allocates
	case nil:
		return OK
	case *Error:
		return x.Kind
	case Kind:
		return x
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return ErrIO
}
