package fuse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// fsType and fsSource are what mount(8) shows.
	fsType   = "fuse.wpfs"
	fsSource = "wpfs"
	// staleMax bounds how many dead mounts on one directory are cleaned up.
	staleMax = 32
	// probeWait is how long a mount has to show that it lives.
	probeWait = 3 * time.Second
)

// mounted is a line of /proc/self/mountinfo.
type mounted struct {
	dir, fstype, source string
	minor               uint32 // of st_dev
}

// mountAt returns what is mounted on dir, the topmost if there are several.
func mountAt(dir string) (mounted, bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mounted{}, false, listError(dir, err)
	}
	defer f.Close()
	m, ok, err := findMount(f, dir)
	if err != nil {
		return m, ok, listError(dir, err)
	}
	return m, ok, nil
}

func listError(dir string, err error) error {
	return &MountError{dir, ErrMountFailed, "cannot read the list of mounts; is /proc mounted?", err}
}

// findMount is mountAt on a given list. Its format is in proc_pid_mountinfo(5).
func findMount(list io.Reader, dir string) (found mounted, ok bool, err error) {
	lines := bufio.NewScanner(list)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, sep := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !sep || len(left) < 5 || len(right) < 2 || unescape(left[4]) != dir {
			continue
		}
		_, minor, _ := strings.Cut(left[2], ":")
		number, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return found, false, fmt.Errorf("device number %q: %w", left[2], err)
		}
		found, ok = mounted{dir, right[0], unescape(right[1]), uint32(number)}, true
	}
	return found, ok, lines.Err()
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// preparePoint returns dir as the kernel lists it, once it is a directory that
// nothing is mounted on. Mounts of agents that died are cleaned up.
func preparePoint(dir string, log *slog.Logger) (string, error) {
	dir, err := resolve(dir)
	if err != nil {
		return dir, err
	}
	for range staleMax {
		m, is, err := mountAt(dir)
		if err != nil {
			return dir, err
		}
		if !is {
			return dir, checkDir(dir)
		}
		if err := checkStale(dir, m); err != nil {
			return dir, err
		}
		log.Warn("unmounting what an agent that died left behind", "dir", dir)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return dir, &MountError{dir, ErrBusy, "the mount of an agent that died cannot be removed; run umount -l " + dir, err}
		}
	}
	return dir, &MountError{dir, ErrBusy, fmt.Sprintf("more than %d dead mounts are on it; run umount -l %s until none is left", staleMax, dir), nil}
}

// linksMax bounds the symbolic links that the last part of a path may be.
const linksMax = 40

// resolve makes dir absolute and free of symbolic links. It never looks at what
// is mounted on the result, which may be dead or hang.
func resolve(dir string) (string, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return dir, &MountError{dir, ErrMountFailed, "cannot tell the current directory; give an absolute path", err}
	}
	for range linksMax {
		parent, err := filepath.EvalSymlinks(filepath.Dir(full))
		if err != nil {
			return full, pathError(full, err)
		}
		full = filepath.Join(parent, filepath.Base(full))
		if _, is, err := mountAt(full); err != nil || is {
			return full, err
		}
		st, err := os.Lstat(full)
		if err != nil {
			return full, pathError(full, err)
		}
		if st.Mode()&os.ModeSymlink == 0 {
			return full, nil
		}
		target, err := os.Readlink(full)
		if err != nil {
			return full, pathError(full, err)
		}
		if full = target; !filepath.IsAbs(target) {
			full = filepath.Join(parent, target)
		}
	}
	return full, pathError(full, unix.ELOOP)
}

func pathError(dir string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &MountError{dir, ErrAbsent, "the mount point does not exist; create it with mkdir -p " + dir, err}
	case errors.Is(err, unix.ENOTDIR):
		return &MountError{dir, ErrNotDir, "the mount point is not a directory; choose a directory", err}
	case errors.Is(err, os.ErrPermission):
		return &MountError{dir, ErrNotAllowed, "the mount point cannot be reached; run the agent as root", err}
	}
	return &MountError{dir, ErrMountFailed, "the mount point cannot be looked at; check it with ls -ld " + dir, err}
}

// isDead tells that err comes from a FUSE mount whose daemon is gone.
func isDead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// checkStale returns nil if m, which is mounted on dir, is ours and dead.
func checkStale(dir string, m mounted) error {
	if m.fstype != fsType {
		return &MountError{dir, ErrBusy, fmt.Sprintf(
			"a file system of type %s (%s) is mounted on it already; unmount that with umount %s or choose another directory",
			m.fstype, m.source, dir), nil}
	}
	answer := make(chan error, 1)
	// A live daemon that is stopped never answers; the goroutine ends with the
	// mount. Not stat(2): the kernel answers that from its cache for a dead one.
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(dir, &st)
	}()
	select {
	case err := <-answer:
		if isDead(err) {
			return nil
		}
		return &MountError{dir, ErrBusy, "another wpfs agent is mounted on it; stop that agent or choose another directory", err}
	case <-time.After(probeWait):
		return &MountError{dir, ErrBusy, fmt.Sprintf(
			"a wpfs mount on it does not answer; if its agent hangs, kill the agent and run umount -l %s", dir), nil}
	}
}

func checkDir(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return pathError(dir, err)
	}
	if !st.IsDir() {
		return &MountError{dir, ErrNotDir, "the mount point is not a directory; choose a directory", nil}
	}
	return nil
}
