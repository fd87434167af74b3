package meta_test

import (
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// tree is what the rows of the rename table start from:
// /dir/{full/{inner,deep/},empty/,file} /other/{dir2/,file2,link} (link = dir/file)
type tree struct {
	*rig
	ino map[string]fs.Ino
}

func newTree(t *testing.T) tree {
	t.Helper()
	r := newRig(t)
	x := tree{r, map[string]fs.Ino{"": 1}}
	for _, d := range [][3]string{
		{"dir", "", "dir"}, {"full", "dir", "full"}, {"deep", "full", "deep"}, {"empty", "dir", "empty"}, {"other", "", "other"}, {"dir2", "other", "dir2"},
	} {
		x.ino[d[0]] = r.dir(x.ino[d[1]], d[2])
	}
	x.ino["inner"] = r.file(x.ino["full"], "inner")
	x.ino["file"] = r.file(x.ino["dir"], "file")
	x.ino["file2"] = r.file(x.ino["other"], "file2")
	r.must(fs.Link{Ino: x.ino["file"], Parent: x.ino["other"], Name: "link"})
	return x
}

func TestRename(t *testing.T) {
	const exchange, noReplace = fs.RenameExchange, fs.RenameNoReplace
	rows := []struct {
		what             string
		dir, name, d2, n string
		flags            fs.RenameFlags
		want             fs.Kind
		nlink            map[string]uint32 // afterwards
	}{
		{"file to a free name", "dir", "file", "dir", "new", 0, fs.OK, map[string]uint32{"dir": 4, "file": 2}},
		{"file to another directory", "dir", "file", "other", "new", 0, fs.OK, map[string]uint32{"dir": 4, "other": 3, "file": 2}},
		{"file over file", "other", "file2", "dir", "file", 0, fs.OK, map[string]uint32{"file": 1, "file2": 1}},
		{"last link of a file replaced", "dir", "file", "other", "file2", 0, fs.OK, map[string]uint32{"file": 2, "file2": 0}},
		{"file over directory", "dir", "file", "dir", "empty", 0, fs.ErrIsDir, nil},
		{"file over full directory", "dir", "file", "dir", "full", 0, fs.ErrIsDir, nil},
		{"directory over file", "dir", "empty", "dir", "file", 0, fs.ErrNotDir, nil},
		{"directory to a free name", "dir", "full", "dir", "new", 0, fs.OK, map[string]uint32{"dir": 4, "full": 3}},
		{"directory to another directory", "dir", "full", "other", "new", 0, fs.OK, map[string]uint32{"dir": 3, "other": 4, "full": 3}},
		{"directory over empty directory", "dir", "full", "other", "dir2", 0, fs.OK, map[string]uint32{"dir": 3, "other": 3, "full": 3, "dir2": 0}},
		{"directory over empty directory beside it", "dir", "full", "dir", "empty", 0, fs.OK, map[string]uint32{"dir": 3, "full": 3, "empty": 0}},
		{"directory over full directory", "dir", "empty", "dir", "full", 0, fs.ErrNotEmpty, nil},
		{"directory over its parent", "full", "deep", "dir", "full", 0, fs.ErrNotEmpty, nil},
		{"directory over its grandparent", "full", "deep", "", "dir", 0, fs.ErrNotEmpty, nil},
		{"file over its parent", "full", "inner", "dir", "full", 0, fs.ErrIsDir, nil},
		{"directory into itself", "dir", "full", "full", "x", 0, fs.ErrInvalid, nil},
		{"directory below itself", "", "dir", "deep", "x", 0, fs.ErrInvalid, nil},
		{"directory onto its own subdirectory", "dir", "full", "full", "deep", 0, fs.ErrInvalid, nil},
		{"missing", "dir", "none", "dir", "x", 0, fs.ErrNotFound, nil},
		{"missing onto existing", "dir", "none", "dir", "file", 0, fs.ErrNotFound, nil},
		{"onto itself", "dir", "file", "dir", "file", 0, fs.OK, map[string]uint32{"file": 2}},
		{"directory onto itself", "dir", "full", "dir", "full", 0, fs.OK, map[string]uint32{"full": 3}},
		{"onto another link to the same file", "dir", "file", "other", "link", 0, fs.OK, map[string]uint32{"file": 2}},
		{"unknown flag", "dir", "file", "dir", "x", 4, fs.ErrInvalid, nil},
		{"both flags", "dir", "file", "dir", "x", 3, fs.ErrInvalid, nil},
		{"noreplace to a free name", "dir", "file", "dir", "x", noReplace, fs.OK, map[string]uint32{"file": 2}},
		{"noreplace onto a file", "dir", "file", "other", "file2", noReplace, fs.ErrExist, nil},
		{"noreplace onto itself", "dir", "file", "dir", "file", noReplace, fs.ErrExist, nil},
		{"noreplace onto another link", "dir", "file", "other", "link", noReplace, fs.ErrExist, nil},
		{"exchange files", "dir", "file", "other", "file2", exchange, fs.OK, map[string]uint32{"file": 2, "file2": 1}},
		{"exchange with nothing", "dir", "file", "dir", "x", exchange, fs.ErrNotFound, nil},
		{"exchange nothing", "dir", "x", "dir", "file", exchange, fs.ErrNotFound, nil},
		{"exchange file and full directory", "other", "file2", "dir", "full", exchange, fs.OK, map[string]uint32{"dir": 3, "other": 4, "full": 3}},
		{"exchange full directory and file", "dir", "full", "other", "file2", exchange, fs.OK, map[string]uint32{"dir": 3, "other": 4, "full": 3}},
		{"exchange directories", "dir", "full", "other", "dir2", exchange, fs.OK, map[string]uint32{"dir": 4, "other": 3, "full": 3, "dir2": 2}},
		{"exchange in one directory", "dir", "full", "dir", "file", exchange, fs.OK, map[string]uint32{"dir": 4, "full": 3}},
		{"exchange with itself", "dir", "file", "dir", "file", exchange, fs.OK, map[string]uint32{"file": 2}},
		{"exchange directory with its child", "dir", "full", "full", "deep", exchange, fs.ErrInvalid, nil},
		{"exchange child with its directory", "full", "deep", "dir", "full", exchange, fs.ErrInvalid, nil},
		{"exchange file with its directory", "full", "inner", "dir", "full", exchange, fs.ErrInvalid, nil},
	}
	for _, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			x := newTree(t)
			op := fs.Rename{Parent: x.ino[row.dir], Name: row.name, NewParent: x.ino[row.d2], NewName: row.n, Flags: row.flags, Cred: alice}
			if row.want != fs.OK {
				x.refuse(op, row.want)
				return
			}
			from, err := x.lookup(op.Parent, op.Name)
			if err != nil {
				t.Fatal(err)
			}
			to, toErr := x.lookup(op.NewParent, op.NewName)
			if a := x.must(op); a.Ino != from.Ino {
				t.Errorf("the result is inode %d, want %d", a.Ino, from.Ino)
			}
			x.checkMoved(op, from, to, toErr == nil)
			for name, want := range row.nlink {
				if n := x.attr(x.ino[name]).Nlink; n != want {
					t.Errorf("%s has %d links, want %d", name, n, want)
				}
			}
		})
	}
}

// checkMoved checks names, parents and ctime after a rename.
func (x tree) checkMoved(op fs.Rename, from, to fs.Attr, existed bool) {
	x.t.Helper()
	x.leads(op.NewParent, op.NewName, from.Ino)
	same := existed && from.Ino == to.Ino
	switch {
	case op.Flags == fs.RenameExchange || same:
		x.leads(op.Parent, op.Name, to.Ino)
	default:
		x.gone(op.Parent, op.Name)
	}
	if moved := from.Ctime.Before(x.attr(from.Ino).Ctime); moved == same {
		x.t.Errorf("ctime moved: %t, both names of one inode: %t", moved, same)
	}
	if existed && !same && !to.Ctime.Before(x.attr(to.Ino).Ctime) {
		x.t.Error("ctime of the other inode did not move")
	}
	if from.IsDir() {
		if up, err := x.s.View().Parent(from.Ino); err != nil || up != op.NewParent {
			x.t.Errorf("parent %d, %v, want %d", up, err, op.NewParent)
		}
	}
}

func TestRenameReplacedIsOrphan(t *testing.T) {
	x := newTree(t)
	old := x.ino["file2"]
	x.must(fs.Publish{Ino: old, Pieces: []fs.Piece{text(0, "old")}})
	x.must(fs.Rename{Parent: x.ino["dir"], Name: "file", NewParent: x.ino["other"], NewName: "file2"})
	if got := x.content(old); got != "old" {
		t.Errorf("the replaced file reads %q", got)
	}
	x.must(fs.Publish{Ino: old, Pieces: []fs.Piece{text(3, "er")}})
	if got := x.content(old); got != "older" {
		t.Errorf("a handle to the replaced file reads %q", got)
	}
	x.must(fs.Reclaim{Inos: []fs.Ino{old}})
	x.refuse(fs.Publish{Ino: old, Pieces: []fs.Piece{text(0, "x")}}, fs.ErrStale)
}
