package fuse

import (
	"context"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// blockSize is what stat(2) and statfs(2) report.
const blockSize = 4096

// node answers the kernel's requests. It has no state per inode but the lookup
// counts, and none per open file: vfs has the handles.
type node struct {
	// ctx is never cancelled: see the package comment.
	ctx      context.Context
	vfs      *vfs.FS
	faults   faults
	lookups  counts
	requests requestCounts
}

func cred(h *gofuse.InHeader) fs.Cred { return fs.Cred{Uid: h.Uid, Gid: h.Gid} }

// fillAttr is a in the kernel's words.
func fillAttr(out *gofuse.Attr, a fs.Attr) {
	*out = gofuse.Attr{
		Ino: uint64(a.Ino), Size: a.Size, Blocks: (a.Bytes + 511) / 512,
		Atime: uint64(a.Atime.Sec), Atimensec: a.Atime.Nsec,
		Mtime: uint64(a.Mtime.Sec), Mtimensec: a.Mtime.Nsec,
		Ctime: uint64(a.Ctime.Sec), Ctimensec: a.Ctime.Nsec,
		Mode: a.Mode, Nlink: a.Nlink,
		Owner: gofuse.Owner{Uid: a.Uid, Gid: a.Gid},
		Rdev:  a.Rdev, Blksize: blockSize,
	}
}

// fillEntry names an inode to the kernel, which from now on holds a reference.
func (n *node) fillEntry(out *gofuse.EntryOut, a fs.Attr) {
	n.lookups.add(uint64(a.Ino))
	out.NodeId, out.Generation = uint64(a.Ino), a.Generation
	out.SetEntryTimeout(0)
	out.SetAttrTimeout(0)
	fillAttr(&out.Attr, a)
}

// entry is the common end of the calls that make or find an inode.
func (n *node) entry(out *gofuse.EntryOut, a fs.Attr, err error) gofuse.Status {
	if err == nil {
		n.fillEntry(out, a)
	}
	return n.faults.status(err)
}

// Lookup finds a name. An absent one is ENOENT, which the kernel does not cache.
func (n *node) Lookup(_ <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	n.requests.count(opLookup)
	found, err := n.vfs.Lookup(n.ctx, fs.Ino(h.NodeId), name)
	return n.entry(out, found.Attr, err)
}

// Forget takes lookup counts back.
func (n *node) Forget(nodeid, nlookup uint64) {
	n.requests.count(opForget)
	n.lookups.sub(nodeid, nlookup)
}

// GetAttr is stat(2).
func (n *node) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n.requests.count(opGetAttr)
	a, _, err := n.vfs.Attr(n.ctx, fs.Ino(in.NodeId))
	return n.attr(out, a, err)
}

func (n *node) attr(out *gofuse.AttrOut, a fs.Attr, err error) gofuse.Status {
	if err == nil {
		out.SetTimeout(0)
		fillAttr(&out.Attr, a)
	}
	return n.faults.status(err)
}

// Statx is statx(2) when the birth time is asked for.
func (n *node) Statx(_ <-chan struct{}, in *gofuse.StatxIn, out *gofuse.StatxOut) gofuse.Status {
	n.requests.count(opStatx)
	a, _, err := n.vfs.Attr(n.ctx, fs.Ino(in.NodeId))
	if err != nil {
		return n.faults.status(err)
	}
	out.SetTimeout(0)
	out.Statx = gofuse.Statx{
		Mask:    unix.STATX_BASIC_STATS | unix.STATX_BTIME,
		Blksize: blockSize, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid, Mode: uint16(a.Mode),
		Ino: uint64(a.Ino), Size: a.Size, Blocks: (a.Bytes + 511) / 512,
		Atime: sxTime(a.Atime), Btime: sxTime(a.Btime), Ctime: sxTime(a.Ctime), Mtime: sxTime(a.Mtime),
		// The kernel's new_encode_dev, undone.
		RdevMajor: a.Rdev >> 8 & 0xfff,
		RdevMinor: a.Rdev&0xff | a.Rdev>>12&0xfff00,
	}
	return gofuse.OK
}

func sxTime(t fs.Time) gofuse.SxTime { return gofuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} }

// SetAttr is chmod, chown, truncate, ftruncate and utimensat.
func (n *node) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n.requests.count(opSetAttr)
	a, err := n.vfs.SetAttr(n.ctx, setAttr(in))
	return n.attr(out, a, err)
}

func setAttr(in *gofuse.SetAttrIn) vfs.SetAttr {
	q := vfs.SetAttr{SetAttr: fs.SetAttr{
		Ino: fs.Ino(in.NodeId), Mode: in.Mode & fs.ModePerm, Uid: in.Uid, Gid: in.Gid, Size: in.Size,
		Atime: fs.Time{Sec: int64(in.Atime), Nsec: in.Atimensec},
		Mtime: fs.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec},
		Cred:  cred(&in.InHeader),
	}}
	for _, m := range []struct {
		valid uint32
		mask  fs.AttrMask
	}{
		{gofuse.FATTR_MODE, fs.SetMode}, {gofuse.FATTR_UID, fs.SetUid}, {gofuse.FATTR_GID, fs.SetGid},
		{gofuse.FATTR_SIZE, fs.SetSize}, {gofuse.FATTR_ATIME, fs.SetAtime}, {gofuse.FATTR_MTIME, fs.SetMtime},
		{gofuse.FATTR_KILL_SUIDGID, fs.KillSetid},
	} {
		if in.Valid&m.valid != 0 {
			q.Mask |= m.mask
		}
	}
	q.AtimeNow = in.Valid&gofuse.FATTR_ATIME_NOW != 0
	q.MtimeNow = in.Valid&gofuse.FATTR_MTIME_NOW != 0
	if in.Valid&gofuse.FATTR_FH != 0 {
		q.Handle = vfs.Handle(in.Fh)
	}
	return q
}

// Access never comes while the kernel checks permissions itself.
func (n *node) Access(<-chan struct{}, *gofuse.AccessIn) gofuse.Status { return gofuse.OK }

// Ioctl knows none.
func (n *node) Ioctl(<-chan struct{}, *gofuse.IoctlIn, []byte, *gofuse.IoctlOut, []byte) gofuse.Status {
	return gofuse.Status(unix.ENOTTY)
}

// StatFs is statfs(2).
func (n *node) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	n.requests.count(opStatFs)
	s, err := n.vfs.Statfs(n.ctx)
	if err != nil {
		return n.faults.status(err)
	}
	const round = blockSize - 1
	*out = gofuse.StatfsOut{
		Blocks: (s.Bytes + round) / blockSize, Bfree: s.BytesFree / blockSize, Bavail: s.BytesFree / blockSize,
		Files: s.Inodes, Ffree: s.InodesFree,
		Bsize: blockSize, Frsize: blockSize, NameLen: fs.NameMax,
	}
	return gofuse.OK
}
