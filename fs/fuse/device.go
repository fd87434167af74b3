package fuse

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

// device is the connection to one mount's kernel. Reads and writes hold a
// reference to the descriptor and no lock: a notification may be under way for
// long, and must not keep replies from being written.
type device struct {
	file *os.File
	conn syscall.RawConn
}

// newDevice owns fd afterwards.
func newDevice(fd int) (*device, error) {
	file := os.NewFile(uintptr(fd), "/dev/fuse")
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &device{file, conn}, nil
}

// read waits for one request. ENODEV: the mount is gone.
func (d *device) read(p []byte) (n int, err error) {
	if closed := d.conn.Control(func(fd uintptr) { n, err = unix.Read(int(fd), p) }); closed != nil {
		return 0, unix.ENODEV
	}
	return n, err
}

// write sends one reply or notification.
func (d *device) write(p []byte) (err error) {
	if closed := d.conn.Control(func(fd uintptr) {
		for {
			if _, err = unix.Write(int(fd), p); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}); closed != nil {
		return unix.ENODEV
	}
	return err
}

// close gives the descriptor back once nobody reads or writes any more.
func (d *device) close() error { return d.file.Close() }

// The codes of notifications, enum fuse_notify_code in include/uapi/linux/fuse.h.
const (
	notifyInode = 2
	notifyEntry = 3
	notifyEpoch = 8 // since 6.16
	notifyPrune = 9 // since 6.18
)

// outHeaderSize is sizeof(struct fuse_out_header).
const outHeaderSize = 16

// notifier implements kcache.Notifier. go-fuse has no call for an epoch, and
// takes one lock for all notifications.
type notifier struct{ *device }

// send writes a notification: a reply to no request whose error is the code.
func (n notifier) send(code uint32, body []byte) error {
	p := make([]byte, outHeaderSize, outHeaderSize+len(body))
	p = append(p, body...)
	binary.NativeEndian.PutUint32(p, uint32(len(p)))
	binary.NativeEndian.PutUint32(p[4:], code)
	return n.write(p)
}

// Inode implements kcache.Notifier.
func (n notifier) Inode(ino fs.Ino, off, length int64) error {
	var b [24]byte
	binary.NativeEndian.PutUint64(b[:], uint64(ino))
	binary.NativeEndian.PutUint64(b[8:], uint64(off))
	binary.NativeEndian.PutUint64(b[16:], uint64(length))
	return n.send(notifyInode, b[:])
}

// Entry implements kcache.Notifier.
func (n notifier) Entry(dir fs.Ino, name string) error {
	b := make([]byte, 16, 16+len(name)+1)
	binary.NativeEndian.PutUint64(b, uint64(dir))
	binary.NativeEndian.PutUint32(b[8:], uint32(len(name)))
	return n.send(notifyEntry, append(append(b, name...), 0))
}

// Epoch implements kcache.Notifier.
func (n notifier) Epoch() error { return n.send(notifyEpoch, nil) }

// Prune implements kcache.Notifier.
func (n notifier) Prune(ino fs.Ino) error {
	var b [24]byte
	binary.NativeEndian.PutUint32(b[:], 1)
	binary.NativeEndian.PutUint64(b[16:], uint64(ino))
	err := n.send(notifyPrune, b[:])
	if errors.Is(err, unix.EINVAL) {
		return fs.ErrNotSupported
	}
	return err
}
