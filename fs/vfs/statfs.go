package vfs

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

// inodesFree is what statfs(2) says is left where no limit is set: inodes are
// numbered with 64 bits and take space only as they are made.
const inodesFree = 1 << 32

// Statfs is what statfs(2) reports, in bytes and inodes.
type Statfs struct {
	Bytes, BytesFree   uint64
	Inodes, InodesFree uint64
}

// Statfs tells the size of the file system: what is used, and what the limits
// and the local disk leave.
func (f *FS) Statfs(ctx context.Context) (Statfs, error) {
	var u fs.Usage
	err := f.look(ctx, func(v fs.View) (err error) {
		u, err = v.Usage()
		return err
	})
	if err != nil {
		return Statfs{}, failure("statfs", fs.RootIno, "", err)
	}
	s := Statfs{BytesFree: f.opt.Free(), InodesFree: inodesFree}
	if u.BytesMax != 0 {
		s.BytesFree = min(s.BytesFree, u.BytesMax-min(u.BytesMax, u.Bytes))
	}
	if u.InodeMax != 0 {
		s.InodesFree = u.InodeMax - min(u.InodeMax, u.Inodes)
	}
	s.Bytes, s.Inodes = u.Bytes+s.BytesFree, u.Inodes+s.InodesFree
	return s, nil
}

// freeBytes is what unprivileged processes may still write to the disk of dir,
// 0 if that cannot be told.
func freeBytes(dir string) uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}
