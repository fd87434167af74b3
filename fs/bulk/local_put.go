package bulk

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

func (l *local) links() bool { return true }

// ensure implements target.
func (l *local) ensure(d *dir) error {
	first := false
	d.once.Do(func() {
		first = true
		d.err = l.openDir(d)
	})
	if d.err != nil && !first {
		return errDirFailed
	}
	return d.err
}

func (l *local) openDir(d *dir) error {
	if d.parent == nil {
		fd, err := l.at("", unix.O_RDONLY|unix.O_DIRECTORY)
		d.fd = fd
		return err
	}
	if err := l.ensure(d.parent); err != nil {
		return err
	}
	name := d.want.name()
	if d.have == nil {
		if err := l.mkdir(d, name); err != nil {
			return fmt.Errorf("make the directory %s: %w", Shown(d.want.path), err)
		}
	}
	fd, err := openBeneath(d.parent.fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	d.fd = fd
	if err != nil {
		return fmt.Errorf("open the directory %s: %w", Shown(d.want.path), err)
	}
	return nil
}

// errInTheWay is a hint behind an error.
var errInTheWay = errors.New("something of that name is in the way; remove it, or let --delete do so")

// mkdir makes a directory; what has its name makes way if it may be removed.
func (l *local) mkdir(d *dir, name string) error {
	mode := d.want.mode&0o777 | 0o700 // its own mode when it is left
	err := unix.Mkdirat(d.parent.fd, name, mode)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there := &entry{}
	if err := l.stat(d.parent.fd, name, there); err != nil || there.isDir() {
		return err
	}
	if !l.clear {
		return errInTheWay
	}
	if err := unix.Unlinkat(d.parent.fd, name, 0); err != nil {
		return err
	}
	return unix.Mkdirat(d.parent.fd, name, mode)
}

// leave implements target.
func (l *local) leave(ctx context.Context, d *dir) error {
	if d.fd < 0 && (d.err != nil || d.have == nil) {
		return nil
	}
	if d.fd < 0 { // nothing was done in it
		if err := l.complete(ctx, d.have); err == nil && attrsDiffer(d.want, d.have) == "" {
			return nil
		}
		if err := l.ensure(d); err != nil {
			return err
		}
	}
	defer func() {
		unix.Close(d.fd)
		d.fd = -1
	}()
	return l.setOpen(d.fd, d.want)
}

// setOpen gives an open file or directory the attributes of want: owner before
// mode, which a change of owner takes bits from, and the times at last.
func (l *local) setOpen(fd int, want *entry) error {
	have := &entry{path: want.path}
	if err := l.stat(fd, "", have); err != nil {
		return fault("stat", err)
	}
	if want.known&knowsXattrs != 0 && l.xattrs {
		if err := have.readXattrs(fd); err != nil {
			return err
		}
		if err := want.setXattrs(fd, have.xattrs); err != nil {
			return err
		}
	}
	if want.known&knowsOwner != 0 && (want.uid != have.uid || want.gid != have.gid) {
		if err := unix.Fchown(fd, int(want.uid), int(want.gid)); err != nil {
			return fmt.Errorf("give it to %d:%d: %w", want.uid, want.gid, err)
		}
		if want.mode&0o6000 != 0 {
			have.mode = 0
		}
	}
	if want.known&knowsMode != 0 && want.mode != have.mode {
		if err := unix.Fchmod(fd, want.mode&0o7777); err != nil {
			return fault("chmod", err)
		}
	}
	return setTimes(fd, "", want)
}

// setTimes sets the modification time of a name in fd, or of fd itself.
func setTimes(fd int, name string, want *entry) error {
	if want.known&knowsMtime == 0 {
		return nil
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(want.mtime)}
	if name == "" {
		name = "/proc/self/fd/" + strconv.Itoa(fd)
		return fault("set its time", unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, 0))
	}
	return fault("set its time", unix.UtimesNanoAt(fd, name, ts, unix.AT_SYMLINK_NOFOLLOW))
}

// temp is a new name for something unfinished.
func (l *local) temp() string {
	return TempPrefix + l.run + "-" + strconv.FormatUint(l.temps.Add(1), 16)
}

// put implements target.
func (l *local) put(ctx context.Context, d *dir, want, have *entry, c *content) (sum, inode, error) {
	if want.isRegular() {
		return l.putFile(ctx, d, want, have, c)
	}
	return sum{}, inode{}, l.putSpecial(ctx, d, want, have)
}

// putFile writes a file that nobody sees, with all its attributes, and gives it
// its name. A file without a name (O_TMPFILE) leaves nothing behind if this is
// interrupted, and takes the directory's lock once instead of twice; but it
// cannot take the place of another.
func (l *local) putFile(ctx context.Context, d *dir, want, have *entry, c *content) (s sum, is inode, err error) {
	temp, fd := "", -1
	mode := uint32(0o644)
	if want.known&knowsMode != 0 {
		mode = want.mode & 0o777
	}
	if have == nil && !l.noTmp.Load() {
		fd, err = unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, mode)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			l.noTmp.Store(true)
			fd = -1
		case err != nil:
			return s, is, fault("create", err)
		}
	}
	if fd < 0 {
		temp = l.temp()
		if fd, err = unix.Openat(d.fd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode); err != nil {
			return s, is, fault("create", err)
		}
	}
	defer func() {
		if cerr := unix.Close(fd); err == nil {
			err = fault("close", cerr)
		}
		if temp != "" && err != nil {
			unix.Unlinkat(d.fd, temp, 0)
		}
	}()
	if s, is, err = l.fillFile(ctx, fd, want, c); err != nil {
		return s, is, err
	}
	if temp == "" {
		err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), d.fd, want.name(), unix.AT_SYMLINK_FOLLOW)
		if !errors.Is(err, unix.EEXIST) {
			return s, is, fault("give it its name", err)
		}
		temp = l.temp() // somebody was quicker; ours is the one to stay
		if err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), d.fd, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
			return s, is, fault("give it a name", err)
		}
	}
	return s, is, l.rename(ctx, d, temp, want)
}

// fillFile writes content and attributes into an open file, and has the file
// system report what it still has to say about them.
func (l *local) fillFile(ctx context.Context, fd int, want *entry, c *content) (s sum, is inode, err error) {
	if s, err = write(ctx, fd, c); err != nil {
		return s, is, err
	}
	if err = c.unchanged(want); err != nil {
		return s, is, err
	}
	// On wpfs, times go in one step with the content that was written before.
	if err = l.setOpen(fd, want); err != nil {
		return s, is, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err != nil {
		return s, is, fault("stat", err)
	}
	// What close(2) would fail with must be known before the file has its name.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(dup)
	}
	return s, inode{uint64(st.Dev), st.Ino}, fault("close", err)
}

// rename moves a finished temporary name to its place.
func (l *local) rename(ctx context.Context, d *dir, temp string, want *entry) error {
	err := unix.Renameat(d.fd, temp, d.fd, want.name())
	if errors.Is(err, unix.EISDIR) && l.clear {
		if err = l.removeAll(ctx, d, want.path); err == nil {
			err = unix.Renameat(d.fd, temp, d.fd, want.name())
		}
	}
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("%w (%w)", errInTheWay, err)
	}
	return fault("move it to its name", err)
}

// putSpecial makes what is no file and no directory.
func (l *local) putSpecial(ctx context.Context, d *dir, want, have *entry) error {
	name, err := l.place(want, have, func(name string) error {
		if want.isSymlink() {
			return unix.Symlinkat(want.target, d.fd, name)
		}
		return unix.Mknodat(d.fd, name, want.mode, int(want.rdev))
	})
	if err != nil {
		return fmt.Errorf("make the %s: %w", want.kindName(), err)
	}
	if err = setNamed(d.fd, name, want); err == nil && name != want.name() {
		err = l.rename(ctx, d, name, want)
	}
	if err != nil {
		unix.Unlinkat(d.fd, name, 0)
	}
	return err
}

// place makes something under its name, or a temporary one if that is taken.
func (l *local) place(want, have *entry, create func(name string) error) (name string, err error) {
	if have == nil {
		name = want.name()
		if err = create(name); !errors.Is(err, unix.EEXIST) {
			return name, err
		}
	}
	name = l.temp()
	return name, create(name)
}

// setNamed gives attributes to what cannot be opened.
func setNamed(fd int, name string, want *entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fault("stat", err)
	}
	if want.known&knowsOwner != 0 && (st.Uid != want.uid || st.Gid != want.gid) {
		if err := unix.Fchownat(fd, name, int(want.uid), int(want.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give it to %d:%d: %w", want.uid, want.gid, err)
		}
	}
	if want.known&knowsMode != 0 && !want.isSymlink() && (st.Mode != want.mode || want.mode&0o6000 != 0) {
		if err := unix.Fchmodat(fd, name, want.mode&0o7777, 0); err != nil {
			return fault("chmod", err)
		}
	}
	return setTimes(fd, name, want)
}

// link implements target.
func (l *local) link(ctx context.Context, d *dir, want, have *entry, first string) error {
	fd, err := l.at(first, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("open its other name %s: %w", Shown(first), err)
	}
	defer unix.Close(fd)
	name, err := l.place(want, have, func(name string) error {
		return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), d.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return fault("link it to "+Shown(first), err)
	}
	if name == want.name() {
		return nil
	}
	if err = l.rename(ctx, d, name, want); err != nil {
		unix.Unlinkat(d.fd, name, 0)
	}
	return err
}

// setAttrs implements target.
func (l *local) setAttrs(_ context.Context, d *dir, want, _ *entry) error {
	if !want.isRegular() {
		return setNamed(d.fd, want.name(), want)
	}
	fd, err := openBeneath(d.fd, want.name(), unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return fault("open", err)
	}
	defer unix.Close(fd)
	return l.setOpen(fd, want)
}

// remove implements target.
func (l *local) remove(_ context.Context, d *dir, e *entry) error {
	parent, err := openBeneath(d.fd, relative(e.parent(), d.want.path), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	flags := 0
	if e.isDir() {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(parent, e.name(), flags)
}

// relative is path as seen from dir, which it is in or is.
func relative(path, dir string) string {
	if dir == "" || path == dir {
		return path[len(dir):]
	}
	return path[len(dir)+1:]
}

// removeAll removes the directory at path, which is in the way, except for what
// is excluded.
func (l *local) removeAll(ctx context.Context, d *dir, path string) error {
	e := &entry{path: path}
	if err := l.stat(d.fd, e.name(), e); err != nil {
		return err
	}
	var all []*entry
	l.walkDir(ctx, e, func(e *entry, err error) bool {
		all = append(all, e)
		return err == nil
	})
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] == nil {
			return ctx.Err()
		}
		if err := l.remove(ctx, d, all[i]); err != nil {
			return err
		}
	}
	return nil
}
