package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

// The asker is a process of its own. A thread that waits in the kernel for an answer
// of its own process cannot be killed, and keeps the process's descriptors: after a
// kill -9 the connection would never end. It has no descriptor of the mount, and ends
// with the agent, because then its socket does.

const (
	askFD      = 3 // the socket
	askThreads = 4
	// askSize is the size of both messages: number, inode, generation, minor device
	// number, and the directory's path behind that; and number, errno, taken.
	askHead  = 28
	askReply = 16
	askMax   = askHead + unix.PathMax
)

// Ask is the main program of the process that an Options.Asker starts. It returns
// when the agent has ended.
func Ask() error {
	tids := make(chan int, askThreads)
	hello := make(chan struct{})
	var threads sync.WaitGroup
	for range askThreads {
		threads.Go(func() {
			runtime.LockOSThread() // the kernel names the thread in the request
			tids <- unix.Gettid()
			<-hello
			serveAsk()
		})
	}
	var msg []byte
	for range askThreads {
		msg = binary.NativeEndian.AppendUint32(msg, uint32(<-tids))
	}
	_, err := unix.Write(askFD, msg)
	close(hello)
	if err != nil {
		return fmt.Errorf("greet the agent: %w", err)
	}
	threads.Wait()
	return nil
}

// serveAsk answers questions until there is nobody to ask them.
func serveAsk() {
	buf := make([]byte, askMax)
	for {
		n, err := unix.Read(askFD, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n < askHead:
			return
		}
		q := buf[:n]
		taken, err := askKernel(fs.Ino(binary.NativeEndian.Uint64(q[8:])), binary.NativeEndian.Uint64(q[16:]),
			binary.NativeEndian.Uint32(q[24:]), string(q[askHead:]))
		reply := make([]byte, askReply)
		copy(reply, q[:8])
		var errno unix.Errno
		if errors.As(err, &errno) {
			binary.NativeEndian.PutUint32(reply[8:], uint32(errno))
		}
		if taken {
			reply[12] = 1
		}
		if _, err := unix.Write(askFD, reply); err != nil {
			return
		}
	}
}

// askKernel sends a GETATTR, and looks whether the kernel has taken the answer: it
// does not if anything else changed the inode's attributes in between.
func askKernel(ino fs.Ino, generation uint64, minor uint32, dir string) (taken bool, err error) {
	// Not kept open: a mount with an open file cannot be unmounted. Not O_PATH:
	// open_by_handle_at(2) refuses that.
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(root) }()
	var told, kept unix.Statx_t
	const known = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(root, "", known, unix.STATX_INO, &kept); err != nil {
		return false, err
	}
	if kept.Dev_major != 0 || kept.Dev_minor != minor || kept.Ino != uint64(fs.RootIno) {
		return false, unix.ESTALE
	}
	fd := root
	if ino != fs.RootIno {
		if fd, err = unix.OpenByHandleAt(root, fileHandle(ino, generation), unix.O_PATH|unix.O_CLOEXEC); err != nil {
			return false, err
		}
		defer func() { _ = unix.Close(fd) }()
	}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &told); err != nil {
		return false, err
	}
	if err := unix.Statx(fd, "", known, unix.STATX_BASIC_STATS, &kept); err != nil {
		return false, err
	}
	return told.Size == kept.Size && told.Mode == kept.Mode && told.Uid == kept.Uid && told.Gid == kept.Gid &&
		told.Mtime == kept.Mtime && told.Ctime == kept.Ctime, nil
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
