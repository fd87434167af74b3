package meta

import "github.com/wpfs/wpfs/fs"

// sticky refuses to remove or replace n in a sticky directory for all but the
// owners of either and root.
func sticky(dir, n *inode, cred fs.Cred) error {
	if dir.Mode&fs.ModeSticky != 0 && cred.Uid != 0 && cred.Uid != n.Uid && cred.Uid != dir.Uid {
		return fs.ErrPermission
	}
	return nil
}

// named finds the entry name in dir and its inode.
func (t *tx) named(dir fs.Ino, name string) (*inode, entryRecord, *inode, error) {
	d, err := t.findDir(dir, name)
	if err != nil {
		return nil, entryRecord{}, nil, err
	}
	x, ok, err := t.entry(dir, name)
	if err == nil && !ok {
		err = fs.ErrNotFound
	}
	if err != nil {
		return nil, x, nil, err
	}
	n, err := t.mustInode(x.ino)
	return d, x, n, err
}

func (t *tx) unlink(o fs.Unlink) (fs.Result, error) {
	dir, x, n, err := t.named(o.Parent, o.Name)
	if err == nil {
		err = sticky(dir, n, o.Cred)
	}
	if err != nil {
		return fs.Result{}, err
	}
	if n.IsDir() {
		return fs.Result{}, fs.ErrIsDir
	}
	t.removeEntry(dir, o.Name, x)
	t.dropLink(n)
	return done(n)
}

func (t *tx) rmdir(o fs.Rmdir) (fs.Result, error) {
	dir, x, n, err := t.named(o.Parent, o.Name)
	if err == nil {
		err = sticky(dir, n, o.Cred)
	}
	switch {
	case err != nil:
		return fs.Result{}, err
	case !n.IsDir():
		return fs.Result{}, fs.ErrNotDir
	case n.entries > 0:
		return fs.Result{}, fs.ErrNotEmpty
	}
	t.removeEntry(dir, o.Name, x)
	dir.Nlink--
	t.dropLink(n)
	return done(n)
}

// dropLink takes one name from n, an empty directory's only one; without names
// it is an orphan until Reclaim.
func (t *tx) dropLink(n *inode) {
	if n.IsDir() {
		n.Nlink = 0
	} else {
		n.Nlink--
	}
	t.touch(n)
	if n.Nlink == 0 {
		t.o.put(keyOrphan(n.Ino), orphanRecord{since: t.at}.encode())
	}
}

// reclaim deletes orphans. What is none, or is gone already, is skipped.
func (t *tx) reclaim(o fs.Reclaim) error {
	budget := ReclaimExtentsMax
	for _, ino := range o.Inos {
		if _, ok, err := t.orphan(ino); err != nil {
			return err
		} else if !ok {
			continue
		}
		n, err := t.mustInode(ino)
		if err != nil {
			return err
		}
		if n.removed {
			continue
		}
		whole, err := t.dropExtents(n, &budget)
		if err != nil {
			return err
		}
		t.key(fs.KeyAttr, ino, "")
		t.key(fs.KeyData, ino, "")
		n.changed = true
		if !whole {
			return nil
		}
		if err := t.removeInode(n); err != nil {
			return err
		}
	}
	return nil
}

// dropExtents deletes n's extents as far as the budget goes and tells whether
// it was all of them.
func (t *tx) dropExtents(n *inode, budget *int) (whole bool, err error) {
	if !n.IsRegular() {
		return true, nil
	}
	list, err := t.extents(n.Ino, 0, fs.FileMax)
	if err != nil {
		return false, err
	}
	whole = len(list) <= *budget
	if !whole {
		list = list[:*budget]
	}
	*budget -= len(list)
	for _, x := range list {
		if err := t.removeExtent(n, x); err != nil {
			return false, err
		}
	}
	return whole, nil
}

// removeInode deletes an orphan whose extents are gone.
func (t *tx) removeInode(n *inode) error {
	prefix := keyXattr(n.Ino, "")
	if err := t.deleteRange(prefix, after(prefix)); err != nil {
		return err
	}
	t.o.del(keyOrphan(n.Ino))
	n.removed = true
	t.sys.inodes--
	if n.IsRegular() {
		t.sys.bytes -= n.Size
	}
	return nil
}
