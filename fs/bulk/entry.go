package bulk

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// known says which attributes a listing or an object tells; others are left as
// they are at the destination.
type known uint8

const (
	knowsMode known = 1 << iota
	knowsOwner
	knowsMtime
	knowsXattrs
	knowsLinks // whether the file has other names
)

// entry is one name of a tree, or one object.
type entry struct {
	path     string // below the root, without slashes at its ends; "": the root
	known    known
	mode     uint32 // type and permissions, as st_mode has them
	uid, gid uint32
	mtime    int64 // nanoseconds since 1970
	size     int64
	rdev     uint64
	target   string            // of a symbolic link
	xattrs   map[string]string // those that are copied
	// link is the same for all names of one inode, and "" for a file with one
	// name.
	link string

	// Of objects only:
	key      string
	etag     string
	md5      string // as s3cmd has noted it
	modified time.Time
	head     bool // the metadata has been read

	// Of the local file system only:
	ino    inode
	nlink  uint64
	temp   bool // left behind by a run that was interrupted
	unread bool // a directory not all of whose names could be listed
	skip   bool // a directory that nobody wants to see the inside of
}

func (e *entry) kind() uint32    { return e.mode & unix.S_IFMT }
func (e *entry) isDir() bool     { return e.kind() == unix.S_IFDIR }
func (e *entry) isRegular() bool { return e.kind() == unix.S_IFREG }
func (e *entry) isSymlink() bool { return e.kind() == unix.S_IFLNK }

// order is what trees are sorted by: the byte order of object keys, where a
// directory's name ends in a slash. A directory comes right before all that is
// in it.
func (e *entry) order() string {
	if e.isDir() && e.path != "" {
		return e.path + "/"
	}
	return e.path
}

func (e *entry) parent() string {
	i := strings.LastIndexByte(e.path, '/')
	return e.path[:max(i, 0)]
}

func (e *entry) name() string { return e.path[strings.LastIndexByte(e.path, '/')+1:] }

// inside reports whether path is below dir.
func inside(path, dir string) bool {
	return dir == "" && path != "" || len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// isDevice: what rdev means something for.
func (e *entry) isDevice() bool { return e.kind() == unix.S_IFCHR || e.kind() == unix.S_IFBLK }

var kindNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symbolic link",
	unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
}

func (e *entry) kindName() string { return kindNames[e.kind()] }

// contentDiffers says in which way have is no copy of want that only lacks
// attributes, or "". It goes by size and time; what is in the files it does not
// look at.
func contentDiffers(want, have *entry) string {
	switch {
	case want.kind() != have.kind():
		return fmt.Sprintf("is a %s, not a %s", have.kindName(), want.kindName())
	case want.isRegular() && want.size != have.size:
		return fmt.Sprintf("has %d bytes, not %d", have.size, want.size)
	case want.isRegular() && want.known&knowsMtime != 0 && !sameTime(want, have):
		return fmt.Sprintf("was changed at %s, not %s", stamp(have.mtime), stamp(want.mtime))
	case want.isSymlink() && want.target != have.target:
		return fmt.Sprintf("points to %q, not %q", have.target, want.target)
	case want.isDevice() && want.rdev != have.rdev:
		return fmt.Sprintf("is device %#x, not %#x", have.rdev, want.rdev)
	}
	return ""
}

// sameTime compares to the nanosecond, or to the second where one side has no
// more (s3cmd's attributes, some file systems).
func sameTime(a, b *entry) bool {
	const second = int64(time.Second)
	if a.mtime%second == 0 || b.mtime%second == 0 {
		return floorDiv(a.mtime, second) == floorDiv(b.mtime, second)
	}
	return a.mtime == b.mtime
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.999999999Z") }

// attrsDiffer says which attributes of have are not those of want, or "".
func attrsDiffer(want, have *entry) string {
	var out []string
	k := want.known & have.known
	if k&knowsMode != 0 && !want.isSymlink() && want.mode != have.mode {
		out = append(out, fmt.Sprintf("has mode %#o, not %#o", have.mode&^unix.S_IFMT, want.mode&^unix.S_IFMT))
	}
	if k&knowsOwner != 0 && (want.uid != have.uid || want.gid != have.gid) {
		out = append(out, fmt.Sprintf("belongs to %d:%d, not %d:%d", have.uid, have.gid, want.uid, want.gid))
	}
	if k&knowsMtime != 0 && !want.isRegular() && !sameTime(want, have) {
		out = append(out, fmt.Sprintf("was changed at %s, not %s", stamp(have.mtime), stamp(want.mtime)))
	}
	if k&knowsXattrs != 0 && !maps.Equal(want.xattrs, have.xattrs) {
		out = append(out, fmt.Sprintf("has extended attributes %s, not %s", names(have.xattrs), names(want.xattrs)))
	}
	return strings.Join(out, "; ")
}

// names of attributes; values may be long, and secret.
func names(m map[string]string) string {
	return fmt.Sprintf("%q", slices.Sorted(maps.Keys(m)))
}

// Shown is a path as a message or a list has it: in quotes if it is not plain
// printable text.
func Shown(path string) string {
	if path == "" {
		return "."
	}
	for _, r := range path {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) || r == '"' || r == '\\' {
			return strconv.Quote(path)
		}
	}
	return path
}
