package meta_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func TestSetAttr(t *testing.T) {
	old := fs.Time{Sec: 5, Nsec: 6}
	for _, row := range []struct {
		what  string
		start uint32 // mode of a file of 1000:1000
		op    fs.SetAttr
		mode  uint32
		uid   uint32
		gid   uint32
	}{
		{"chmod", 0o644, fs.SetAttr{Mask: fs.SetMode, Mode: 0o177601, Cred: alice}, 0o7601, 1000, 1000},
		{"chown by root keeps set-id", 0o6755, fs.SetAttr{Mask: fs.SetUid, Uid: 7}, 0o6755, 7, 1000},
		{"chown by root with the kernel's mode", 0o6755, fs.SetAttr{Mask: fs.SetUid | fs.SetMode, Uid: 7, Mode: 0o755}, 0o755, 7, 1000},
		{"chgrp by the owner clears set-id", 0o6755, fs.SetAttr{Mask: fs.SetGid, Gid: 9, Cred: alice}, 0o755, 1000, 9},
		{"set-gid without execution stays", 0o6644, fs.SetAttr{Mask: fs.SetGid, Gid: 9, Cred: alice}, 0o2644, 1000, 9},
		{"chgrp with a mode of its own", 0o6755, fs.SetAttr{Mask: fs.SetGid | fs.SetMode, Gid: 9, Mode: 0o4700, Cred: alice}, 0o4700, 1000, 9},
		{"kill set-id", 0o6755, fs.SetAttr{Mask: fs.KillSetid, Cred: alice}, 0o755, 1000, 1000},
		{"times only", 0o6755, fs.SetAttr{Mask: fs.SetAtime | fs.SetMtime, Atime: old, Mtime: old, Cred: alice}, 0o6755, 1000, 1000},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			f := r.must(fs.Create{Parent: 1, Name: "f", Mode: row.start, Cred: alice})
			row.op.Ino = f.Ino
			a := r.must(row.op)
			if a.Mode != fs.ModeRegular|row.mode || a.Uid != row.uid || a.Gid != row.gid {
				t.Errorf("mode %o, %d:%d, want %o, %d:%d", a.Mode, a.Uid, a.Gid, row.mode, row.uid, row.gid)
			}
			want := f
			want.Mode, want.Uid, want.Gid, want.Ctime = a.Mode, a.Uid, a.Gid, r.now
			if row.op.Mask&fs.SetMtime != 0 {
				want.Atime, want.Mtime = old, old
			}
			if a != want || a != r.attr(f.Ino) {
				t.Errorf("got %+v, want %+v", a, want)
			}
		})
	}
}

func TestSetAttrRefusals(t *testing.T) {
	r := newRig(t)
	f, d := r.file(1, "f"), r.dir(1, "d")
	l := r.must(fs.Symlink{Parent: 1, Name: "l", Target: "f"}).Ino
	p := r.must(fs.Mknod{Parent: 1, Name: "p", Mode: fs.ModeFifo}).Ino
	bad := fs.Time{Nsec: 1_000_000_000}
	r.refuse(fs.SetAttr{Ino: 99, Mask: fs.SetMode}, fs.ErrStale)
	r.refuse(fs.SetAttr{Ino: d, Mask: fs.SetSize}, fs.ErrIsDir)
	r.refuse(fs.SetAttr{Ino: p, Mask: fs.SetSize}, fs.ErrInvalid)
	r.refuse(fs.SetAttr{Ino: l, Mask: fs.SetSize}, fs.ErrInvalid)
	r.refuse(fs.SetAttr{Ino: l, Mask: fs.SetMode, Mode: 0o600}, fs.ErrNotSupported)
	r.refuse(fs.SetAttr{Ino: f, Mask: 1 << 7}, fs.ErrInvalid)
	r.refuse(fs.SetAttr{Ino: f, Mask: fs.SetAtime, Atime: bad}, fs.ErrInvalid)
	r.refuse(fs.SetAttr{Ino: f, Mask: fs.SetMtime, Mtime: bad}, fs.ErrInvalid)
	r.refuse(fs.SetAttr{Ino: f, Mask: fs.SetMode | fs.SetSize, Size: fs.FileMax + 1}, fs.ErrTooBig)
	r.must(fs.SetAttr{Ino: l, Mask: fs.SetUid | fs.SetMtime, Uid: 5, Mtime: fs.Time{Sec: 9}})
	before := r.attr(f)
	if a := r.must(fs.SetAttr{Ino: f}); a != before || len(r.keys) > 0 {
		t.Errorf("an empty mask changed %+v, keys %v", a, r.keys)
	}
	if res := r.command(fs.Command{Now: bad, Op: fs.Mkdir{Parent: 1, Name: "x"}}); res.Kind != fs.ErrInvalid {
		t.Errorf("a clock with too many nanoseconds: %v", res.Kind)
	}
}

func TestTruncate(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "0123456789")}})
	was := r.attr(f)
	a := r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 4})
	if a.Size != 4 || a.Bytes != 4 || a.Mtime != r.now || a.Ctime != r.now || a.Version != r.s.Applied() || a.Atime != was.Atime {
		t.Errorf("after cutting: %+v", a)
	}
	if got := r.content(f); got != "0123" {
		t.Errorf("content %q", got)
	}
	if a := r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 6}); a.Size != 6 || a.Bytes != 4 {
		t.Errorf("after growing: %+v", a)
	}
	if got := r.content(f); got != "0123\x00\x00" {
		t.Errorf("what was cut came back: %q", got)
	}
	// truncate with an explicit mtime, as a kernel with its own clock sends it
	if a := r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize | fs.SetMtime, Size: 6, Mtime: fs.Time{Sec: 77}}); a.Mtime != (fs.Time{Sec: 77}) {
		t.Errorf("mtime %v", a.Mtime)
	}
	if a := r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: fs.FileMax}); a.Size != fs.FileMax {
		t.Errorf("size %d", a.Size)
	}
	if a := r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 0}); a.Bytes != 0 || len(r.extents(f)) != 0 {
		t.Errorf("after cutting all: %+v", a)
	}
}

// TestContentMtime: content that changes changes mtime, whatever the clocks say.
func TestContentMtime(t *testing.T) {
	sec := func(s int64) fs.Time { return fs.Time{Sec: s} }
	for _, row := range []struct {
		what             string
		old, mtime, want fs.Time // now is 1000
	}{
		{"later", sec(900), sec(950), sec(950)},
		{"same moment", sec(950), sec(950), fs.Time{Sec: 950, Nsec: 1}},
		{"delayed publication", sec(950), sec(900), fs.Time{Sec: 950, Nsec: 1}},
		{"last nanosecond", fs.Time{Sec: 950, Nsec: 999_999_999}, sec(900), sec(951)},
		{"a clock a little ahead", sec(1005), sec(999), fs.Time{Sec: 1005, Nsec: 1}},
		{"set into the future on purpose", sec(5000), sec(999), sec(999)},
		{"the same future again", sec(5000), sec(5000), fs.Time{Sec: 5000, Nsec: 1}},
	} {
		t.Run(row.what, func(t *testing.T) {
			for _, op := range []fs.Op{
				fs.Publish{Ino: 2, Pieces: []fs.Piece{text(0, "x")}, Mtime: row.mtime},
				fs.Append{Ino: 2, Pieces: []fs.Piece{text(0, "x")}, Mtime: row.mtime},
				fs.Publish{Ino: 2, Cut: ptr(0), Mtime: row.mtime},
				fs.Publish{Ino: 2, Grow: 9, Mtime: row.mtime},
			} {
				r := newRig(t)
				r.file(1, "f")
				r.must(fs.SetAttr{Ino: 2, Mask: fs.SetMtime, Mtime: row.old})
				res := r.command(fs.Command{Now: sec(1000), Op: op})
				if res.Kind != fs.OK || res.Attr.Mtime != row.want {
					t.Errorf("%s: %v, mtime %v, want %v", meta.OpName(op), res.Kind, res.Attr.Mtime, row.want)
				}
			}
		})
	}
}

func TestCtimeNeverGoesBack(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	last := r.attr(f).Ctime
	for i, op := range []fs.Op{
		fs.SetAttr{Ino: f, Mask: fs.SetMode}, fs.SetXattr{Ino: f, Name: "user.a"}, fs.RemoveXattr{Ino: f, Name: "user.a"},
		fs.Link{Ino: f, Parent: 1, Name: "g"}, fs.Rename{Parent: 1, Name: "g", NewParent: 1, NewName: "h"}, fs.Unlink{Parent: 1, Name: "h"},
		fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "x")}}, fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "x")}},
		fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 1},
	} {
		if res := r.command(fs.Command{Now: fs.Time{Sec: 50 - int64(i)}, Op: op}); res.Kind != fs.OK {
			t.Fatalf("%T: %v", op, res.Kind)
		}
		if a := r.attr(f); !last.Before(a.Ctime) {
			t.Errorf("%T: ctime %v after %v", op, a.Ctime, last)
		} else {
			last = a.Ctime
		}
	}
}

func TestXattrs(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	set := func(name, value string, flags fs.XattrFlags) fs.SetXattr {
		return fs.SetXattr{Ino: f, Name: name, Value: []byte(value), Flags: flags}
	}
	r.refuse(set("user.a", "1", fs.XattrReplace), fs.ErrNoXattr)
	r.must(set("user.a", "1", fs.XattrCreate))
	r.refuse(set("user.a", "2", fs.XattrCreate), fs.ErrExist)
	r.must(set("user.a", "2", fs.XattrReplace))
	r.must(set("user.a", "", 0))
	r.must(set("user.", "x", 0))
	names, err := r.s.View().Xattrs(f)
	if err != nil || fmt.Sprint(names) != "[user. user.a]" {
		t.Errorf("names %q, %v", names, err)
	}
	if v, err := r.s.View().Xattr(f, "user.a"); err != nil || len(v) != 0 {
		t.Errorf("value %q, %v", v, err)
	}
	if _, err := r.s.View().Xattr(f, "user.b"); !errors.Is(err, fs.ErrNoXattr) {
		t.Errorf("a missing one: %v", err)
	}
	r.must(fs.RemoveXattr{Ino: f, Name: "user.a"})
	r.refuse(fs.RemoveXattr{Ino: f, Name: "user.a"}, fs.ErrNoXattr)
	r.refuse(set("", "x", 0), fs.ErrRange)
	r.refuse(set(strings.Repeat("a", 256), "x", 0), fs.ErrRange)
	r.refuse(set("user.big", strings.Repeat("a", fs.XattrMax+1), 0), fs.ErrRange)
	r.refuse(set("user.\x00", "x", 0), fs.ErrInvalid)
	r.refuse(set("user.a", "x", 4), fs.ErrInvalid)
	r.refuse(fs.RemoveXattr{Ino: f, Name: ""}, fs.ErrRange)
	r.refuse(fs.SetXattr{Ino: 99, Name: "user.a"}, fs.ErrStale)
	r.refuse(fs.RemoveXattr{Ino: 99, Name: "user.a"}, fs.ErrStale)
}

func TestXattrSum(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.SetXattr{Ino: f + 0, Name: "user.0", Value: make([]byte, fs.XattrMax)})
	g := r.file(1, "g") // the neighbour's attributes do not count
	r.must(fs.SetXattr{Ino: g, Name: "user.0", Value: make([]byte, fs.XattrMax)})
	for i := 1; i < 3; i++ {
		r.must(fs.SetXattr{Ino: f, Name: fmt.Sprint("user.", i), Value: make([]byte, fs.XattrMax)})
	}
	rest := fs.XattrSumMax - 3*fs.XattrMax - 4*len("user.0")
	r.refuse(fs.SetXattr{Ino: f, Name: "user.3", Value: make([]byte, rest+1)}, fs.ErrNoSpace)
	r.must(fs.SetXattr{Ino: f, Name: "user.3", Value: make([]byte, rest)})
	r.refuse(fs.SetXattr{Ino: f, Name: "u"}, fs.ErrNoSpace)
	r.must(fs.SetXattr{Ino: f, Name: "user.1", Value: make([]byte, fs.XattrMax)}) // replacing is no growth
}

func TestLimits(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.SetLimits{BytesMax: 10, InodeMax: 3})
	d := r.dir(1, "d")
	for _, op := range []fs.Op{
		fs.Create{Parent: 1, Name: "x"}, fs.Mkdir{Parent: 1, Name: "x"}, fs.Mknod{Parent: 1, Name: "x"},
		fs.Symlink{Parent: 1, Name: "x", Target: "y"}, fs.Tmpfile{Parent: 1},
	} {
		r.refuse(op, fs.ErrNoSpace)
	}
	if res := r.do(fs.Create{Parent: 1, Name: "f"}); !res.Existed {
		t.Errorf("a full file system refuses to open: %v", res.Kind)
	}
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "0123456789")}})
	r.refuse(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "x")}}, fs.ErrNoSpace)
	r.refuse(fs.Publish{Ino: f, Pieces: []fs.Piece{text(1, "0123456789")}}, fs.ErrNoSpace)
	r.refuse(fs.Publish{Ino: f, Grow: 11}, fs.ErrNoSpace)
	r.refuse(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 11}, fs.ErrNoSpace)
	r.must(fs.Publish{Ino: f, Cut: ptr(0), Pieces: []fs.Piece{text(0, "9876543210")}})
	r.must(fs.SetLimits{BytesMax: 5, InodeMax: 1})
	r.must(fs.Publish{Ino: f, Cut: ptr(0), Pieces: []fs.Piece{text(0, "a rewrite!")}}) // no growth
	if a := r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 7}); a.Size != 7 {
		t.Error("above the limit it must be possible to shrink")
	}
	u, err := r.s.View().Usage()
	if want := (fs.Usage{Bytes: 7, Inodes: 3, BytesMax: 5, InodeMax: 1}); err != nil || u != want {
		t.Errorf("usage %+v, %v, want %+v", u, err, want)
	}
	r.must(fs.Rmdir{Parent: 1, Name: "d"})
	r.must(fs.Unlink{Parent: 1, Name: "f"})
	r.must(fs.Reclaim{Inos: []fs.Ino{d, f}})
	u, err = r.s.View().Usage()
	if err != nil || u.Bytes != 0 || u.Inodes != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// TestSumOfSizesOverflows: sparse files can add up to more than 64 bits say.
func TestSumOfSizesOverflows(t *testing.T) {
	r := newRig(t)
	for i := range 15 {
		f := r.file(1, fmt.Sprint("f", i))
		r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: fs.FileMax})
	}
	f := r.file(1, "last")
	r.refuse(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: fs.FileMax}, fs.ErrNoSpace)
	r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: fs.FileMax - 1})
}
