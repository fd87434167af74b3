package probe

import (
	"encoding/base64"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Call names a system call, or a short fixed sequence of them.
type Call string

// The calls. Where several system calls make one, Result.Step tells which of
// them failed.
const (
	CallStat        Call = "lstat"
	CallAccess      Call = "access"
	CallOpen        Call = "open"  // keeps the descriptor under Op.H
	CallClose       Call = "close" // of Op.H
	CallRead        Call = "pread" // of Op.H
	CallWrite       Call = "write" // to Op.H, at Op.Off unless it is negative
	CallFstat       Call = "fstat"
	CallGetdents    Call = "getdents" // rewinds Op.H and lists it to the end
	CallFtruncate   Call = "ftruncate"
	CallFsync       Call = "fsync"
	CallMmapRead    Call = "mmap"      // maps Op.Len bytes of Op.H at Op.Off and copies them
	CallReadFile    Call = "readfile"  // open, read to the end, close
	CallWriteFile   Call = "writefile" // open with Op.Flags and Op.Mode, write, close
	CallMkdir       Call = "mkdir"
	CallRmdir       Call = "rmdir"
	CallUnlink      Call = "unlink"
	CallMknod       Call = "mknod"
	CallSymlink     Call = "symlink"
	CallReadlink    Call = "readlink"
	CallLink        Call = "link"
	CallRename      Call = "renameat2"
	CallChmod       Call = "chmod"
	CallChown       Call = "lchown"
	CallTruncate    Call = "truncate"
	CallUtimens     Call = "utimensat"
	CallSetxattr    Call = "lsetxattr"
	CallGetxattr    Call = "lgetxattr"
	CallRemovexattr Call = "lremovexattr"
	CallListxattr   Call = "llistxattr"
	CallReaddir     Call = "readdir" // open, getdents to the end, close
	CallStatfs      Call = "statfs"
	CallFill        Call = "fill"  // writes Op.Len bytes of Pattern(Op.Data) to Op.Path, then closes
	CallSum         Call = "sum"   // SHA-256 of the file's content
	CallScan        Call = "scan"  // tree.Scan of Op.Path; Result.Data is its gob
	CallWatch       Call = "watch" // repeats *Op.Inner until Op.Until
)

// Op is one thing to do.
type Op struct {
	Call  Call
	Path  string
	Path2 string // second path: new name, link target
	Name  string // of an extended attribute
	H     int    // handle, chosen by the caller; valid within one lane's probe
	Flags int
	Mode  uint32
	Uid   int
	Gid   int
	Off   int64
	Len   int64
	Data  []byte
	Mtime int64  // nanoseconds since 1970, for utimensat
	Under int    // if not 0: Path is relative to the directory that this handle has open
	Busy  int    // repeat the call so many times at most while it gives ESTALE
	At    int64  // not before this time (see Now); 0: at once
	Skip  string // leave out names that begin so; of readdir and getdents
	Inner *Op    // of watch
	Until int64  // of watch: the time to stop
}

// Stat is what lstat and fstat told. Times are nanoseconds since 1970.
type Stat struct {
	Ino, Rdev           uint64
	Mode, Uid, Gid      uint32
	Nlink               uint64
	Size, Blocks        int64
	Atime, Mtime, Ctime int64
}

// Span is a run of equal answers in a watch: the first and the last call that
// gave Value, each with its start and end.
type Span struct {
	Value                string
	FirstStart, FirstEnd int64
	LastStart, LastEnd   int64
	Calls                int
}

// Result is the outcome of one Op.
type Result struct {
	Call       Call
	Path       string
	Errno      syscall.Errno // 0: success
	Step       string        // the call that failed, where one Op is several
	Lost       string        // not empty: the probe itself failed and the outcome is unknown
	Start, End int64         // before and after, as Now tells it
	Repeats    int           // of Op.Busy
	N          int64
	Str        string
	Data       []byte
	Names      []string
	Stat       *Stat
	Spans      []Span
}

// Err is nil after success, the errno after a failed call, and another error
// if the probe died or did not answer.
func (r Result) Err() error {
	switch {
	case r.Lost != "":
		return fmt.Errorf("%s %s: %s", r.Call, r.Path, r.Lost)
	case r.Errno != 0:
		return &CallError{Call: r.Call, Step: r.Step, Path: r.Path, Errno: r.Errno}
	}
	return nil
}

// Took is how long the call lasted.
func (r Result) Took() time.Duration { return time.Duration(r.End - r.Start) }

// Value puts what a caller can see of r into one string, for comparisons. It
// leaves out times of access and block counts.
func (r Result) Value() string {
	if r.Lost != "" {
		return "lost: " + r.Lost
	}
	if r.Errno != 0 {
		return ErrnoName(r.Errno)
	}
	switch r.Call {
	case CallStat, CallFstat:
		s := r.Stat
		return fmt.Sprintf("ino=%d mode=%o nlink=%d owner=%d:%d size=%d mtime=%d ctime=%d",
			s.Ino, s.Mode, s.Nlink, s.Uid, s.Gid, s.Size, s.Mtime, s.Ctime)
	case CallReaddir, CallGetdents, CallListxattr:
		return fmt.Sprintf("%q", r.Names)
	case CallReadlink, CallSum:
		return r.Str
	}
	return base64.RawStdEncoding.EncodeToString(r.Data)
}

// CallError is a failed system call.
type CallError struct {
	Call  Call
	Step  string
	Path  string
	Errno syscall.Errno
}

func (e *CallError) Error() string {
	step := ""
	if e.Step != "" {
		step = " (" + e.Step + ")"
	}
	return fmt.Sprintf("%s%s %s: %s", e.Call, step, e.Path, ErrnoName(e.Errno))
}

func (e *CallError) Unwrap() error { return e.Errno }

// ErrnoName is the symbol of an errno, such as ENOENT.
func ErrnoName(e syscall.Errno) string {
	if s := unix.ErrnoName(e); s != "" {
		return s
	}
	return fmt.Sprintf("errno %d", int(e))
}

// Now is CLOCK_MONOTONIC in nanoseconds, the time of Result.Start and End.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("probe: clock_gettime: " + err.Error())
	}
	return ts.Nano()
}

type request struct {
	ID   uint64
	Lane int
	Ops  []Op
}

type reply struct {
	ID      uint64
	Results []Result
}
