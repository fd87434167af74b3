package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// A Unix socket's address has room for 107 bytes of path (unix(7)); longer ones
// go through the directory's descriptor.
const sunPathMax = 107

// viaDir calls f with a path to the socket that fits into an address. The path
// is good only during f.
func viaDir(path string, f func(path string) error) error {
	if len(path) <= sunPathMax {
		return f(path)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(path)))
}

// listenUnix listens on path with mode 0600. A socket that nobody listens on
// any more is replaced; one that answers is an error wrapping EADDRINUSE.
func listenUnix(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := dialUnix(context.Background(), path); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, syscall.EADDRINUSE)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var l *net.UnixListener
	lc := net.ListenConfig{Control: ownerOnly}
	err := viaDir(path, func(p string) error {
		got, err := lc.Listen(context.Background(), "unix", p)
		if err == nil {
			l = got.(*net.UnixListener)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // its name may have been a descriptor's; closeUnix removes the real one
	return l, nil
}

// ownerOnly makes the path that bind(2) is about to create 0600: Linux takes the
// mode from the socket itself, so it is never open to others, not for a moment.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}

// closeUnix closes l and removes its path.
func closeUnix(l *net.UnixListener, path string) error {
	return errors.Join(l.Close(), os.Remove(path))
}

// dialUnix connects to the socket at path.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var c net.Conn
	err := viaDir(path, func(p string) error {
		var d net.Dialer
		var err error
		c, err = d.DialContext(ctx, "unix", p)
		return err
	})
	return c, err
}
