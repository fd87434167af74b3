package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/vfs"
)

const (
	// maxWrite is the largest READ and WRITE, the kernel's own limit.
	maxWrite = 1 << 20
	// maxBackground is how many readaheads and writebacks the kernel has in
	// flight.
	maxBackground = 64
)

// Options of one mount. The zero value of a field means its default.
type Options struct {
	// UnmountWait is how long Run waits for users of the mount to leave before
	// it detaches the mount from the directory tree. Default 5 s.
	UnmountWait time.Duration
	// DetachWait is how long Run then goes on to serve those who still have
	// files open. Default 5 s.
	DetachWait time.Duration
	// Logger gets what an operator can act on. Default: nothing.
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	if o.UnmountWait == 0 {
		o.UnmountWait = 5 * time.Second
	}
	if o.DetachWait == 0 {
		o.DetachWait = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Server is one mount.
type Server struct {
	dir    string
	opt    Options
	node   *node
	server *gofuse.Server
	// device is another descriptor of the connection, for the notifications
	// that go-fuse has no call for. It is closed when Run returns.
	device *os.File
}

// Mount mounts v on dir, an existing directory. A mount that an agent left
// there when it died is removed first. Errors are *MountError. Calls into the
// mount wait from here on until Run answers them; if Run is never called, Close
// must be.
func Mount(dir string, v *vfs.FS, o Options) (*Server, error) {
	o.setDefaults()
	dir, err := preparePoint(dir, o.Logger)
	if err != nil {
		return nil, err
	}
	fd, err := mountDevice(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, opt: o, node: &node{
		ctx: context.Background(), vfs: v, faults: faults{log: o.Logger},
	}}
	if err := s.connect(fd); err != nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH) // the error that led here is the one to report
		return nil, &MountError{dir, ErrMountFailed, "the kernel's FUSE does not accept this agent; see its log (dmesg)", err}
	}
	return s, nil
}

// mountDevice opens /dev/fuse and mounts it on dir.
func mountDevice(dir string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, deviceError(dir, err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,allow_other,max_read=%d",
		fd, os.Geteuid(), os.Getegid(), maxWrite)
	if err := unix.Mount(fsSource, dir, fsType, unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		_ = unix.Close(fd)
		return -1, mountCallError(dir, err)
	}
	return fd, nil
}

func deviceError(dir string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return &MountError{dir, ErrNoDevice,
			"/dev/fuse is missing; load the kernel module with modprobe fuse, or give the container --device /dev/fuse", err}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return &MountError{dir, ErrNotAllowed,
			"/dev/fuse may not be opened; run the agent as root, in a container with --device /dev/fuse --cap-add SYS_ADMIN", err}
	}
	return &MountError{dir, ErrNoDevice, "/dev/fuse cannot be opened; check it with ls -l /dev/fuse", err}
}

func mountCallError(dir string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &MountError{dir, ErrNotAllowed,
			"mounting is not permitted; run the agent as root, in a container with --cap-add SYS_ADMIN", err}
	case errors.Is(err, unix.ENODEV):
		return &MountError{dir, ErrNoDevice, "this kernel has no FUSE; load it with modprobe fuse", err}
	case errors.Is(err, unix.EBUSY):
		return &MountError{dir, ErrBusy, "the mount point is in use; unmount what is there or choose another directory", err}
	}
	return &MountError{dir, ErrMountFailed, "the kernel refused the mount; see its log (dmesg)", err}
}

// connect gives fd to go-fuse, which answers the kernel's INIT. It owns fd.
func (s *Server) connect(fd int) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("duplicate the descriptor of /dev/fuse: %w", err)
	}
	s.device = os.NewFile(uintptr(dup), "/dev/fuse")
	s.server, err = gofuse.NewServer(s.node, "/dev/fd/"+strconv.Itoa(fd), &gofuse.MountOptions{
		MaxWrite:           maxWrite,
		MaxBackground:      maxBackground,
		DisableReadDirPlus: true,
		DisableSplice:      true,
		ExtraCapabilities: gofuse.CAP_ATOMIC_O_TRUNC | gofuse.CAP_HANDLE_KILLPRIV_V2 |
			gofuse.CAP_EXPORT_SUPPORT | gofuse.CAP_DIRECT_IO_ALLOW_MMAP,
		// A stack depth would keep overlayfs, and so Docker, off the mount.
		DisabledCapabilities: gofuse.CAP_PASSTHROUGH,
		Logger:               slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelWarn),
	})
	if err != nil {
		return errors.Join(err, s.device.Close())
	}
	return nil
}

// Dir is the mount point, absolute and without symbolic links.
func (s *Server) Dir() string { return s.dir }

// Stats is what the kernel has asked for and may know.
type Stats struct {
	Requests map[string]uint64 // by operation: "lookup", "getattr", …
	Inodes   int               // gauge: inodes that the kernel may remember
}

// Stats takes a snapshot.
func (s *Server) Stats() Stats {
	return Stats{Requests: s.node.requests.snapshot(), Inodes: s.node.lookups.inodes()}
}
