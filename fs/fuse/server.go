package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// unmountPoll is the pause between two tries to unmount.
	unmountPoll = 50 * time.Millisecond
	// abortWait is how long an aborted connection has to end.
	abortWait = 2 * time.Second
)

// ErrUnmounted is what Run returns when somebody else removed the mount.
var ErrUnmounted = errors.New("the mount was removed by somebody else; start the agent again to mount it")

// Run answers the kernel until ctx ends, and then unmounts: it waits
// UnmountWait for users to leave, then detaches the mount, so that nobody new
// comes in, then serves those who are left for DetachWait, and then cuts them
// off. All handles are released when it returns; content that is not published
// is vfs's to drain. It returns ErrUnmounted if the mount ends before ctx, and
// ErrStuck if it had to be cut off.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.loop.serve()
	}()
	defer s.node.vfs.ReleaseAll()
	watching, stop := context.WithCancel(context.Background())
	defer stop()
	stuck := make(chan error, 1)
	go func() { stuck <- s.watch(watching) }()
	if a := s.node.settler.asker; a != nil {
		asking := make(chan struct{})
		go func() {
			defer close(asking)
			a.run(watching)
		}()
		defer func() { stop(); <-asking }()
	}
	select {
	case <-served:
		s.cache.End() // somebody may have cut the connection under those who use the mount
		_ = s.dev.close()
		return fmt.Errorf("serve %s: %w", s.dir, ErrUnmounted)
	case err := <-stuck:
		return errors.Join(fmt.Errorf("serve %s: %w", s.dir, err), s.fence(served))
	case <-ctx.Done():
	}
	return s.unmount(served)
}

// fence cuts everybody off at once. Threads that wait in the kernel are freed by
// it.
func (s *Server) fence(served <-chan struct{}) error {
	err := s.cutOff(s.findConnection(), served)
	return errors.Join(err, unix.Unmount(s.dir, unix.MNT_DETACH))
}

// cutOff ends the connection. Programs with something open on the mount are
// answered from the kernel's caches for a while even then, so it returns when
// those have been dropped, and this node may say that it shows nothing any more.
func (s *Server) cutOff(connection uint32, served <-chan struct{}) error {
	err := abort(connection)
	if err == nil && !await(served, abortWait) {
		err = errors.New("the connection does not end; it does when the agent exits")
	}
	s.cache.End()
	return err
}

// Close removes a mount that Run was never called for.
func (s *Server) Close() error {
	err := unix.Unmount(s.dir, unix.MNT_DETACH)
	return errors.Join(err, s.dev.close())
}

// unmount ends the mount, gently first.
func (s *Server) unmount(served <-chan struct{}) error {
	defer s.dev.close()
	connection := s.findConnection()
	if err := s.unmountIdle(served); err == nil {
		return nil
	} else if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	s.opt.Logger.Warn("the mount is still in use; detaching it, open files are served a little longer",
		"dir", s.dir, "wait", s.opt.DetachWait)
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach %s: %w", s.dir, err)
	}
	if await(served, s.opt.DetachWait) {
		return nil
	}
	s.opt.Logger.Warn("cutting off processes that still use the mount", "dir", s.dir)
	if err := s.cutOff(connection, served); err != nil {
		return fmt.Errorf("processes still use %s; they are cut off when the agent exits: %w", s.dir, err)
	}
	return nil
}

// unmountIdle unmounts as soon as nobody uses the mount, and returns EBUSY if
// that does not happen within UnmountWait.
func (s *Server) unmountIdle(served <-chan struct{}) error {
	deadline := time.Now().Add(s.opt.UnmountWait)
	for {
		err := unix.Unmount(s.dir, 0)
		switch {
		case err == nil:
			if !await(served, abortWait) {
				return errors.New("the connection does not end")
			}
			return nil
		case errors.Is(err, unix.EINVAL) && await(served, 0):
			return nil // somebody else was faster
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return err
		}
		time.Sleep(unmountPoll)
	}
}

// await tells whether done is closed within d.
func await(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// findConnection tells the kernel's number of the connection: the minor device
// number of the mount, which mountinfo knows without asking the mount.
func (s *Server) findConnection() uint32 {
	m, ok, err := mountAt(s.dir)
	if err != nil || !ok {
		return 0
	}
	return m.minor
}

// abort ends a connection under the feet of those who wait for it. The control
// file system may not be mounted where it belongs, as in most containers.
func abort(connection uint32) (err error) {
	file := "/" + strconv.FormatUint(uint64(connection), 10) + "/abort"
	err = os.WriteFile("/sys/fs/fuse/connections"+file, []byte("1"), 0)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir, err := os.MkdirTemp("", "wpfs-fusectl-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := unix.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	return os.WriteFile(dir+file, []byte("1"), 0)
}
