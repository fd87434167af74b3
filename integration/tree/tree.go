// Package tree describes a whole directory tree as a list that two nodes, or a
// node and the original, can be compared by: an [Entry] per name with its
// attributes and the checksum of its content.
package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one name below the root of a scan. The root itself is ".".
type Entry struct {
	Path     string
	Ino      uint64
	Mode     uint32
	Uid, Gid uint32
	Nlink    uint64
	Rdev     uint64
	Size     int64
	Mtime    int64 // nanoseconds since 1970
	Target   string
	Sum      string // SHA-256 of a regular file
	Xattrs   map[string]string
}

// Scan reads the tree at root, content included, in the order of the paths. It
// follows no links. Each name is looked up in its open directory, so that a deep
// tree costs no more than a flat one where every lookup is a message.
func Scan(root string) ([]Entry, error) {
	dir, name := filepath.Split(filepath.Clean(root))
	if dir == "" {
		dir = "."
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("scan: open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	var es []Entry
	if name == "" {
		name = "."
	}
	err = scan(fd, name, ".", &es)
	return es, err
}

func scan(dir int, name, rel string, es *[]Entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("scan: lstat %s: %w", rel, err)
	}
	e := Entry{Path: rel, Ino: st.Ino, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid, Nlink: uint64(st.Nlink),
		Rdev: st.Rdev, Size: st.Size, Mtime: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		b := make([]byte, 4096)
		n, err := unix.Readlinkat(dir, name, b)
		if err != nil {
			return fmt.Errorf("scan: readlink %s: %w", rel, err)
		}
		e.Target = string(b[:n])
	case unix.S_IFREG, unix.S_IFDIR:
		return scanOpen(dir, name, e, es)
	}
	*es = append(*es, e)
	return nil
}

// scanOpen is scan for what has to be opened: a file or a directory.
func scanOpen(dir int, name string, e Entry, es *[]Entry) error {
	fd, err := openat(dir, name)
	if err != nil {
		return fmt.Errorf("scan: open %s: %w", e.Path, err)
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	if e.Xattrs, err = xattrs(fd); err != nil {
		return fmt.Errorf("scan: xattrs of %s: %w", e.Path, err)
	}
	if e.Mode&unix.S_IFMT == unix.S_IFREG {
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		e.Sum = hex.EncodeToString(h.Sum(nil))
	}
	*es = append(*es, e)
	if e.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := scan(fd, n, filepath.Join(e.Path, n), es); err != nil {
			return err
		}
	}
	return nil
}

func openat(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// xattrs reads the user.* attributes; others belong to the system the tree
// happens to be on.
func xattrs(fd int) (map[string]string, error) {
	b := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, b)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(fd, name, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = string(v[:n])
	}
	return m, nil
}

// How tells Diff what two trees must agree in.
type How int

// A copy keeps everything but inode numbers and the size of directories; two
// views of one file system agree in these too.
const (
	Copies How = iota
	Views
)

// Diff says where b differs from a, a line for each difference, at most n of
// them (and one that counts the rest).
func Diff(a, b []Entry, how How, n int) []string {
	var out []string
	at := map[string]Entry{}
	for _, e := range b {
		at[e.Path] = e
	}
	for _, e := range a {
		f, ok := at[e.Path]
		if !ok {
			out = append(out, e.Path+": missing")
			continue
		}
		delete(at, e.Path)
		out = append(out, diffEntry(e, f, how)...)
	}
	for p := range at {
		out = append(out, p+": too much")
	}
	slices.Sort(out)
	if len(out) > n {
		out = append(out[:n:n], fmt.Sprintf("and %d more differences", len(out)-n))
	}
	return out
}

func diffEntry(a, b Entry, how How) []string {
	var out []string
	check := func(what string, x, y any) {
		if fmt.Sprint(x) != fmt.Sprint(y) {
			out = append(out, fmt.Sprintf("%s: %s is %v, want %v", a.Path, what, y, x))
		}
	}
	check("mode", fmt.Sprintf("%#o", a.Mode), fmt.Sprintf("%#o", b.Mode))
	check("uid", a.Uid, b.Uid)
	check("gid", a.Gid, b.Gid)
	check("nlink", a.Nlink, b.Nlink)
	check("rdev", a.Rdev, b.Rdev)
	check("mtime", a.Mtime, b.Mtime)
	check("link target", a.Target, b.Target)
	check("content", a.Sum, b.Sum)
	check("xattrs", a.Xattrs, b.Xattrs)
	if how == Views {
		check("inode", a.Ino, b.Ino)
	}
	if how == Views || a.Mode&unix.S_IFMT != unix.S_IFDIR {
		check("size", a.Size, b.Size)
	}
	return out
}

// Count tells the number of regular files, directories and other entries, and
// the bytes of the files.
func Count(es []Entry) (files, dirs, others int, bytes int64) {
	for _, e := range es {
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			files++
			bytes += e.Size
		case unix.S_IFDIR:
			dirs++
		default:
			others++
		}
	}
	return files, dirs, others, bytes
}
