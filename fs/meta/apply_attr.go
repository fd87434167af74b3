package meta

import (
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// clockSlack is how far apart the clocks of two healthy nodes may be. A file
// whose mtime is further ahead of the proposer's clock got it by utimensat.
const clockSlack = 10

const knownMask = fs.SetMode | fs.SetUid | fs.SetGid | fs.SetSize | fs.SetAtime | fs.SetMtime | fs.KillSetid

func (t *tx) setAttr(o fs.SetAttr) (fs.Result, error) {
	n, err := t.fileInode(o.Ino)
	if err == nil {
		err = t.applyAttr(n, &o)
	}
	if err != nil {
		return fs.Result{}, err
	}
	return done(n)
}

// applyAttr changes attributes in the order in which one system call each would
// leave this result: size, owner, mode, times.
func (t *tx) applyAttr(n *inode, o *fs.SetAttr) error {
	if err := checkAttr(n, o); err != nil {
		return err
	}
	if o.Mask == 0 {
		return nil
	}
	if o.Mask&fs.SetSize != 0 {
		if err := t.truncate(n, o.Size); err != nil {
			return err
		}
	}
	chown := o.Mask&(fs.SetUid|fs.SetGid) != 0
	if o.Mask&fs.KillSetid != 0 || chown && o.Cred.Uid != 0 {
		killSetid(n)
	}
	if o.Mask&fs.SetUid != 0 {
		n.Uid = o.Uid
	}
	if o.Mask&fs.SetGid != 0 {
		n.Gid = o.Gid
	}
	if o.Mask&fs.SetMode != 0 {
		n.Mode = n.Mode&fs.ModeType | o.Mode&fs.ModePerm
	}
	if o.Mask&fs.SetAtime != 0 {
		n.Atime = o.Atime
	}
	if o.Mask&fs.SetMtime != 0 {
		n.Mtime = o.Mtime
		if n.IsDir() {
			// A kernel takes its cached listing for good while the directory's mtime
			// is the one it knows, and this may be an mtime of long ago.
			t.key(fs.KeyList, n.Ino, "")
		}
	}
	t.touch(n)
	return nil
}

func checkAttr(n *inode, o *fs.SetAttr) error {
	switch {
	case o.Mask&^knownMask != 0,
		o.Mask&fs.SetAtime != 0 && !validTime(o.Atime),
		o.Mask&fs.SetMtime != 0 && !validTime(o.Mtime):
		return fs.ErrInvalid
	case o.Mask&fs.SetMode != 0 && n.IsSymlink():
		return fs.ErrNotSupported
	}
	return nil
}

// killSetid clears set-uid, and set-gid unless it means mandatory locking (no
// execution by the group), as Linux does when a file changes hands or content.
func killSetid(n *inode) {
	if n.IsDir() {
		return
	}
	n.Mode &^= fs.ModeSetuid
	if n.Mode&0o010 != 0 {
		n.Mode &^= fs.ModeSetgid
	}
}

func (t *tx) truncate(n *inode, size uint64) error {
	if err := regular(n); err != nil {
		return err
	}
	before := n.Size
	if err := t.resize(n, size); err != nil {
		return err
	}
	t.contentChanged(n, t.now)
	return t.chargeBytes(before, size)
}

// contentChanged says that n's content changed at mtime. The new mtime differs
// from the old one whatever the clocks say, because caches compare it (PHP's
// opcache does); it is later than the old one unless that was set into the
// future on purpose.
func (t *tx) contentChanged(n *inode, mtime fs.Time) {
	future := t.now
	if future.Sec += clockSlack; future.Sec < t.now.Sec {
		future = t.now // the clock stands at the end of time
	}
	if mtime == n.Mtime || mtime.Before(n.Mtime) && !future.Before(n.Mtime) {
		mtime = n.Mtime.Next()
	}
	n.Mtime = mtime
	n.Version = t.at
	t.touch(n)
	t.key(fs.KeyData, n.Ino, "")
}

func (t *tx) setXattr(o fs.SetXattr) (fs.Result, error) {
	n, err := t.fileInode(o.Ino)
	if err == nil {
		err = checkXattr(o.Name, len(o.Value))
	}
	if err == nil && o.Flags&^(fs.XattrCreate|fs.XattrReplace) != 0 {
		err = fs.ErrInvalid
	}
	if err != nil {
		return fs.Result{}, err
	}
	_, have, err := t.xattr(o.Ino, o.Name)
	switch {
	case err != nil:
		return fs.Result{}, err
	case have && o.Flags&fs.XattrCreate != 0:
		return fs.Result{}, fs.ErrExist
	case !have && o.Flags&fs.XattrReplace != 0:
		return fs.Result{}, fs.ErrNoXattr
	}
	sum := len(o.Name) + len(o.Value)
	err = t.xattrs(o.Ino, func(name string, size int) {
		if name != o.Name {
			sum += len(name) + size
		}
	})
	if err == nil && sum > fs.XattrSumMax {
		err = fs.ErrNoSpace
	}
	if err != nil {
		return fs.Result{}, err
	}
	t.o.put(keyXattr(o.Ino, o.Name), encodeBlob(o.Value))
	t.touch(n)
	return done(n)
}

func checkXattr(name string, size int) error {
	switch {
	case name == "" || len(name) > fs.NameMax || size > fs.XattrMax:
		return fs.ErrRange
	case strings.Contains(name, "\x00"):
		return fs.ErrInvalid
	}
	return nil
}

func (t *tx) removeXattr(o fs.RemoveXattr) (fs.Result, error) {
	n, err := t.fileInode(o.Ino)
	if err == nil {
		err = checkXattr(o.Name, 0)
	}
	if err != nil {
		return fs.Result{}, err
	}
	_, have, err := t.xattr(o.Ino, o.Name)
	if err == nil && !have {
		err = fs.ErrNoXattr
	}
	if err != nil {
		return fs.Result{}, err
	}
	t.o.del(keyXattr(o.Ino, o.Name))
	t.touch(n)
	return done(n)
}
