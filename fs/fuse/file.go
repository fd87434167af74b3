package fuse

import (
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// openFlags tells the kernel how to treat a file opened with flags.
//
// Pages stay from one open to the next: every change takes them away first, and
// each read(2) looks at the attributes, which end with the lease. A read-only
// close needs no FLUSH. An append goes where the log says, while
// the kernel would put the bytes into the page cache where it believes the end
// of file to be; so such files have no page cache. Nor have O_SYNC files: their
// WRITE waits for the cluster, and must not do so with a page locked.
func openFlags(flags uint32) uint32 {
	f := uint32(gofuse.FOPEN_KEEP_CACHE)
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		f |= gofuse.FOPEN_NOFLUSH
	}
	if flags&(unix.O_APPEND|unix.O_SYNC|unix.O_DSYNC) != 0 {
		f |= gofuse.FOPEN_DIRECT_IO
	}
	return f
}

// opened is the common end of the calls that open a file.
func opened(out *gofuse.OpenOut, h vfs.Handle, flags uint32) {
	out.Fh, out.OpenFlags = uint64(h), openFlags(flags)
}

// Open is open(2) of a file that exists. O_TRUNC comes with it
// (ATOMIC_O_TRUNC), so that it is content like the writes that follow.
func (n *node) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n.requests.count(opOpen)
	h, err := n.vfs.Open(n.ctx, fs.Ino(in.NodeId), vfs.OpenFlags{
		Flags: in.Flags, KillSetid: in.Mode&gofuse.OPEN_KILL_SUIDGID != 0,
	})
	if err == nil {
		opened(out, h, in.Flags)
	}
	return n.faults.status(err)
}

// Create is open(2) with O_CREAT of a name that the kernel believes absent.
func (n *node) Create(_ <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	n.requests.count(opCreate)
	return n.make(&out.EntryOut, in.NodeId, name, func(dir fs.Ino) (a fs.Attr, err error) {
		var h vfs.Handle
		a, h, err = n.vfs.Create(n.ctx, fs.Create{
			Parent: dir, Name: name, Mode: in.Mode & fs.ModePerm, Cred: cred(&in.InHeader),
		}, createFlags(in))
		opened(&out.OpenOut, h, in.Flags)
		return a, err
	})
}

// Tmpfile is open(2) with O_TMPFILE.
func (n *node) Tmpfile(_ <-chan struct{}, in *gofuse.CreateIn, out *gofuse.CreateOut) gofuse.Status {
	n.requests.count(opTmpfile)
	a, h, err := n.vfs.Tmpfile(n.ctx, fs.Tmpfile{
		Parent: fs.Ino(in.NodeId), Mode: in.Mode & fs.ModePerm, Cred: cred(&in.InHeader),
	}, createFlags(in))
	if err != nil {
		return n.faults.status(err)
	}
	n.fillEntry(&out.EntryOut, fs.Ino(in.NodeId), "", a)
	opened(&out.OpenOut, h, in.Flags)
	return gofuse.OK
}

func createFlags(in *gofuse.CreateIn) vfs.OpenFlags {
	return vfs.OpenFlags{Flags: in.Flags, KillSetid: in.OpenFlags&gofuse.OPEN_KILL_SUIDGID != 0}
}

// Read is read(2), or the kernel filling its page cache.
func (n *node) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	n.requests.count(opRead)
	n.cache.Reading(fs.Ino(in.NodeId))
	got, err := n.vfs.Read(n.ctx, vfs.Handle(in.Fh), buf, in.Offset)
	if err != nil {
		return nil, n.faults.status(err)
	}
	return inPlace(got), gofuse.OK
}

// inPlace is a result of Read that lies in the buffer of the reply already: so
// many bytes of it.
type inPlace int

// Size implements gofuse.ReadResult.
func (n inPlace) Size() int { return int(n) }

// Bytes implements gofuse.ReadResult.
func (n inPlace) Bytes(buf []byte) ([]byte, gofuse.Status) { return buf[:n], gofuse.OK }

// Readv is what go-fuse's ProtocolServer calls to have the bytes put into dst,
// where they are.
func (n inPlace) Readv([][]byte) (int, gofuse.Status) { return int(n), gofuse.OK }

// Done implements gofuse.ReadResult.
func (n inPlace) Done() {}

// Write is write(2), or with WRITE_CACHE the kernel writing back what was
// changed through a mapping; then the flags of open(2) are not set.
func (n *node) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	n.requests.count(opWrite)
	mapped := in.WriteFlags&gofuse.WRITE_CACHE != 0
	err := n.vfs.Write(n.ctx, vfs.Handle(in.Fh), data, in.Offset, vfs.WriteFlags{
		Append:    in.Flags&unix.O_APPEND != 0 && !mapped,
		Sync:      in.Flags&(unix.O_SYNC|unix.O_DSYNC) != 0 && !mapped,
		KillSetid: in.WriteFlags&gofuse.WRITE_KILL_SUIDGID != 0,
	})
	if err != nil {
		return 0, n.faults.status(err)
	}
	return uint32(len(data)), gofuse.OK
}

// Flush is close(2) of a file that may have been written; the kernel holds no
// page or inode lock while it waits.
func (n *node) Flush(_ <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	n.requests.count(opFlush)
	return n.faults.status(n.vfs.Flush(n.ctx, vfs.Handle(in.Fh)))
}

// Fsync is fsync(2) and fdatasync(2), which are the same here: content and size
// are committed together.
func (n *node) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	n.requests.count(opFsync)
	return n.faults.status(n.vfs.Fsync(n.ctx, vfs.Handle(in.Fh)))
}

// Release comes after the last close of an open file, mappings included.
func (n *node) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	n.requests.count(opRelease)
	n.vfs.Release(vfs.Handle(in.Fh))
}

// Lseek is lseek(2) with SEEK_HOLE or SEEK_DATA.
func (n *node) Lseek(_ <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) gofuse.Status {
	n.requests.count(opLseek)
	off, err := n.vfs.Seek(n.ctx, vfs.Handle(in.Fh), in.Offset, vfs.Whence(in.Whence))
	out.Offset = off
	return n.faults.status(err)
}

// Fallocate is fallocate(2).
func (n *node) Fallocate(_ <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	n.requests.count(opFallocate)
	return n.faults.status(n.vfs.Allocate(vfs.Handle(in.Fh), in.Offset, in.Length, in.Mode))
}

// CopyFileRange is copy_file_range(2). For EOPNOTSUPP the kernel copies by
// reading and writing.
func (n *node) CopyFileRange(_ <-chan struct{}, in *gofuse.CopyFileRangeIn) (uint32, gofuse.Status) {
	n.requests.count(opCopyFileRange)
	if in.Flags != 0 {
		return 0, gofuse.EINVAL
	}
	got, err := n.vfs.Copy(n.ctx, vfs.Handle(in.FhIn), in.OffIn, vfs.Handle(in.FhOut), in.OffOut, in.Len)
	return uint32(got), n.faults.status(err)
}
