package fuse

import "errors"

// Why a directory cannot be mounted on; errors.Is(err, ErrBusy) and so on tell
// them apart in what Mount returns.
var (
	ErrAbsent      = errors.New("mount point does not exist")
	ErrNotDir      = errors.New("mount point is not a directory")
	ErrBusy        = errors.New("mount point is in use")
	ErrNoDevice    = errors.New("no /dev/fuse")
	ErrNotAllowed  = errors.New("not allowed to mount")
	ErrMountFailed = errors.New("mount failed")
)

// MountError says why a mount point cannot be used and what to do.
type MountError struct {
	Dir    string
	Reason error  // one of the Err values above
	Advice string // a sentence for the operator
	Err    error  // the cause, may be nil
}

func (e *MountError) Error() string {
	s := "mount " + e.Dir + ": " + e.Advice
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Unwrap gives errors.Is the reason and the cause.
func (e *MountError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}
