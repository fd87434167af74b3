package fuse

import (
	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wpfs/wpfs/fs"
)

// GetXAttr is getxattr(2). ERANGE with the size asks for a larger buffer; for
// an empty one that is the answer, and go-fuse makes it so.
func (n *node) GetXAttr(_ <-chan struct{}, h *gofuse.InHeader, name string, dest []byte) (uint32, gofuse.Status) {
	n.requests.count(opGetXattr)
	value, err := n.vfs.Xattr(n.ctx, fs.Ino(h.NodeId), name)
	if err != nil {
		return 0, n.faults.status(err)
	}
	if len(value) > len(dest) {
		return uint32(len(value)), gofuse.ERANGE
	}
	return uint32(copy(dest, value)), gofuse.OK
}

// ListXAttr is listxattr(2): the names, each with a zero byte behind it.
func (n *node) ListXAttr(_ <-chan struct{}, h *gofuse.InHeader, dest []byte) (uint32, gofuse.Status) {
	n.requests.count(opListXattr)
	names, err := n.vfs.Xattrs(n.ctx, fs.Ino(h.NodeId), cred(h))
	if err != nil {
		return 0, n.faults.status(err)
	}
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	if len(list) > len(dest) {
		return uint32(len(list)), gofuse.ERANGE
	}
	return uint32(copy(dest, list)), gofuse.OK
}

// SetXAttr is setxattr(2).
func (n *node) SetXAttr(_ <-chan struct{}, in *gofuse.SetXAttrIn, name string, value []byte) gofuse.Status {
	n.requests.count(opSetXattr)
	return n.faults.status(n.vfs.SetXattr(n.ctx, fs.SetXattr{
		Ino: fs.Ino(in.NodeId), Name: name, Value: value, Flags: fs.XattrFlags(in.Flags),
	}))
}

// RemoveXAttr is removexattr(2).
func (n *node) RemoveXAttr(_ <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	n.requests.count(opRemoveXattr)
	return n.faults.status(n.vfs.RemoveXattr(n.ctx, fs.RemoveXattr{Ino: fs.Ino(h.NodeId), Name: name}))
}
