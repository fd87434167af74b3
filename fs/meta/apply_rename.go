package meta

import (
	"errors"

	"github.com/wpfs/wpfs/fs"
)

var errLoop = errors.New("directories form a loop")

// side is one of the two names of a rename.
type side struct {
	dir  *inode
	name string
	x    entryRecord
	n    *inode // nil: the name is free
}

func (t *tx) side(dir fs.Ino, name string) (s side, err error) {
	if s.dir, err = t.findDir(dir, name); err != nil {
		return s, err
	}
	s.name = name
	x, ok, err := t.entry(dir, name)
	if err != nil || !ok {
		return s, err
	}
	s.x = x
	s.n, err = t.mustInode(x.ino)
	return s, err
}

// rename refuses in the order in which Linux does.
func (t *tx) rename(o fs.Rename) (fs.Result, error) {
	const both = fs.RenameNoReplace | fs.RenameExchange
	if o.Flags&^both != 0 || o.Flags == both {
		return fs.Result{}, fs.ErrInvalid
	}
	exchange := o.Flags == fs.RenameExchange
	from, err := t.side(o.Parent, o.Name)
	if err != nil {
		return fs.Result{}, err
	}
	to, err := t.side(o.NewParent, o.NewName)
	switch {
	case err != nil:
		return fs.Result{}, err
	case from.n == nil || exchange && to.n == nil:
		return fs.Result{}, fs.ErrNotFound
	case o.Flags == fs.RenameNoReplace && to.n != nil:
		return fs.Result{}, fs.ErrExist
	}
	if err := t.checkLoops(from, to, exchange); err != nil {
		return fs.Result{}, err
	}
	if from.n == to.n {
		return done(from.n) // two names of one inode: POSIX says nothing happens
	}
	if err := checkRename(from, to, exchange, o.Cred); err != nil {
		return fs.Result{}, err
	}
	if exchange {
		t.exchange(from, to)
	} else {
		t.move(from, to)
	}
	return done(from.n)
}

// checkLoops refuses to move a directory below itself (rule R26).
func (t *tx) checkLoops(from, to side, exchange bool) error {
	if err := t.notInside(to.dir, from.n); err != nil {
		return err
	}
	if exchange {
		return t.notInside(from.dir, to.n)
	}
	return nil
}

// notInside walks from dir to the root and refuses if it meets n.
func (t *tx) notInside(dir, n *inode) error {
	if !n.IsDir() {
		return nil
	}
	for steps := t.sys.inodes; dir.Ino != n.Ino; steps-- {
		if dir.Ino == fs.RootIno {
			return nil
		}
		if steps == 0 {
			return corrupt("walk up from inode "+dir.Ino.String(), errLoop)
		}
		up, err := t.mustInode(dir.parent)
		if err != nil {
			return err
		}
		dir = up
	}
	return fs.ErrInvalid
}

func checkRename(from, to side, exchange bool, cred fs.Cred) error {
	if err := sticky(from.dir, from.n, cred); err != nil {
		return err
	}
	if to.n != nil {
		if err := sticky(to.dir, to.n, cred); err != nil {
			return err
		}
	}
	if !exchange && to.n != nil {
		switch {
		case from.n.IsDir() && !to.n.IsDir():
			return fs.ErrNotDir
		case !from.n.IsDir() && to.n.IsDir():
			return fs.ErrIsDir
		}
	}
	if err := checkLinks(from, to, exchange); err != nil {
		return err
	}
	if !exchange && to.n != nil && to.n.IsDir() && to.n.entries > 0 {
		return fs.ErrNotEmpty
	}
	return nil
}

// checkLinks refuses a directory too many in a directory.
func checkLinks(from, to side, exchange bool) error {
	if from.dir == to.dir {
		return nil
	}
	toDir := to.n != nil && to.n.IsDir()
	if from.n.IsDir() && !toDir && to.dir.Nlink >= fs.LinkMax {
		return fs.ErrTooManyLinks
	}
	if exchange && toDir && !from.n.IsDir() && from.dir.Nlink >= fs.LinkMax {
		return fs.ErrTooManyLinks
	}
	return nil
}

// move gives from's inode the new name. A name that existed keeps its cookie, so
// that a listing in progress shows it once.
func (t *tx) move(from, to side) {
	if to.n != nil {
		if to.n.IsDir() {
			to.dir.Nlink--
		}
		t.dropLink(to.n)
		t.setEntry(to.dir, to.name, entryRecord{from.n.Ino, from.n.Mode & fs.ModeType, to.x.cookie})
	} else {
		t.addEntry(to.dir, to.name, from.n)
	}
	t.removeEntry(from.dir, from.name, from.x)
	t.moveDir(from.n, from.dir, to.dir)
	t.touch(from.n)
}

// exchange swaps what two names lead to.
func (t *tx) exchange(from, to side) {
	t.setEntry(from.dir, from.name, entryRecord{to.x.ino, to.x.typ, from.x.cookie})
	t.setEntry(to.dir, to.name, entryRecord{from.x.ino, from.x.typ, to.x.cookie})
	t.moveDir(from.n, from.dir, to.dir)
	t.moveDir(to.n, to.dir, from.dir)
	t.touch(from.n)
	t.touch(to.n)
}

// moveDir changes which directory counts n's "..", if n is a directory.
func (t *tx) moveDir(n, from, to *inode) {
	if !n.IsDir() || from == to {
		return
	}
	n.parent = to.Ino
	from.Nlink--
	to.Nlink++
}
