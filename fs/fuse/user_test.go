package fuse_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs/vfstest"
)

// nobody is a user without rights.
const nobody = 65534

// userHelper makes one call as another user and prints the errno.
func userHelper(args []string) error {
	var err error
	switch call, path := args[0], args[1]; call {
	case "append":
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, err = f.WriteString("x")
			err = errors.Join(err, f.Close())
		}
	case "create":
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644); err == nil {
			err = f.Close()
		}
	case "truncate":
		err = os.Truncate(path, 1)
	case "empty":
		err = os.WriteFile(path, nil, 0)
	default:
		return fmt.Errorf("unknown call %s", call)
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		fmt.Print(unix.ErrnoName(errno))
		return nil
	}
	return err
}

// everybody may reach and change the mount's root directory.
func everybody(t testing.TB, m *mount) {
	t.Helper()
	must(t, os.Chmod(filepath.Dir(m.dir), 0o755))
	must(t, os.Chmod(m.dir, 0o777))
}

// TestSetidIsKilled: content that an unprivileged process changes loses the
// set-id bits; for root they stay.
func TestSetidIsKilled(t *testing.T) {
	m := newSite(t).node(t)
	everybody(t, m)
	for _, call := range []string{"append", "truncate", "empty"} {
		for _, uid := range []uint32{0, nobody} {
			path := m.path(fmt.Sprint(call, uid))
			must(t, os.WriteFile(path, []byte("content"), 0o777))
			must(t, unix.Chmod(path, 0o6777))
			if errno := helpAs(t, uid, "user", call, path); errno != "" {
				t.Fatalf("%s as %d: %s", call, uid, errno)
			}
			var st unix.Stat_t
			must(t, unix.Stat(path, &st))
			want := uint32(0o6777)
			if uid != 0 {
				want = 0o777
			}
			if got := st.Mode & 0o7777; got != want {
				t.Errorf("mode after %s as %d: %o, want %o", call, uid, got, want)
			}
		}
	}
}

// TestCapabilitiesAreKilled: whoever changes a program's content takes its file
// capabilities away.
func TestCapabilitiesAreKilled(t *testing.T) {
	m := newSite(t).node(t)
	path := m.path("program")
	must(t, os.WriteFile(path, []byte("x"), 0o755))
	// cap_net_raw+ep, version 2, as setcap(8) writes it.
	must(t, unix.Setxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, os.WriteFile(path, []byte("changed"), 0o755))
	if _, err := unix.Getxattr(path, "security.capability", nil); err != unix.ENODATA {
		t.Errorf("capabilities after a write: %v, want %v", err, unix.ENODATA)
	}
}

// TestPermissionOfAFileMadeElsewhere: the kernel believes a name absent and
// checks no permission; another node has made the file meanwhile.
func TestPermissionOfAFileMadeElsewhere(t *testing.T) {
	for _, tt := range []struct {
		mode uint32
		want string
	}{{0o600, "EACCES"}, {0o666, ""}} {
		t.Run(fmt.Sprintf("%o", tt.mode), func(t *testing.T) {
			s := newSite(t)
			wrapped := &vfstest.Meta{Meta: s.meta}
			m := s.node(t, func(o *options) { o.meta = wrapped })
			everybody(t, m)
			var raced atomic.Bool
			wrapped.Before(func(op fs.Op) error {
				if c, ok := op.(fs.Create); ok && c.Cred.Uid == nobody && raced.CompareAndSwap(false, true) {
					_, err := s.meta.Do(t.Context(), fs.Create{Parent: fs.RootIno, Name: c.Name, Mode: tt.mode})
					return err
				}
				return nil
			})
			if got := helpAs(t, nobody, "user", "create", m.path("f")); got != tt.want || !raced.Load() {
				t.Errorf("open: %q, raced %t; want %q", got, raced.Load(), tt.want)
			}
		})
	}
}

// TestPermissions are the kernel's business.
func TestPermissions(t *testing.T) {
	m := newSite(t).node(t)
	everybody(t, m)
	must(t, os.Chmod(m.dir, 0o755))
	must(t, os.WriteFile(m.path("f"), []byte("abc"), 0o644))
	for _, call := range []string{"append", "truncate", "empty"} {
		if got := helpAs(t, nobody, "user", call, m.path("f")); !strings.HasPrefix(got, "EACCES") {
			t.Errorf("%s: %q, want EACCES", call, got)
		}
	}
	if got := helpAs(t, nobody, "user", "create", m.path("g")); got != "EACCES" {
		t.Errorf("create: %q, want EACCES", got)
	}
}
