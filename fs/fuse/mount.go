package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse/kcache"
	"github.com/wpfs/wpfs/fs/vfs"
)

const (
	// maxWrite is the largest READ and WRITE, the kernel's own limit.
	maxWrite = 1 << 20
	// maxBackground is how many readaheads and writebacks the kernel has in
	// flight.
	maxBackground = 64
	// readAheadKiB is how far the kernel reads ahead of a program that reads a file
	// from one end to the other. The kernel's default is 128 KiB.
	readAheadKiB = 1024
)

// Options of one mount. The zero value of a field means its default.
type Options struct {
	// UnmountWait is how long Run waits for users of the mount to leave before
	// it detaches the mount from the directory tree. Default 5 s.
	UnmountWait time.Duration
	// DetachWait is how long Run then goes on to serve those who still have
	// files open. Default 5 s.
	DetachWait time.Duration
	// NoEpoch: do without FUSE_NOTIFY_INC_EPOCH even where the kernel has it.
	NoEpoch bool
	// Asker makes the command that runs Ask, in a process of its own. Default: none;
	// then a read during a change may end at the length from before an earlier one.
	Asker func() *exec.Cmd
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

// Server is one mount. It is the Kernel of package cluster.
type Server struct {
	dir   string
	opt   Options
	dev   *device
	loop  *loop
	node  *node
	cache *kcache.Cache
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
	s := &Server{dir: dir, opt: o}
	if err := s.connect(fd, v); err != nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH) // the error that led here is the one to report
		return nil, &MountError{dir, ErrMountFailed, "the kernel's FUSE does not accept this agent; see its log (dmesg)", err}
	}
	s.setReadAhead()
	return s, nil
}

// setReadAhead asks for more than the protocol's INIT can, which only lowers it.
// Without sysfs, as in some containers, large files are read a little slower.
func (s *Server) setReadAhead() {
	file := fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", s.findConnection())
	if err := os.WriteFile(file, []byte(strconv.Itoa(readAheadKiB)), 0); err != nil {
		s.opt.Logger.Debug("the kernel's read-ahead stays as it is", "error", err)
	}
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
			"/dev/fuse may not be opened; run the agent as root, in a container with --device /dev/fuse --cap-add SYS_ADMIN --cap-add DAC_READ_SEARCH", err}
	}
	return &MountError{dir, ErrNoDevice, "/dev/fuse cannot be opened; check it with ls -l /dev/fuse", err}
}

func mountCallError(dir string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &MountError{dir, ErrNotAllowed,
			"mounting is not permitted; run the agent as root, in a container with --cap-add SYS_ADMIN --cap-add DAC_READ_SEARCH", err}
	case errors.Is(err, unix.ENODEV):
		return &MountError{dir, ErrNoDevice, "this kernel has no FUSE; load it with modprobe fuse", err}
	case errors.Is(err, unix.EBUSY):
		return &MountError{dir, ErrBusy, "the mount point is in use; unmount what is there or choose another directory", err}
	}
	return &MountError{dir, ErrMountFailed, "the kernel refused the mount; see its log (dmesg)", err}
}

// connect answers the kernel's INIT on fd, which it owns.
func (s *Server) connect(fd int, v *vfs.FS) (err error) {
	if s.dev, err = newDevice(fd); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.dev.close())
		}
	}()
	s.node = &node{ctx: context.Background(), vfs: v, faults: faults{log: s.opt.Logger}}
	proto := gofuse.NewProtocolServer(s.node, &gofuse.MountOptions{
		MaxWrite:             maxWrite,
		MaxBackground:        maxBackground,
		DisableReadDirPlus:   true,
		EnableSymlinkCaching: true, // a link's target never changes
		ExtraCapabilities: gofuse.CAP_ATOMIC_O_TRUNC | gofuse.CAP_HANDLE_KILLPRIV_V2 |
			gofuse.CAP_EXPORT_SUPPORT | gofuse.CAP_DIRECT_IO_ALLOW_MMAP | gofuse.CAP_NO_OPENDIR_SUPPORT,
		// A stack depth would keep overlayfs, and so Docker, off the mount.
		DisabledCapabilities: gofuse.CAP_PASSTHROUGH,
		Logger:               slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelWarn),
	})
	s.loop = newLoop(s.dev, proto, s.opt.Logger)
	if err := s.loop.first(); err != nil {
		return fmt.Errorf("answer the kernel's first message: %w", err)
	}
	// Asking for an epoch tells whether the kernel has them; it changes nothing yet.
	epoch := !s.opt.NoEpoch && notifier{s.dev}.Epoch() == nil
	s.cache = kcache.New(notifier{s.dev}, kcache.Options{Epoch: epoch, Logger: s.opt.Logger})
	s.node.cache, s.loop.cache = s.cache, s.cache
	s.node.settler = &settler{cache: s.cache, spare: s.loop.relieve, flights: map[fs.Ino]chan struct{}{}}
	if s.opt.Asker != nil {
		s.node.settler.asker = newAsker(s.opt.Asker, s.dir, s.findConnection(), s.opt.Logger)
	}
	v.SetKernel(s.cache)
	return nil
}

// Dir is the mount point, absolute and without symbolic links.
func (s *Server) Dir() string { return s.dir }

// Invalidate, Switched and Drop implement the Kernel of package cluster.
func (s *Server) Invalidate(changes []fs.Change) { s.cache.Invalidate(changes) }

// Switched tells that the state has switched.
func (s *Server) Switched() { s.cache.Switched() }

// Drop takes everything away that the kernel may answer by itself.
func (s *Server) Drop(content bool) { s.cache.Drop(content) }

// Stats is what the kernel has asked for and may keep.
type Stats struct {
	Requests  map[string]uint64 // by operation: "lookup", "getattr", …
	Unsettled uint64            // calls that went on with what the kernel had, see kcache
	Kernel    kcache.Stats
}

// Stats takes a snapshot.
func (s *Server) Stats() Stats {
	return Stats{Requests: s.node.requests.snapshot(), Kernel: s.cache.Stats()}
}
