package meta_test

import (
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

func TestNameRules(t *testing.T) {
	rows := []struct {
		what, name string
		want       fs.Kind
	}{
		{"empty", "", fs.ErrInvalid},
		{"dot", ".", fs.ErrInvalid},
		{"dot dot", "..", fs.ErrInvalid},
		{"slash", "a/b", fs.ErrInvalid},
		{"NUL", "a\x00", fs.ErrInvalid},
		{"256 bytes", strings.Repeat("a", 256), fs.ErrNameTooLong},
		{"256 bytes in 128 letters", strings.Repeat("ä", 128), fs.ErrNameTooLong},
		{"255 bytes", strings.Repeat("a", 255), fs.OK},
		{"three dots", "...", fs.OK},
		{"not UTF-8", "\xff\xfe", fs.OK},
		{"newline", "\n", fs.OK},
	}
	for _, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			f := r.file(1, "old")
			if row.want == fs.OK {
				ino := r.file(1, row.name)
				r.leads(1, row.name, ino)
				return
			}
			for _, op := range []fs.Op{
				fs.Create{Parent: 1, Name: row.name}, fs.Mkdir{Parent: 1, Name: row.name}, fs.Mknod{Parent: 1, Name: row.name},
				fs.Symlink{Parent: 1, Name: row.name, Target: "x"}, fs.Link{Ino: f, Parent: 1, Name: row.name},
				fs.Unlink{Parent: 1, Name: row.name}, fs.Rmdir{Parent: 1, Name: row.name},
				fs.Rename{Parent: 1, Name: row.name, NewParent: 1, NewName: "n"},
				fs.Rename{Parent: 1, Name: "old", NewParent: 1, NewName: row.name},
			} {
				r.refuse(op, row.want)
			}
		})
	}
}

// TestParents: what every operation on a name says to a parent that cannot be one.
func TestParents(t *testing.T) {
	r := newRig(t)
	f, gone := r.file(1, "f"), r.dir(1, "gone")
	r.must(fs.Rmdir{Parent: 1, Name: "gone"})
	for _, row := range []struct {
		what string
		dir  fs.Ino
		want fs.Kind
	}{{"a file", f, fs.ErrNotDir}, {"a removed directory", gone, fs.ErrNotFound}, {"no inode", 99, fs.ErrStale}} {
		t.Run(row.what, func(t *testing.T) {
			r.t = t
			for _, op := range []fs.Op{
				fs.Create{Parent: row.dir, Name: "x"}, fs.Mkdir{Parent: row.dir, Name: "x"}, fs.Mknod{Parent: row.dir, Name: "x"},
				fs.Symlink{Parent: row.dir, Name: "x", Target: "y"}, fs.Tmpfile{Parent: row.dir}, fs.Link{Ino: f, Parent: row.dir, Name: "x"},
				fs.Unlink{Parent: row.dir, Name: "x"}, fs.Rmdir{Parent: row.dir, Name: "x"},
				fs.Rename{Parent: row.dir, Name: "x", NewParent: 1, NewName: "n"},
				fs.Rename{Parent: 1, Name: "f", NewParent: row.dir, NewName: "n"},
			} {
				r.refuse(op, row.want)
			}
		})
	}
}

func TestCreate(t *testing.T) {
	r := newRig(t)
	a := r.must(fs.Create{Parent: 1, Name: "f", Mode: 0o170644, Cred: alice})
	want := fs.Attr{Ino: 2, Generation: 1, Mode: fs.ModeRegular | 0o644, Uid: 1000, Gid: 1000, Nlink: 1,
		Atime: r.now, Mtime: r.now, Ctime: r.now, Btime: r.now, Version: 1}
	if a != want {
		t.Errorf("made %+v, want %+v", a, want)
	}
	dir := r.must(fs.Mkdir{Parent: 1, Name: "d", Mode: 0o7755})
	if dir.Mode != fs.ModeDir|0o1755 || dir.Nlink != 2 || dir.Size != 4096 {
		t.Errorf("mkdir made %+v", dir)
	}
	r.must(fs.Mknod{Parent: 1, Name: "fifo", Mode: fs.ModeFifo | 0o600, Rdev: 7})
	r.must(fs.Symlink{Parent: 1, Name: "l", Target: "f"})

	res := r.do(fs.Create{Parent: 1, Name: "f", Mode: 0o600, Cred: bob})
	if res.Kind != fs.OK || !res.Existed || res.Attr != want || len(r.keys) != 0 {
		t.Errorf("create of an existing file: %+v, keys %v", res, r.keys)
	}
	for name, want := range map[string]fs.Kind{"d": fs.ErrIsDir, "fifo": fs.ErrExist, "l": fs.ErrExist} {
		r.refuse(fs.Create{Parent: 1, Name: name}, want)
	}
	for _, name := range []string{"f", "d", "fifo", "l"} {
		r.refuse(fs.Create{Parent: 1, Name: name, Excl: true}, fs.ErrExist)
		r.refuse(fs.Mkdir{Parent: 1, Name: name}, fs.ErrExist)
		r.refuse(fs.Mknod{Parent: 1, Name: name}, fs.ErrExist)
		r.refuse(fs.Symlink{Parent: 1, Name: name, Target: "x"}, fs.ErrExist)
		r.refuse(fs.Link{Ino: 2, Parent: 1, Name: name}, fs.ErrExist)
	}
}

func TestMknod(t *testing.T) {
	for _, row := range []struct {
		what       string
		mode, made uint32
		rdev       uint32
		want       fs.Kind
	}{
		{"no type is a file", 0o600, fs.ModeRegular | 0o600, 0, fs.OK},
		{"file", fs.ModeRegular | 0o600, fs.ModeRegular | 0o600, 0, fs.OK},
		{"fifo", fs.ModeFifo | 0o4644, fs.ModeFifo | 0o4644, 0, fs.OK},
		{"socket", fs.ModeSocket | 0o600, fs.ModeSocket | 0o600, 0, fs.OK},
		{"character device", fs.ModeChar | 0o600, fs.ModeChar | 0o600, 0x501, fs.OK},
		{"block device", fs.ModeBlock | 0o600, fs.ModeBlock | 0o600, 0x501, fs.OK},
		{"directory", fs.ModeDir | 0o600, 0, 0, fs.ErrPermission},
		{"symbolic link", fs.ModeSymlink, 0, 0, fs.ErrInvalid},
		{"no known type", 0o110000, 0, 0, fs.ErrInvalid},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			op := fs.Mknod{Parent: 1, Name: "n", Mode: row.mode, Rdev: 0x501, Cred: alice}
			if row.want != fs.OK {
				r.refuse(op, row.want)
				return
			}
			if a := r.must(op); a.Mode != row.made || a.Rdev != row.rdev || a.Size != 0 || a.Nlink != 1 {
				t.Errorf("made %+v", a)
			}
		})
	}
}

func TestSymlink(t *testing.T) {
	r := newRig(t)
	a := r.must(fs.Symlink{Parent: 1, Name: "l", Target: "../x y"})
	if a.Mode != fs.ModeSymlink|0o777 || a.Size != 6 || a.Nlink != 1 {
		t.Errorf("made %+v", a)
	}
	if target, err := r.s.View().Readlink(a.Ino); err != nil || target != "../x y" {
		t.Errorf("target %q, %v", target, err)
	}
	r.must(fs.Symlink{Parent: 1, Name: "long", Target: strings.Repeat("x", 4095)})
	r.refuse(fs.Symlink{Parent: 1, Name: "m", Target: strings.Repeat("x", 4096)}, fs.ErrNameTooLong)
	r.refuse(fs.Symlink{Parent: 1, Name: "m", Target: ""}, fs.ErrNotFound)
	r.refuse(fs.Symlink{Parent: 1, Name: "m", Target: "a\x00"}, fs.ErrInvalid)
	if b := r.must(fs.Link{Ino: a.Ino, Parent: 1, Name: "l2"}); b.Nlink != 2 {
		t.Errorf("a link to a symbolic link has %d links", b.Nlink)
	}
}

func TestSetgidDirectory(t *testing.T) {
	r := newRig(t)
	d := r.must(fs.Mkdir{Parent: 1, Name: "d", Mode: 0o755, Cred: alice}).Ino
	r.must(fs.SetAttr{Ino: d, Mask: fs.SetMode | fs.SetGid, Mode: 0o2775, Gid: 33, Cred: root})
	for _, row := range []struct {
		what string
		op   fs.Op
		mode uint32
	}{
		{"file", fs.Create{Parent: d, Name: "f", Mode: 0o644, Cred: alice}, fs.ModeRegular | 0o644},
		{"directory", fs.Mkdir{Parent: d, Name: "d", Mode: 0o755, Cred: alice}, fs.ModeDir | 0o2755},
		{"link", fs.Symlink{Parent: d, Name: "l", Target: "x", Cred: alice}, fs.ModeSymlink | 0o777},
		{"fifo", fs.Mknod{Parent: d, Name: "p", Mode: fs.ModeFifo | 0o600, Cred: alice}, fs.ModeFifo | 0o600},
		{"tmpfile", fs.Tmpfile{Parent: d, Mode: 0o600, Cred: alice}, fs.ModeRegular | 0o600},
		{"set-gid program of a stranger", fs.Create{Parent: d, Name: "s", Mode: 0o2755, Cred: alice}, fs.ModeRegular | 0o755},
		{"set-gid program of the group", fs.Create{Parent: d, Name: "g", Mode: 0o2755, Cred: fs.Cred{Uid: 5, Gid: 33}}, fs.ModeRegular | 0o2755},
		{"set-gid program of root", fs.Create{Parent: d, Name: "r", Mode: 0o2755}, fs.ModeRegular | 0o2755},
		{"set-gid without execution", fs.Create{Parent: d, Name: "m", Mode: 0o2644, Cred: alice}, fs.ModeRegular | 0o2644},
	} {
		if a := r.must(row.op); a.Gid != 33 || a.Mode != row.mode {
			t.Errorf("%s: group %d, mode %o, want 33, %o", row.what, a.Gid, a.Mode, row.mode)
		}
	}
	if a := r.must(fs.Create{Parent: 1, Name: "f", Mode: 0o2755, Cred: alice}); a.Gid != 1000 || a.Mode&fs.ModePerm != 0o2755 {
		t.Errorf("elsewhere: group %d, mode %o", a.Gid, a.Mode)
	}
}

func TestLinks(t *testing.T) {
	r := newRig(t)
	f, d := r.file(1, "f"), r.dir(1, "d")
	ctime := r.attr(f).Ctime
	a := r.must(fs.Link{Ino: f, Parent: d, Name: "g"})
	if a.Nlink != 2 || !ctime.Before(a.Ctime) || a.Mtime != r.attr(f).Mtime {
		t.Errorf("after link: %+v", a)
	}
	r.refuse(fs.Link{Ino: d, Parent: 1, Name: "d2"}, fs.ErrPermission)
	r.refuse(fs.Link{Ino: 99, Parent: 1, Name: "d2"}, fs.ErrStale)
	if b := r.must(fs.Unlink{Parent: 1, Name: "f"}); b.Nlink != 1 || !a.Ctime.Before(b.Ctime) {
		t.Errorf("after the first unlink: %+v", b)
	}
	r.leads(d, "g", f)
	if b := r.must(fs.Unlink{Parent: d, Name: "g"}); b.Nlink != 0 {
		t.Errorf("after the last unlink: %+v", b)
	}
	r.refuse(fs.Link{Ino: f, Parent: 1, Name: "h"}, fs.ErrNotFound)
	if r.attr(f).Nlink != 0 {
		t.Error("an orphan can be read until it is reclaimed")
	}
}

func TestTmpfile(t *testing.T) {
	r := newRig(t)
	before := r.attr(1)
	a := r.must(fs.Tmpfile{Parent: 1, Mode: 0o600, Cred: alice})
	if a.Nlink != 0 || a.Mode != fs.ModeRegular|0o600 || r.attr(1) != before {
		t.Errorf("made %+v, parent %+v", a, r.attr(1))
	}
	if list, err := r.s.Orphans(0, 10); err != nil || len(list) != 1 || list[0].Ino != a.Ino {
		t.Errorf("orphans %v, %v", list, err)
	}
	r.must(fs.Publish{Ino: a.Ino, Pieces: []fs.Piece{text(0, "x")}})
	if b := r.must(fs.Link{Ino: a.Ino, Parent: 1, Name: "t"}); b.Nlink != 1 {
		t.Errorf("after link: %+v", b)
	}
	if list, err := r.s.Orphans(0, 10); err != nil || len(list) != 0 {
		t.Errorf("orphans %v, %v", list, err)
	}
	r.must(fs.Unlink{Parent: 1, Name: "t"})
	r.refuse(fs.Link{Ino: a.Ino, Parent: 1, Name: "t"}, fs.ErrNotFound)
}

func TestRemove(t *testing.T) {
	r := newRig(t)
	d := r.dir(1, "d")
	sub, f := r.dir(d, "sub"), r.file(d, "f")
	if n := r.attr(d).Nlink; n != 3 {
		t.Errorf("a directory with one subdirectory has %d links", n)
	}
	r.refuse(fs.Unlink{Parent: 1, Name: "x"}, fs.ErrNotFound)
	r.refuse(fs.Rmdir{Parent: 1, Name: "x"}, fs.ErrNotFound)
	r.refuse(fs.Unlink{Parent: 1, Name: "d"}, fs.ErrIsDir)
	r.refuse(fs.Rmdir{Parent: d, Name: "f"}, fs.ErrNotDir)
	r.refuse(fs.Rmdir{Parent: 1, Name: "d"}, fs.ErrNotEmpty)
	if a := r.must(fs.Rmdir{Parent: d, Name: "sub"}); a.Ino != sub || a.Nlink != 0 {
		t.Errorf("removed %+v", a)
	}
	if n := r.attr(d).Nlink; n != 2 {
		t.Errorf("without it %d links", n)
	}
	if a := r.must(fs.Unlink{Parent: d, Name: "f"}); a.Ino != f {
		t.Errorf("removed %+v", a)
	}
	r.gone(d, "f")
	r.must(fs.Rmdir{Parent: 1, Name: "d"})
	if list, err := r.s.View().List(d, 0, 10); err != nil || len(list) != 0 {
		t.Errorf("listing of a removed directory: %v, %v", list, err)
	}
	r.gone(d, "f")
	r.must(fs.Reclaim{Inos: []fs.Ino{d, sub, f, 1, 99}})
	if u, err := r.s.View().Usage(); err != nil || u.Inodes != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func TestSticky(t *testing.T) {
	for _, row := range []struct {
		what string
		who  fs.Cred
		mode uint32
		want fs.Kind
	}{
		{"owner of the file", alice, 0o1777, fs.OK},
		{"owner of the directory", bob, 0o1777, fs.OK},
		{"root", root, 0o1777, fs.OK},
		{"stranger", fs.Cred{Uid: 3000}, 0o1777, fs.ErrPermission},
		{"stranger without the bit", fs.Cred{Uid: 3000}, 0o777, fs.OK},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			d := r.must(fs.Mkdir{Parent: 1, Name: "d", Mode: row.mode, Cred: bob}).Ino
			own := r.must(fs.Mkdir{Parent: 1, Name: "own", Mode: 0o777, Cred: row.who}).Ino
			for i, op := range []fs.Op{
				fs.Unlink{Parent: d, Name: "f", Cred: row.who},
				fs.Rmdir{Parent: d, Name: "sub", Cred: row.who},
				fs.Rename{Parent: d, Name: "g", NewParent: own, NewName: "x", Cred: row.who},
				fs.Rename{Parent: own, Name: "mine", NewParent: d, NewName: "h", Cred: row.who},
				fs.Rename{Parent: d, Name: "i", NewParent: own, NewName: "mine2", Flags: fs.RenameExchange, Cred: row.who},
				fs.Rename{Parent: own, Name: "mine3", NewParent: d, NewName: "j", Flags: fs.RenameExchange, Cred: row.who},
			} {
				if i == 0 {
					for _, name := range []string{"f", "g", "h", "i", "j"} {
						r.file(d, name)
					}
					r.dir(d, "sub")
					for _, name := range []string{"mine", "mine2", "mine3"} {
						r.must(fs.Create{Parent: own, Name: name, Cred: row.who})
					}
				}
				if row.want != fs.OK {
					r.refuse(op, row.want)
				} else {
					r.must(op)
				}
			}
		})
	}
}

// TestDirectoryTimes: whatever changes a directory's entries moves its mtime,
// ctime and Version, even in the same nanosecond and when the clock goes back.
func TestDirectoryTimes(t *testing.T) {
	r := newRig(t)
	d, e := r.dir(1, "d"), r.dir(1, "e")
	f := r.file(1, "f")
	last := map[fs.Ino]fs.Attr{d: r.attr(d), e: r.attr(e)}
	for i, op := range []fs.Op{
		fs.Create{Parent: d, Name: "a"}, fs.Mkdir{Parent: d, Name: "b"}, fs.Mknod{Parent: d, Name: "c"},
		fs.Symlink{Parent: d, Name: "l", Target: "x"}, fs.Link{Ino: f, Parent: d, Name: "h"},
		fs.Unlink{Parent: d, Name: "h"}, fs.Rmdir{Parent: d, Name: "b"},
		fs.Rename{Parent: d, Name: "a", NewParent: e, NewName: "a"},
		fs.Rename{Parent: d, Name: "c", NewParent: e, NewName: "a"},
		fs.Rename{Parent: d, Name: "l", NewParent: e, NewName: "a", Flags: fs.RenameExchange},
	} {
		now := fs.Time{Sec: 2_000_000 - int64(i/2)} // stands still, goes back
		if res := r.command(fs.Command{Now: now, Op: op}); res.Kind != fs.OK {
			t.Fatalf("%T: %v", op, res.Kind)
		}
		dirs := []fs.Ino{d}
		if i >= 7 {
			dirs = append(dirs, e)
		}
		for _, ino := range dirs {
			a := r.attr(ino)
			if !last[ino].Mtime.Before(a.Mtime) || !last[ino].Ctime.Before(a.Ctime) || a.Version != r.s.Applied() {
				t.Errorf("%T left directory %d at %+v, was %+v", op, ino, a, last[ino])
			}
			last[ino] = a
		}
	}
}

func TestListKeepsCookies(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		r.file(1, name)
	}
	first, err := r.s.View().List(1, 0, 2)
	if err != nil || len(first) != 2 || first[0].Cookie != 3 {
		t.Fatalf("%v, %v", first, err)
	}
	// While the listing is at "b": remove what it showed, replace, add.
	r.must(fs.Unlink{Parent: 1, Name: "b"})
	r.must(fs.Rename{Parent: 1, Name: "a", NewParent: 1, NewName: "c"})
	r.file(1, "b")
	rest, err := r.s.View().List(1, first[1].Cookie, 10)
	if err != nil || len(rest) != 3 {
		t.Fatalf("%v, %v", rest, err)
	}
	for i, want := range []string{"c", "d", "b"} {
		if rest[i].Name != want {
			t.Errorf("entry %d is %q, want %q", i, rest[i].Name, want)
		}
	}
	if rest[0].Ino != first[0].Ino || rest[0].Cookie != 5 {
		t.Errorf("the replaced name is %+v", rest[0])
	}
	if rest[2].Cookie != 7 {
		t.Errorf("a name made again has cookie %d: cookies do not return", rest[2].Cookie)
	}
}
