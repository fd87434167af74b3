package fuse

import (
	"context"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse/kcache"
	"github.com/wpfs/wpfs/fs/vfs"
)

// blockSize is what stat(2) and statfs(2) report.
const blockSize = 4096

// node answers the kernel's requests. It has no state per inode, and none per
// open file: vfs has the handles, and cache knows what the kernel may keep.
type node struct {
	// ctx is never cancelled: see the package comment.
	ctx      context.Context
	vfs      *vfs.FS
	cache    *kcache.Cache
	settler  *settler
	faults   faults
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
// The kernel keeps nothing yet: see Lookup and made.
func (n *node) fillEntry(out *gofuse.EntryOut, dir fs.Ino, name string, a fs.Attr) {
	n.cache.Refer(a, dir, name)
	out.NodeId, out.Generation = uint64(a.Ino), a.Generation
	fillAttr(&out.Attr, a)
}

// entry answers a call that makes a name.
//
// The kernel takes the attributes of such a reply as they are, whatever it was
// told since they were read (create_new_entry in fs/fuse/dir.c passes no version
// of them), so it may not keep them; it asks once more. Nor does it keep the name
// yet: many files are renamed or removed right away. A directory is worth a look
// whether its name still means the same.
func (n *node) entry(out *gofuse.EntryOut, dir fs.Ino, name string, a fs.Attr, err error) gofuse.Status {
	if err != nil {
		return n.changed(dir, name, err)
	}
	n.fillEntry(out, dir, name, a)
	if a.IsDir() {
		m := n.cache.Begin()
		if found, err := n.vfs.Lookup(n.ctx, dir, name); err == nil && found.Attr.Ino == a.Ino {
			keep, _ := n.cache.Named(m, dir, name, kcache.Directory, found.Keep)
			out.SetEntryTimeout(keep)
		}
	}
	return gofuse.OK
}

// changed is err for the kernel, after a call that changes a name.
func (n *node) changed(dir fs.Ino, name string, err error) gofuse.Status {
	n.doubt(dir, name, err)
	return n.faults.status(err)
}

// doubt sees to it that the kernel does not go on with what it believed of a name
// before, when nobody knows whether a call of its own has changed it.
func (n *node) doubt(dir fs.Ino, name string, err error) {
	if err != nil && fs.KindOf(err) == fs.ErrIO {
		n.cache.Doubt(dir, name)
	}
}

// Lookup finds a name. That it is absent may be kept as well, which the kernel
// does for a success without an inode.
func (n *node) Lookup(_ <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	n.requests.count(opLookup)
	dir := fs.Ino(h.NodeId)
	for try := 0; ; try++ {
		m := n.cache.Begin()
		found, err := n.vfs.Lookup(n.ctx, dir, name)
		a := found.Attr
		absent := err != nil && fs.KindOf(err) == fs.ErrNotFound
		if err != nil && !absent {
			return n.faults.status(err)
		}
		what := kcache.Nothing
		if !absent {
			what = kcache.MeaningOf(a)
			n.fillEntry(out, dir, name, a)
		}
		keep, retry := n.cache.Named(m, dir, name, what, found.Keep)
		if retry && try == 0 {
			if !absent {
				n.cache.Forget(a.Ino, 1)
			}
			continue
		}
		if absent && keep == 0 {
			return gofuse.ENOENT
		}
		if !absent {
			n.cache.Overtaken(m, a.Ino)
		}
		out.SetEntryTimeout(keep)
		if absent {
			out.NodeId = 0
			return gofuse.OK
		}
		if n.cache.Clean(a.Ino) { // this does not wait: the kernel may hold the directory's lock
			out.SetAttrTimeout(n.cache.Known(m, found.KeepAttr))
		}
		return gofuse.OK
	}
}

// Forget takes lookup counts back.
func (n *node) Forget(nodeid, nlookup uint64) {
	n.requests.count(opForget)
	n.cache.Forget(fs.Ino(nodeid), nlookup)
}

// attributes reads what stat(2) shows of an inode, and how long the kernel may keep
// it. It waits until the kernel has dropped the inode's old pages, and until it
// goes on with attributes that are not older than the call (see settle).
func (n *node) attributes(h *gofuse.InHeader) (a fs.Attr, keep time.Duration, err error) {
	ino := fs.Ino(h.NodeId)
	settled := n.cache.Unsettled(ino) != 0 && n.settle(ino, h.Pid)
	for range 2 { // once more if a change came between, which is over by now
		m := n.cache.Begin()
		if a, keep, err = n.vfs.Attr(n.ctx, ino); err != nil {
			return a, 0, err
		}
		n.cache.AwaitPages(ino)
		if keep = n.cache.Known(m, keep); keep > 0 {
			break
		}
	}
	if settled { // the kernel has newer ones to keep already, and ignores these
		keep = 0
	}
	return a, keep, nil
}

// GetAttr is stat(2).
func (n *node) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n.requests.count(opGetAttr)
	a, keep, err := n.attributes(&in.InHeader)
	if err != nil {
		return n.faults.status(err)
	}
	out.SetTimeout(keep)
	fillAttr(&out.Attr, a)
	return gofuse.OK
}

// Statx is statx(2) when the birth time is asked for.
func (n *node) Statx(_ <-chan struct{}, in *gofuse.StatxIn, out *gofuse.StatxOut) gofuse.Status {
	n.requests.count(opStatx)
	a, keep, err := n.attributes(&in.InHeader)
	if err != nil {
		return n.faults.status(err)
	}
	out.SetTimeout(keep)
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

// SetAttr is chmod, chown, truncate, ftruncate and utimensat. The kernel takes
// the attributes of the reply whatever it was told meanwhile (fuse_do_setattr),
// so it may not keep them.
func (n *node) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n.requests.count(opSetAttr)
	defer n.lock(fs.Ino(in.NodeId))()
	a, err := n.vfs.SetAttr(n.ctx, setAttr(in))
	if err != nil {
		return n.faults.status(err)
	}
	// Nor does it wait for pages: those may wait for this very answer (a truncate
	// stops the write-back of mapped pages, fuse_set_nowrite).
	fillAttr(&out.Attr, a)
	return gofuse.OK
}

// lock tells the cache that the kernel holds ino's lock until the call that has
// just come is answered; unlock is for the end of it.
func (n *node) lock(ino fs.Ino) (unlock func()) {
	n.cache.Locks(ino)
	return func() { n.cache.Unlocks(ino) }
}

// mutate runs change, which changes what name means in dir.
func (n *node) mutate(dir fs.Ino, name string, change func() error) error {
	n.cache.Mutating(dir, name)
	defer n.cache.Mutated(dir, name)
	return change()
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
