package meta

import (
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// Limits of what only this package sees.
const (
	NodeIDMax = 255 // bytes in a node's name
	UUIDMax   = 64  // bytes in a cluster's name
	// ReclaimExtentsMax bounds the work of one Reclaim: an orphan with more
	// extents stays one, shorter by so many, and is named again by the leader.
	ReclaimExtentsMax = 65536
)

// validTime tells whether t is a time.
func validTime(t fs.Time) bool { return t.Nsec < 1_000_000_000 }

// exec applies one operation. The error is an fs.Kind if it is refused.
func (t *tx) exec(op fs.Op) (fs.Result, error) {
	if !validTime(t.now) {
		return fs.Result{}, fs.ErrInvalid
	}
	switch o := op.(type) {
	case fs.Create:
		return t.create(o)
	case fs.Mkdir:
		return t.mkdir(o)
	case fs.Mknod:
		return t.mknod(o)
	case fs.Symlink:
		return t.symlink(o)
	case fs.Tmpfile:
		return t.tmpfile(o)
	case fs.Link:
		return t.link(o)
	case fs.Unlink:
		return t.unlink(o)
	case fs.Rmdir:
		return t.rmdir(o)
	case fs.Rename:
		return t.rename(o)
	case fs.SetAttr:
		return t.setAttr(o)
	case fs.SetXattr:
		return t.setXattr(o)
	case fs.RemoveXattr:
		return t.removeXattr(o)
	case fs.Publish:
		return t.publish(o)
	case fs.Append:
		return t.append(o)
	}
	return fs.Result{}, t.execCluster(op)
}

// execCluster applies the operations that the cluster itself proposes.
func (t *tx) execCluster(op fs.Op) error {
	switch o := op.(type) {
	case fs.OpenSession:
		return t.openSession(o)
	case fs.ExpireSession:
		return t.expireSession(o)
	case fs.Reclaim:
		return t.reclaim(o)
	case fs.MarkDurable:
		return t.markDurable(o)
	case fs.StorePack:
		return t.storePack(o)
	case fs.Condemn:
		return t.condemn(o)
	case fs.Forget:
		return t.forgetGarbage(o)
	case fs.MarkLost:
		return t.markLost(o)
	case fs.SetLimits:
		t.sys.bytesMax, t.sys.inodeMax = o.BytesMax, o.InodeMax
		return nil
	case fs.InitCluster:
		return t.initCluster(o)
	case fs.Barrier:
		return nil
	case fs.RecordShipped:
		return t.recordShipped(o)
	case fs.AdoptCluster:
		return t.adoptCluster(o)
	case fs.SetSetting:
		return t.setSetting(o)
	}
	return &VersionError{What: fmt.Sprintf("operation %T", op)}
}

func (t *tx) initCluster(o fs.InitCluster) error {
	if o.UUID == "" || len(o.UUID) > UUIDMax {
		return fs.ErrInvalid
	}
	_, ok, err := t.o.Get(keyUUID)
	if err == nil && !ok {
		t.o.put(keyUUID, encodeBlob([]byte(o.UUID)))
	}
	return err
}

// done is the result of an operation on n.
func done(n *inode) (fs.Result, error) { return fs.Result{Attr: n.Attr}, nil }
