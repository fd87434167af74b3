package meta

import (
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// checkName tells whether name may be a directory entry.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fs.ErrInvalid
	case len(name) > fs.NameMax:
		return fs.ErrNameTooLong
	}
	return nil
}

// findDir returns a directory in which name may stand.
func (t *tx) findDir(dir fs.Ino, name string) (*inode, error) {
	d, err := t.liveDir(dir)
	if err != nil {
		return nil, err
	}
	return d, checkName(name)
}

// freeName returns a directory that has no entry name.
func (t *tx) freeName(dir fs.Ino, name string) (*inode, error) {
	d, err := t.findDir(dir, name)
	if err != nil {
		return nil, err
	}
	_, ok, err := t.entry(dir, name)
	if err == nil && ok {
		err = fs.ErrExist
	}
	return d, err
}

// newInode makes an inode that belongs to cred, or to the group of a set-gid
// directory.
func (t *tx) newInode(dir *inode, mode uint32, cred fs.Cred) (*inode, error) {
	if err := t.chargeInode(); err != nil {
		return nil, err
	}
	n := &inode{Attr: fs.Attr{
		Ino: t.sys.nextIno, Generation: uint64(t.at), Mode: mode, Uid: cred.Uid, Gid: cred.Gid, Nlink: 1,
		Atime: t.now, Mtime: t.now, Ctime: t.now, Btime: t.now, Version: t.at,
	}, changed: true, touched: true}
	t.sys.nextIno++
	inheritGroup(n, dir, cred)
	t.inodes[n.Ino] = n
	t.key(fs.KeyAttr, n.Ino, "")
	return n, nil
}

// inheritGroup applies the set-gid rule: what is made in a set-gid directory
// belongs to its group; a directory becomes set-gid itself; an executable file
// must not become set-gid for a group its maker is not in. Supplementary groups
// are not known here, so a maker who is in the group only by them loses the bit,
// which is the safe side.
func inheritGroup(n, dir *inode, cred fs.Cred) {
	if dir.Mode&fs.ModeSetgid == 0 {
		return
	}
	n.Gid = dir.Gid
	const setgidExec = fs.ModeSetgid | 0o010
	if n.IsDir() {
		n.Mode |= fs.ModeSetgid
	} else if n.Mode&setgidExec == setgidExec && cred.Uid != 0 && cred.Gid != n.Gid {
		n.Mode &^= fs.ModeSetgid
	}
}

// addEntry makes a name for n in dir. The name is free.
func (t *tx) addEntry(dir *inode, name string, n *inode) {
	t.setEntry(dir, name, entryRecord{n.Ino, n.Mode & fs.ModeType, dir.nextCookie})
	dir.nextCookie++
	dir.entries++
}

// setEntry writes both copies of a directory entry.
func (t *tx) setEntry(dir *inode, name string, x entryRecord) {
	t.o.put(keyEntry(dir.Ino, name), x.encode())
	t.o.put(keyListing(dir.Ino, x.cookie), encodeListing(name, x))
	t.key(fs.KeyName, dir.Ino, name)
	t.touchDir(dir)
}

// removeEntry deletes both copies of a directory entry.
func (t *tx) removeEntry(dir *inode, name string, x entryRecord) {
	t.o.del(keyEntry(dir.Ino, name))
	t.o.del(keyListing(dir.Ino, x.cookie))
	dir.entries--
	t.key(fs.KeyName, dir.Ino, name)
	t.touchDir(dir)
}

func (t *tx) create(o fs.Create) (fs.Result, error) {
	dir, err := t.findDir(o.Parent, o.Name)
	if err != nil {
		return fs.Result{}, err
	}
	x, ok, err := t.entry(o.Parent, o.Name)
	if err != nil {
		return fs.Result{}, err
	}
	if ok {
		return t.createExisting(o, x)
	}
	n, err := t.newInode(dir, fs.ModeRegular|o.Mode&fs.ModePerm, o.Cred)
	if err != nil {
		return fs.Result{}, err
	}
	t.addEntry(dir, o.Name, n)
	return done(n)
}

func (t *tx) createExisting(o fs.Create, x entryRecord) (fs.Result, error) {
	switch {
	case o.Excl:
		return fs.Result{}, fs.ErrExist
	case x.typ == fs.ModeDir:
		return fs.Result{}, fs.ErrIsDir
	case x.typ != fs.ModeRegular:
		return fs.Result{}, fs.ErrExist
	}
	n, err := t.mustInode(x.ino)
	if err != nil {
		return fs.Result{}, err
	}
	return fs.Result{Attr: n.Attr, Existed: true}, nil
}

func (t *tx) mkdir(o fs.Mkdir) (fs.Result, error) {
	dir, err := t.freeName(o.Parent, o.Name)
	if err != nil {
		return fs.Result{}, err
	}
	if dir.Nlink >= fs.LinkMax {
		return fs.Result{}, fs.ErrTooManyLinks
	}
	// As mkdir(2): set-id bits are not the caller's to give.
	n, err := t.newInode(dir, fs.ModeDir|o.Mode&0o1777, o.Cred)
	if err != nil {
		return fs.Result{}, err
	}
	n.Nlink, n.Size = 2, dirSize
	n.parent, n.nextCookie = dir.Ino, firstCookie
	dir.Nlink++
	t.addEntry(dir, o.Name, n)
	return done(n)
}

func (t *tx) mknod(o fs.Mknod) (fs.Result, error) {
	mode, rdev := o.Mode&(fs.ModeType|fs.ModePerm), uint32(0)
	switch mode & fs.ModeType {
	case 0:
		mode |= fs.ModeRegular
	case fs.ModeChar, fs.ModeBlock:
		rdev = o.Rdev
	case fs.ModeRegular, fs.ModeFifo, fs.ModeSocket:
	case fs.ModeDir:
		return fs.Result{}, fs.ErrPermission
	default:
		return fs.Result{}, fs.ErrInvalid
	}
	dir, err := t.freeName(o.Parent, o.Name)
	if err != nil {
		return fs.Result{}, err
	}
	n, err := t.newInode(dir, mode, o.Cred)
	if err != nil {
		return fs.Result{}, err
	}
	n.Rdev = rdev
	t.addEntry(dir, o.Name, n)
	return done(n)
}

func (t *tx) symlink(o fs.Symlink) (fs.Result, error) {
	dir, err := t.freeName(o.Parent, o.Name)
	switch {
	case err != nil:
		return fs.Result{}, err
	case o.Target == "":
		return fs.Result{}, fs.ErrNotFound
	case len(o.Target) > fs.SymlinkMax:
		return fs.Result{}, fs.ErrNameTooLong
	case strings.Contains(o.Target, "\x00"):
		return fs.Result{}, fs.ErrInvalid
	}
	n, err := t.newInode(dir, fs.ModeSymlink|0o777, o.Cred)
	if err != nil {
		return fs.Result{}, err
	}
	n.target, n.Size = o.Target, uint64(len(o.Target))
	t.addEntry(dir, o.Name, n)
	return done(n)
}

func (t *tx) tmpfile(o fs.Tmpfile) (fs.Result, error) {
	dir, err := t.liveDir(o.Parent)
	if err != nil {
		return fs.Result{}, err
	}
	n, err := t.newInode(dir, fs.ModeRegular|o.Mode&fs.ModePerm, o.Cred)
	if err != nil {
		return fs.Result{}, err
	}
	n.Nlink = 0
	t.o.put(keyOrphan(n.Ino), orphanRecord{t.at, true}.encode())
	return done(n)
}

func (t *tx) link(o fs.Link) (fs.Result, error) {
	dir, err := t.freeName(o.Parent, o.Name)
	if err != nil {
		return fs.Result{}, err
	}
	n, err := t.fileInode(o.Ino)
	switch {
	case err != nil:
		return fs.Result{}, err
	case n.IsDir():
		return fs.Result{}, fs.ErrPermission
	case n.Nlink >= fs.LinkMax:
		return fs.Result{}, fs.ErrTooManyLinks
	}
	if n.Nlink == 0 {
		x, _, err := t.orphan(n.Ino)
		if err != nil {
			return fs.Result{}, err
		}
		if !x.tmpfile {
			return fs.Result{}, fs.ErrNotFound
		}
		t.o.del(keyOrphan(n.Ino))
	}
	n.Nlink++
	t.touch(n)
	t.addEntry(dir, o.Name, n)
	return done(n)
}
