package bulk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

var (
	// errDirFailed is for what is in a directory that could not be made.
	errDirFailed = errors.New("its directory could not be made")
	// errKey marks a key that cannot be a path: nothing of the tree is unknown
	// because of it.
	errKey = errors.New("not copied")
	// errChanged marks a file that was written to while it was read.
	errChanged = errors.New("it changed while it was read; run the same command again")
)

// isFatal reports whether err concerns all files that are still to come: going
// on would only make a list of the same error.
func isFatal(err error) bool {
	var on *objectError
	if errors.As(err, &on) {
		switch object.KindOf(err) {
		case object.NotExist, object.Exists, object.Invalid, object.Broken, object.Damaged, object.Unsupported:
			return on.all
		case object.Credentials: // one object may have rules of its own
			return on.all || on.write
		}
		return true
	}
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ENOTCONN, unix.ESHUTDOWN, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return object.KindOf(err) == object.Interrupted
}

// objectError is a failure of the bucket. all: of the bucket rather than of one
// object; write: of a put or delete.
type objectError struct {
	err        error
	all, write bool
}

func (e *objectError) Error() string { return e.err.Error() }
func (e *objectError) Unwrap() error { return e.err }

// fault names the operation on a path.
func fault(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}
