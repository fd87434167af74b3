package integration

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

// place is a trial's directory as one node sees it.
type place struct {
	dir string // below the node's mount
	h   int    // a handle of the trial's lane that is free for it
}

func (p place) at(name string) string { return filepath.Join(p.dir, name) }

// heldNames are the names that observers may hold open, each under a handle of
// its own.
var heldNames = []string{"", "f", "g", "d", "d/f"}

// fd is the handle under which an observer holds the name open.
func (p place) fd(name string) int { return 1_000_000 + 100*p.h + slices.Index(heldNames, name) }

// change is a mutating system call, and what shows that it has happened.
type change struct {
	name  string
	setup func(p place) []probe.Op // by the writer, before everybody looks
	act   func(p place) []probe.Op // by the writer; all must succeed
	after func(p place) []probe.Op // by the writer, after everybody looked again
	looks []look
	// content marks a change that is made in several calls and published by the
	// last: before that, processes on the writer's own node see it already, as
	// they would on a local file system, and nobody else does. It also marks
	// truncate(2): until it has returned, the kernel of the writer's node keeps
	// the old length whatever it is told (fuse_do_setattr sets
	// FUSE_I_SIZE_UNSTABLE), while other nodes may have the new one.
	content bool
}

// look is one call of an observer. want compares what it gave before the change
// and after: it must be false for an answer that did not change.
//
// parts marks a look that is several system calls, which may see two
// publications between them: it cannot be asked while the change is made.
//
// holds marks a look through a descriptor that the observer opened before the
// change: what its kernel keeps of an inode must go although no name leads to
// the inode any more, or none that was looked up again.
//
// keeps marks a look whose answer the change must not touch.
type look struct {
	op    func(p place) probe.Op
	want  func(before, after probe.Result) bool
	parts bool
	holds bool
	held  string // the name that holds opens
	keeps bool
}

// The things that a look may expect.

func isThere(before, after probe.Result) bool {
	return before.Errno == unix.ENOENT && after.Err() == nil
}

func isGone(before, after probe.Result) bool {
	return before.Err() == nil && after.Errno == unix.ENOENT
}

func lists(name string) func(_, after probe.Result) bool {
	return func(_, after probe.Result) bool { return after.Err() == nil && slices.Contains(after.Names, name) }
}

func listsNoLonger(name string) func(before, after probe.Result) bool {
	return func(before, after probe.Result) bool {
		return slices.Contains(before.Names, name) && after.Err() == nil && !slices.Contains(after.Names, name)
	}
}

func content(s string) func(_, after probe.Result) bool {
	return func(_, after probe.Result) bool { return after.Err() == nil && string(after.Data) == s }
}

func target(s string) func(_, after probe.Result) bool {
	return func(_, after probe.Result) bool { return after.Err() == nil && after.Str == s }
}

func fails(e unix.Errno) func(_, after probe.Result) bool {
	return func(_, after probe.Result) bool { return after.Lost == "" && after.Errno == e }
}

func stat(f func(s *probe.Stat) bool) func(_, after probe.Result) bool {
	return func(_, after probe.Result) bool { return after.Err() == nil && f(after.Stat) }
}

func mode(m uint32) func(_, after probe.Result) bool {
	return stat(func(s *probe.Stat) bool { return s.Mode == m })
}

func nlink(n uint64) func(_, after probe.Result) bool {
	return stat(func(s *probe.Stat) bool { return s.Nlink == n })
}

func size(n int64) func(_, after probe.Result) bool {
	return stat(func(s *probe.Stat) bool { return s.Size == n })
}

func owner(uid, gid uint32) func(_, after probe.Result) bool {
	return stat(func(s *probe.Stat) bool { return s.Uid == uid && s.Gid == gid })
}

func mtime(ns int64) func(_, after probe.Result) bool {
	return stat(func(s *probe.Stat) bool { return s.Mtime == ns })
}

// newer expects a later time of modification.
func newer(before, after probe.Result) bool {
	return before.Err() == nil && after.Err() == nil && after.Stat.Mtime > before.Stat.Mtime
}

// ctimeNewer expects a later time of change.
func ctimeNewer(before, after probe.Result) bool {
	return before.Err() == nil && after.Err() == nil && after.Stat.Ctime > before.Stat.Ctime
}

// on makes looks at a name of the trial's directory.
func on(name string, call func(path string) probe.Op, want func(before, after probe.Result) bool) look {
	return look{op: func(p place) probe.Op { return call(p.at(name)) }, want: want}
}

// through makes looks through a descriptor of a name of the trial's directory.
func through(name string, call func(h int) probe.Op, want func(before, after probe.Result) bool) look {
	return look{op: func(p place) probe.Op { return call(p.fd(name)) }, want: want, holds: true, held: name}
}

// keeping is through, of content that the change must not touch.
func keeping(name, text string) look {
	l := through(name, reads, content(text))
	l.keeps = true
	return l
}

// reads is pread of more than any small file of these tests has.
func reads(h int) probe.Op { return probe.Pread(h, 0, 4096) }

func access(path string) probe.Op { return probe.Op{Call: probe.CallAccess, Path: path} }

func xattr(path string) probe.Op { return probe.Getxattr(path, "user.colour") }

func listxattr(path string) probe.Op { return probe.Op{Call: probe.CallListxattr, Path: path} }

func file(name, content string) func(p place) []probe.Op {
	return func(p place) []probe.Op { return []probe.Op{probe.WriteFile(p.at(name), []byte(content))} }
}

// Two contents of the same length: a changed size would show without any look
// at the bytes.
const (
	oldText = "the old content of the file\n"
	newText = "the new content of the file\n"
)

// changes is every mutating system call that applications of a web site make.
func changes() []change {
	return slices.Concat(nameChanges(), renameChanges(), attrChanges(), contentChanges())
}

func nameChanges() []change {
	return []change{
		{
			name: "create",
			act: func(p place) []probe.Op {
				return []probe.Op{probe.Open(p.h, p.at("f"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o640)}
			},
			after: func(p place) []probe.Op { return []probe.Op{probe.Close(p.h)} },
			looks: []look{on("f", probe.Lstat, isThere), on("f", access, isThere), on("f", probe.ReadFile, isThere),
				on("", probe.Readdir, lists("f")), on("", probe.Lstat, newer),
				through("", probe.Getdents, lists("f")), through("", probe.Fstat, newer)},
		},
		{
			name: "mkdir",
			act:  func(p place) []probe.Op { return []probe.Op{probe.Mkdir(p.at("d"))} },
			looks: []look{on("d", probe.Lstat, isThere), on("d", probe.Readdir, isThere), on("", probe.Readdir, lists("d")),
				on("", probe.Lstat, nlink(3)), on("d/f", probe.Lstat, warmOnly), through("", probe.Fstat, nlink(3)),
				through("", probe.Getdents, lists("d"))},
		},
		{
			name:  "mknod fifo",
			act:   func(p place) []probe.Op { return []probe.Op{probe.Mkfifo(p.at("p"))} },
			looks: []look{on("p", probe.Lstat, mode(unix.S_IFIFO|0o600)), on("", probe.Readdir, lists("p"))},
		},
		{
			name: "symlink",
			act:  func(p place) []probe.Op { return []probe.Op{probe.Symlink("to/there", p.at("l"))} },
			looks: []look{on("l", probe.Readlink, target("to/there")), on("l", probe.Lstat, isThere),
				on("", probe.Readdir, lists("l")), on("l", probe.ReadFile, warmOnly)},
		},
		{
			name:  "link",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Link(p.at("f"), p.at("g"))} },
			looks: []look{on("g", probe.Lstat, nlink(2)), on("f", probe.Lstat, nlink(2)), on("g", probe.ReadFile, content(oldText)),
				on("", probe.Readdir, lists("g")), through("f", probe.Fstat, nlink(2)), keeping("f", oldText)},
		},
		{
			name:  "unlink",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Unlink(p.at("f"))} },
			looks: []look{on("f", probe.Lstat, isGone), on("f", probe.ReadFile, isGone), on("f", access, isGone),
				on("", probe.Readdir, listsNoLonger("f")), through("", probe.Getdents, listsNoLonger("f")),
				through("f", probe.Fstat, nlink(0)), keeping("f", oldText)},
		},
		{
			name: "unlink of one of two names",
			setup: func(p place) []probe.Op {
				return append(file("f", oldText)(p), probe.Link(p.at("f"), p.at("g")))
			},
			act: func(p place) []probe.Op { return []probe.Op{probe.Unlink(p.at("f"))} },
			looks: []look{on("f", probe.Lstat, isGone), on("g", probe.Lstat, nlink(1)), on("g", probe.Lstat, ctimeNewer),
				through("f", probe.Fstat, nlink(1)), keeping("g", oldText)},
		},
		{
			name:  "rmdir",
			setup: func(p place) []probe.Op { return []probe.Op{probe.Mkdir(p.at("d"))} },
			act:   func(p place) []probe.Op { return []probe.Op{probe.Rmdir(p.at("d"))} },
			looks: []look{on("d", probe.Lstat, isGone), on("d", probe.Readdir, isGone), on("", probe.Readdir, listsNoLonger("d")),
				on("", probe.Lstat, nlink(2)), through("d", probe.Fstat, nlink(0)), through("", probe.Fstat, nlink(2))},
		},
	}
}

// warmOnly marks a look that is made but not judged: it only leaves something in
// the caches that the change must get past.
var warmOnly func(before, after probe.Result) bool

func renameChanges() []change {
	two := func(p place) []probe.Op {
		return []probe.Op{probe.WriteFile(p.at("f"), []byte(newText)), probe.WriteFile(p.at("g"), []byte(oldText))}
	}
	return []change{
		{
			name:  "rename",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Rename(p.at("f"), p.at("g"), 0)} },
			looks: []look{on("f", probe.Lstat, isGone), on("g", probe.ReadFile, content(oldText)), on("g", probe.Lstat, isThere),
				on("", probe.Readdir, lists("g")), on("", probe.Readdir, listsNoLonger("f")), through("f", probe.Fstat, ctimeNewer),
				keeping("f", oldText)},
		},
		{
			name:  "rename over a file",
			setup: two,
			act:   func(p place) []probe.Op { return []probe.Op{probe.Rename(p.at("f"), p.at("g"), 0)} },
			looks: []look{on("g", probe.ReadFile, content(newText)), on("f", probe.Lstat, isGone),
				on("g", probe.Lstat, otherInode), on("", probe.Readdir, listsNoLonger("f")), through("g", probe.Fstat, nlink(0)),
				keeping("g", oldText), keeping("f", newText)},
		},
		{
			name:  "rename EXCHANGE",
			setup: two,
			act:   func(p place) []probe.Op { return []probe.Op{probe.Rename(p.at("f"), p.at("g"), unix.RENAME_EXCHANGE)} },
			looks: []look{on("g", probe.ReadFile, content(newText)), on("f", probe.ReadFile, content(oldText)),
				on("f", probe.Lstat, otherInode), on("g", probe.Lstat, otherInode), keeping("f", newText), keeping("g", oldText)},
		},
		{
			name:  "rename NOREPLACE",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Rename(p.at("f"), p.at("g"), unix.RENAME_NOREPLACE)} },
			looks: []look{on("f", probe.Lstat, isGone), on("g", probe.ReadFile, content(oldText)), on("", probe.Readdir, lists("g"))},
		},
		{
			name: "rename into another directory",
			setup: func(p place) []probe.Op {
				return append(file("f", oldText)(p), probe.Mkdir(p.at("d")))
			},
			act: func(p place) []probe.Op { return []probe.Op{probe.Rename(p.at("f"), p.at("d/f"), 0)} },
			looks: []look{on("d/f", probe.ReadFile, content(oldText)), on("f", probe.Lstat, isGone), on("d", probe.Readdir, lists("f")),
				on("", probe.Readdir, listsNoLonger("f")), through("d", probe.Getdents, lists("f")), through("d", probe.Fstat, newer),
				keeping("f", oldText)},
		},
		{
			name: "rename of a directory",
			setup: func(p place) []probe.Op {
				return []probe.Op{probe.Mkdir(p.at("d")), probe.WriteFile(p.at("d/f"), []byte(oldText))}
			},
			act: func(p place) []probe.Op { return []probe.Op{probe.Rename(p.at("d"), p.at("e"), 0)} },
			looks: []look{on("e/f", probe.ReadFile, content(oldText)), on("d/f", probe.Lstat, isGone), on("d", probe.Lstat, isGone),
				on("e", probe.Readdir, lists("f")), on("", probe.Readdir, lists("e")), keeping("d/f", oldText)},
		},
	}
}

// otherInode expects that the name leads somewhere else.
func otherInode(before, after probe.Result) bool {
	return before.Err() == nil && after.Err() == nil && before.Stat.Ino != after.Stat.Ino
}

func attrChanges() []change {
	const day = int64(1_600_000_000_123_456_789)
	setx := func(p place) []probe.Op {
		return append(file("f", oldText)(p), probe.Setxattr(p.at("f"), "user.colour", []byte("blue")))
	}
	return []change{
		{
			name:  "chmod",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Chmod(p.at("f"), 0o600)} },
			looks: []look{on("f", probe.Lstat, mode(unix.S_IFREG|0o600)), on("f", probe.Lstat, ctimeNewer),
				through("f", probe.Fstat, mode(unix.S_IFREG|0o600)), keeping("f", oldText)},
		},
		{
			name:  "chown",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Chown(p.at("f"), 33, 34)} },
			looks: []look{on("f", probe.Lstat, owner(33, 34)), through("f", probe.Fstat, owner(33, 34))},
		},
		{
			name:  "utimensat",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Utimens(p.at("f"), day)} },
			looks: []look{on("f", probe.Lstat, mtime(day)), through("f", probe.Fstat, mtime(day))},
		},
		{
			name:    "truncate",
			content: true,
			setup:   file("f", oldText),
			act:     func(p place) []probe.Op { return []probe.Op{probe.Truncate(p.at("f"), 7)} },
			looks: []look{on("f", probe.Lstat, size(7)), on("f", probe.ReadFile, content(oldText[:7])), on("f", probe.Lstat, newer),
				through("f", probe.Fstat, size(7)), through("f", reads, content(oldText[:7]))},
		},
		{
			name:  "setxattr",
			setup: setx,
			act:   func(p place) []probe.Op { return []probe.Op{probe.Setxattr(p.at("f"), "user.colour", []byte("green"))} },
			looks: []look{on("f", xattr, content("green")), on("f", probe.Lstat, ctimeNewer)},
		},
		{
			name:  "setxattr of a new name",
			setup: file("f", oldText),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Setxattr(p.at("f"), "user.colour", []byte("green"))} },
			looks: []look{on("f", xattr, content("green")), on("f", listxattr, lists("user.colour"))},
		},
		{
			name:  "removexattr",
			setup: setx,
			act:   func(p place) []probe.Op { return []probe.Op{probe.Removexattr(p.at("f"), "user.colour")} },
			looks: []look{on("f", xattr, fails(unix.ENODATA)), on("f", listxattr, listsNoLonger("user.colour"))},
		},
	}
}

func contentChanges() []change {
	cs := contentCalls()
	for i := range cs {
		cs[i].content = true
	}
	return cs
}

func contentCalls() []change {
	big := bytes.Repeat([]byte("0123456789abcdef"), 9000) // 144,000 bytes: more than travels in the log
	seen := func(want string) []look {
		return []look{on("f", probe.ReadFile, content(want)), on("f", probe.Lstat, newer), through("f", reads, content(want)),
			through("f", probe.Fstat, newer)}
	}
	opened := func(flags int) func(p place) []probe.Op {
		return func(p place) []probe.Op {
			return append(file("f", oldText)(p), probe.Open(p.h, p.at("f"), flags, 0))
		}
	}
	closing := func(op func(p place) probe.Op) func(p place) []probe.Op {
		return func(p place) []probe.Op { return []probe.Op{op(p), probe.Close(p.h)} }
	}
	return []change{
		{
			name:  "write and close",
			setup: opened(unix.O_RDWR),
			act:   closing(func(p place) probe.Op { return probe.Pwrite(p.h, 0, []byte(newText)) }),
			looks: seen(newText),
		},
		{
			name:  "write and fsync",
			setup: opened(unix.O_RDWR),
			act: func(p place) []probe.Op {
				return []probe.Op{probe.Pwrite(p.h, 0, []byte(newText)), probe.Fsync(p.h)}
			},
			after: func(p place) []probe.Op { return []probe.Op{probe.Close(p.h)} },
			looks: seen(newText),
		},
		{
			name:  "write O_SYNC",
			setup: opened(unix.O_RDWR | unix.O_SYNC),
			act:   func(p place) []probe.Op { return []probe.Op{probe.Pwrite(p.h, 0, []byte(newText))} },
			after: func(p place) []probe.Op { return []probe.Op{probe.Close(p.h)} },
			looks: seen(newText),
		},
		{
			name:  "append and close",
			setup: opened(unix.O_WRONLY | unix.O_APPEND),
			act:   closing(func(p place) probe.Op { return probe.Write(p.h, []byte(newText)) }),
			looks: append(seen(oldText+newText), on("f", probe.Lstat, size(int64(len(oldText+newText))))),
		},
		{
			name:  "rewrite with O_TRUNC",
			setup: file("f", oldText),
			act:   file("f", newText),
			looks: seen(newText),
		},
		{
			name:  "rewrite with much content",
			setup: file("f", strings.Repeat("x", len(big))),
			act:   file("f", string(big)),
			looks: []look{{op: seen("")[0].op, want: content(string(big)), parts: true}, on("f", probe.Lstat, newer),
				through("f", probe.Fstat, newer)},
		},
		{
			name:  "ftruncate and close",
			setup: opened(unix.O_RDWR),
			act:   closing(func(p place) probe.Op { return probe.Ftruncate(p.h, 7) }),
			looks: append(seen(oldText[:7]), on("f", probe.Lstat, size(7))),
		},
		{
			name:  "growing and close",
			setup: opened(unix.O_RDWR),
			act:   closing(func(p place) probe.Op { return probe.Ftruncate(p.h, int64(len(oldText))+3) }),
			looks: seen(oldText + "\x00\x00\x00"),
		},
	}
}

// describe is for messages about a look that failed.
func describe(p place, l look, before, after probe.Result) string {
	op := l.op(p)
	return fmt.Sprintf("%s %s: before %.200s, now %.200s", op.Call, op.Path, before.Value(), after.Value())
}
