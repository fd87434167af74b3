package vfs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

func (n *node) mkdir(parent fs.Ino, name string) fs.Ino {
	n.t.Helper()
	a, err := n.Mkdir(n.ctx, fs.Mkdir{Parent: parent, Name: name, Mode: 0o755})
	if err != nil {
		n.t.Fatal(err)
	}
	return a.Ino
}

// list reads a directory in portions of at most n entries.
func (n *node) list(dir fs.Ino, portion int, between func()) map[string]int {
	n.t.Helper()
	seen, after := map[string]int{}, uint64(0)
	for {
		got := 0
		err := n.ReadDir(n.ctx, dir, after, func(e fs.Entry) bool {
			if got == portion {
				return false
			}
			got++
			if e.Cookie <= after {
				n.t.Fatalf("cookie %d after %d", e.Cookie, after)
			}
			seen[e.Name]++
			after = e.Cookie
			return true
		})
		if err != nil {
			n.t.Fatal(err)
		}
		if got == 0 {
			return seen
		}
		between()
	}
}

// TestReadDirWhileEntriesChange: what stays is listed once, however the listing
// is cut up and whatever comes and goes.
func TestReadDirWhileEntriesChange(t *testing.T) {
	for _, portion := range []int{1, 2, 7, 300} {
		t.Run(fmt.Sprint(portion), func(t *testing.T) {
			b := newBench(t)
			dir := b.mkdir(fs.RootIno, "d")
			for i := range 600 {
				b.mkdir(dir, fmt.Sprint("stays", i))
				b.mkdir(dir, fmt.Sprint("goes", i))
				b.mkdir(dir, fmt.Sprint("is gone", i))
				must(t, b.Rmdir(b.ctx, fs.Rmdir{Parent: dir, Name: fmt.Sprint("is gone", i)}))
			}
			step := 0
			seen := b.list(dir, portion, func() {
				if step < 600 {
					must(t, b.Rmdir(b.ctx, fs.Rmdir{Parent: dir, Name: fmt.Sprint("goes", 599-step)}))
					b.mkdir(dir, fmt.Sprint("comes", step))
				}
				step++
			})
			for i := range 600 {
				if n := seen[fmt.Sprint("stays", i)]; n != 1 {
					t.Fatalf("stays%d is listed %d times", i, n)
				}
			}
			if seen["."] != 1 || seen[".."] != 1 {
				t.Errorf(". is listed %d times and .. %d times", seen["."], seen[".."])
			}
			for name, n := range seen {
				if n != 1 {
					t.Errorf("%s is listed %d times", name, n)
				}
			}
		})
	}
}

func TestLookup(t *testing.T) {
	b := newBench(t)
	dir := b.mkdir(fs.RootIno, "d")
	sub := b.mkdir(dir, "sub")
	file, h := b.create("f")
	b.Release(h)
	tests := []struct {
		dir  fs.Ino
		name string
		want fs.Ino
		err  error
	}{
		{fs.RootIno, "d", dir, nil},
		{dir, "sub", sub, nil},
		{sub, "..", dir, nil},
		{sub, ".", sub, nil},
		{file, ".", file, nil},
		{fs.RootIno, "..", fs.RootIno, nil},
		{fs.RootIno, "absent", 0, fs.ErrNotFound},
		{file, "x", 0, fs.ErrNotDir},
		{12345, ".", 0, fs.ErrStale},
		{fs.RootIno, strings.Repeat("x", fs.NameMax+1), 0, fs.ErrNameTooLong},
	}
	for _, tt := range tests {
		found, err := b.Lookup(b.ctx, tt.dir, tt.name)
		a := found.Attr
		if a.Ino != tt.want || !errors.Is(err, tt.err) && tt.err != nil || tt.err == nil && err != nil {
			t.Errorf("lookup %q in %d: %d, %v; want %d, %v", short(tt.name), tt.dir, a.Ino, err, tt.want, tt.err)
		}
	}
}

// TestRemovedDirectory: a directory that is removed while open is empty, or
// absent once it is reclaimed.
func TestRemovedDirectory(t *testing.T) {
	b := newBench(t)
	dir := b.mkdir(fs.RootIno, "d")
	h := b.open(dir, unix.O_RDONLY)
	must(t, b.Rmdir(b.ctx, fs.Rmdir{Parent: fs.RootIno, Name: "d"}))
	if seen := b.list(dir, 10, func() {}); len(seen) != 2 {
		t.Errorf("a removed directory lists %v", seen)
	}
	b.Release(h)
	_, err := b.local.Do(b.ctx, fs.Reclaim{Inos: []fs.Ino{dir}})
	must(t, err)
	err = b.ReadDir(b.ctx, dir, 0, func(fs.Entry) bool { return true })
	if !errors.Is(err, fs.ErrNotFound) || fs.KindOf(err) != fs.ErrNotFound {
		t.Errorf("readdir of a reclaimed directory: %v, want %v", err, fs.ErrNotFound)
	}
}

func TestXattrs(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.Release(h)
	for name, want := range map[string]fs.Kind{
		"user.a": 0, "trusted.b": 0, "security.c": 0,
		"system.posix_acl_access": fs.ErrNotSupported, "other.x": fs.ErrNotSupported,
		"user.": fs.ErrInvalid, "user." + strings.Repeat("x", 255): fs.ErrRange,
	} {
		err := b.SetXattr(b.ctx, fs.SetXattr{Ino: ino, Name: name, Value: []byte("v")})
		if fs.KindOf(err) != want {
			t.Errorf("set %q: %v, want %v", short(name), err, want)
		}
	}
	root, err := b.Xattrs(b.ctx, ino, fs.Cred{})
	must(t, err)
	user, err := b.Xattrs(b.ctx, ino, fs.Cred{Uid: 1})
	must(t, err)
	if len(root) != 3 || len(user) != 2 {
		t.Errorf("root sees %v, others see %v", root, user)
	}
	if v, err := b.Xattr(b.ctx, ino, "user.a"); string(v) != "v" || err != nil {
		t.Errorf("user.a is %q, %v", v, err)
	}
	must(t, b.RemoveXattr(b.ctx, fs.RemoveXattr{Ino: ino, Name: "user.a"}))
	if _, err := b.Xattr(b.ctx, ino, "user.a"); fs.KindOf(err) != fs.ErrNoXattr {
		t.Errorf("removed user.a: %v, want %v", err, fs.ErrNoXattr)
	}
}

func TestStatfs(t *testing.T) {
	b := newBench(t, func(o *vfs.Options) { o.Free = func() uint64 { return 1000 } })
	_, h := b.create("f")
	b.write(h, strings.Repeat("x", 300), 0)
	b.close(h)
	s, err := b.Statfs(b.ctx)
	must(t, err)
	if s.Bytes != 1300 || s.BytesFree != 1000 || s.Inodes-s.InodesFree != 2 || s.InodesFree == 0 {
		t.Errorf("%+v", s)
	}
	_, err = b.local.Do(b.ctx, fs.SetLimits{BytesMax: 500, InodeMax: 10})
	must(t, err)
	s, err = b.Statfs(b.ctx)
	must(t, err)
	if s.Bytes != 500 || s.BytesFree != 200 || s.Inodes != 10 || s.InodesFree != 8 {
		t.Errorf("with limits: %+v", s)
	}
}
