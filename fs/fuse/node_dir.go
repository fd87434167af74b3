package fuse

import (
	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wpfs/wpfs/fs"
)

// Mkdir is mkdir(2).
func (n *node) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	n.requests.count(opMkdir)
	return n.make(out, in.NodeId, name, func(dir fs.Ino) (fs.Attr, error) {
		return n.vfs.Mkdir(n.ctx, fs.Mkdir{Parent: dir, Name: name, Mode: in.Mode & fs.ModePerm, Cred: cred(&in.InHeader)})
	})
}

// Mknod is mknod(2).
func (n *node) Mknod(_ <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	n.requests.count(opMknod)
	return n.make(out, in.NodeId, name, func(dir fs.Ino) (fs.Attr, error) {
		return n.vfs.Mknod(n.ctx, fs.Mknod{Parent: dir, Name: name, Mode: in.Mode, Rdev: in.Rdev, Cred: cred(&in.InHeader)})
	})
}

// Symlink is symlink(2).
func (n *node) Symlink(_ <-chan struct{}, h *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	n.requests.count(opSymlink)
	return n.make(out, h.NodeId, name, func(dir fs.Ino) (fs.Attr, error) {
		return n.vfs.Symlink(n.ctx, fs.Symlink{Parent: dir, Name: name, Target: target, Cred: cred(h)})
	})
}

// Link is link(2).
func (n *node) Link(_ <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	n.requests.count(opLink)
	return n.make(out, in.NodeId, name, func(dir fs.Ino) (fs.Attr, error) {
		return n.vfs.Link(n.ctx, fs.Link{Ino: fs.Ino(in.Oldnodeid), Parent: dir, Name: name})
	})
}

// make answers a call that makes name in the directory nodeid.
func (n *node) make(out *gofuse.EntryOut, nodeid uint64, name string, call func(dir fs.Ino) (fs.Attr, error)) gofuse.Status {
	dir := fs.Ino(nodeid)
	defer n.lock(dir)()
	var a fs.Attr
	err := n.mutate(dir, name, func() (err error) {
		a, err = call(dir)
		return err
	})
	return n.entry(out, dir, name, a, err)
}

// Unlink is unlink(2).
func (n *node) Unlink(_ <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	n.requests.count(opUnlink)
	dir := fs.Ino(h.NodeId)
	defer n.lock(dir)()
	return n.changed(dir, name, n.mutate(dir, name, func() error {
		return n.vfs.Unlink(n.ctx, fs.Unlink{Parent: dir, Name: name, Cred: cred(h)})
	}))
}

// Rmdir is rmdir(2).
func (n *node) Rmdir(_ <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	n.requests.count(opRmdir)
	dir := fs.Ino(h.NodeId)
	defer n.lock(dir)()
	return n.changed(dir, name, n.mutate(dir, name, func() error {
		return n.vfs.Rmdir(n.ctx, fs.Rmdir{Parent: dir, Name: name, Cred: cred(h)})
	}))
}

// Rename is renameat2(2).
func (n *node) Rename(_ <-chan struct{}, in *gofuse.RenameIn, oldName, newName string) gofuse.Status {
	n.requests.count(opRename)
	from, to := fs.Ino(in.NodeId), fs.Ino(in.Newdir)
	defer n.lock(from)()
	defer n.lock(to)()
	err := n.mutate(from, oldName, func() error {
		return n.mutate(to, newName, func() error {
			return n.vfs.Rename(n.ctx, fs.Rename{
				Parent: from, Name: oldName, NewParent: to, NewName: newName,
				Flags: fs.RenameFlags(in.Flags), Cred: cred(&in.InHeader),
			})
		})
	})
	n.doubt(to, newName, err)
	return n.changed(from, oldName, err)
}

// Readlink is readlink(2).
func (n *node) Readlink(_ <-chan struct{}, h *gofuse.InHeader) ([]byte, gofuse.Status) {
	n.requests.count(opReadlink)
	target, err := n.vfs.Readlink(n.ctx, fs.Ino(h.NodeId))
	return []byte(target), n.faults.status(err)
}

// OpenDir is refused once, and never asked for again: then the kernel opens
// directories by itself, and keeps listings for as long as the directory's mtime
// is the same (fuse_file_open and fuse_readdir_cached). Nothing is lost: READDIR
// needs no handle, and a removed directory that is in use stays, see Pinned.
func (n *node) OpenDir(<-chan struct{}, *gofuse.OpenIn, *gofuse.OpenOut) gofuse.Status {
	n.requests.count(opOpenDir)
	return gofuse.ENOSYS
}

// ReadDir is getdents(2). The offset of an entry is its cookie, so that a
// listing goes on rightly after other entries came and went.
func (n *node) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	n.requests.count(opReadDir)
	n.cache.Reading(fs.Ino(in.NodeId))
	return n.faults.status(n.vfs.ReadDir(n.ctx, fs.Ino(in.NodeId), in.Offset, func(e fs.Entry) bool {
		return out.AddDirEntry(gofuse.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: e.Type, Off: e.Cookie})
	}))
}

// ReleaseDir never comes: see OpenDir.
func (n *node) ReleaseDir(*gofuse.ReleaseIn) {}

// FsyncDir has nothing to do: name operations are in the log, and the log is
// fsynced, before they return.
func (n *node) FsyncDir(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status {
	n.requests.count(opFsyncDir)
	return gofuse.OK
}
