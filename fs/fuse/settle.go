package fuse

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

// settler makes the kernel take an inode's attributes anew, by asking for them as
// any user of the mount would. There is no notification that brings attributes;
// package kcache (unsettled) tells why they are needed.
type settler struct {
	dir   string
	minor uint32 // device number of the mount
	log   *slog.Logger

	threads sync.Map // int: threads that ask
	denied  atomic.Bool
}

// mine tells whether a request is the settler's own; pid is a thread's.
func (s *settler) mine(pid uint32) bool {
	_, is := s.threads.Load(int(pid))
	return is
}

// ask sends a GETATTR for ino and returns when the kernel has taken the answer. It
// blocks while the kernel drops pages that do not go with the new size.
func (s *settler) ask(ino fs.Ino, generation uint64) error {
	if s.denied.Load() {
		return unix.EPERM
	}
	done := make(chan error, 1)
	go func() { // on a thread of its own: the kernel names the thread in the request
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid := unix.Gettid()
		s.threads.Store(tid, nil)
		defer s.threads.Delete(tid)
		done <- s.stat(ino, generation)
	}()
	err := <-done
	if errors.Is(err, unix.EPERM) && !s.denied.Swap(true) {
		s.log.Warn("inodes cannot be opened by their number, so a read that waits while its file is changed twice "+
			"may end at the old length; give the agent the capability CAP_DAC_READ_SEARCH", "dir", s.dir)
	}
	return err
}

func (s *settler) stat(ino fs.Ino, generation uint64) error {
	// Not kept open: a mount with an open file cannot be unmounted. Not O_PATH:
	// open_by_handle_at(2) refuses that.
	root, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	var st unix.Statx_t
	if err := unix.Statx(root, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return err
	}
	if st.Dev_major != 0 || st.Dev_minor != s.minor {
		return unix.ESTALE // something else is mounted over it
	}
	fd := root
	if ino != fs.RootIno {
		if fd, err = unix.OpenByHandleAt(root, fileHandle(ino, generation), unix.O_PATH|unix.O_CLOEXEC); err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
	}
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
}

// fileHandle is what FUSE exports an inode as: FILEID_INO64_GEN of
// include/linux/exportfs.h, as fuse_encode_fh in fs/fuse/inode.c fills it.
func fileHandle(ino fs.Ino, generation uint64) unix.FileHandle {
	const ino64Gen = 0x81
	var b [12]byte
	binary.NativeEndian.PutUint32(b[:], uint32(ino>>32))
	binary.NativeEndian.PutUint32(b[4:], uint32(ino))
	binary.NativeEndian.PutUint32(b[8:], uint32(generation))
	return unix.NewFileHandle(ino64Gen, b[:])
}

// settle sees to it that the kernel goes on with attributes that are not older
// than the request that is being answered. No caller holds anything that a change
// waits for; see attributes.
func (n *node) settle(ino fs.Ino) {
	a, _, err := n.vfs.Attr(n.ctx, ino)
	if err != nil {
		return // the answer will say so
	}
	n.spare() // somebody has to answer the settler
	for {
		n.cache.AwaitPages(ino) // what is asked for would wait for them, and be asked in vain
		mark := n.cache.Unsettled(ino)
		if mark == 0 || n.settler.ask(ino, a.Generation) != nil || n.cache.Settled(ino, mark) {
			return
		}
	}
}
