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
// follows no links.
func Scan(root string) ([]Entry, error) {
	var es []Entry
	err := scan(root, ".", &es)
	return es, err
}

func scan(root, rel string, es *[]Entry) error {
	path := filepath.Join(root, rel)
	e, err := entryOf(path, rel)
	if err != nil {
		return err
	}
	*es = append(*es, e)
	if e.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	names, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	for _, n := range names {
		if err := scan(root, filepath.Join(rel, n.Name()), es); err != nil {
			return err
		}
	}
	return nil
}

func entryOf(path, rel string) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Entry{}, fmt.Errorf("scan: lstat %s: %w", path, err)
	}
	e := Entry{Path: rel, Ino: st.Ino, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid, Nlink: uint64(st.Nlink),
		Rdev: st.Rdev, Size: st.Size, Mtime: st.Mtim.Nano()}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Target, err = os.Readlink(path)
	case unix.S_IFREG:
		e.Sum, err = sum(path)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("scan: %w", err)
	}
	e.Xattrs, err = xattrs(path)
	return e, err
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// xattrs reads the user.* attributes; others belong to the system the tree
// happens to be on.
func xattrs(path string) (map[string]string, error) {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("scan: llistxattr %s: %w", path, err)
	}
	var m map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			return nil, fmt.Errorf("scan: lgetxattr %s %s: %w", path, name, err)
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
