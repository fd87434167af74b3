package bulk

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// local is a directory tree. Every path is resolved below the root's descriptor
// and through no symbolic link, so that nothing outside of it is read or
// written, whatever somebody puts in the way meanwhile.
type local struct {
	path   string
	filter filter
	xattrs bool
	fd     int // -1: the root is not there (only of a target, in a dry run)

	// Of a target:
	clear bool // directories may be removed to make way
	run   string
	temps atomic.Uint64
	noTmp atomic.Bool // O_TMPFILE does not work here
}

// TempPrefix is how the names of unfinished files begin.
const TempPrefix = ".wpfs-copy-"

var tempName = regexp.MustCompile(`^\.wpfs-copy-[0-9a-f]{8}-[0-9a-f]+$`)

// apart refuses two directories of which one is in the other.
func apart(a, b string) error {
	real := func(p string) string {
		p, err := filepath.Abs(p)
		if err != nil {
			return p
		}
		for rest := ""; ; { // what exists of it, without links
			if q, err := filepath.EvalSymlinks(p); err == nil {
				return filepath.Join(q, rest)
			}
			if p == "/" {
				return filepath.Join(p, rest)
			}
			p, rest = filepath.Dir(p), filepath.Join(filepath.Base(p), rest)
		}
	}
	x, y := real(a), real(b)
	if x == y || inside(strings.TrimPrefix(x, "/"), strings.TrimPrefix(y, "/")) || inside(strings.TrimPrefix(y, "/"), strings.TrimPrefix(x, "/")) {
		return &UsageError{fmt.Errorf("%s and %s must not be in one another", a, b)}
	}
	return nil
}

// openLocal opens a tree; to says that it is going to be written to.
func openLocal(o Options, f filter, path string, to bool) (*local, error) {
	l := &local{path: path, filter: f, xattrs: !o.NoXattrs, fd: -1, clear: o.Delete}
	if to {
		var b [4]byte
		rand.Read(b[:])
		l.run = hex.EncodeToString(b[:])
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && to && !o.DryRun {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.ENOENT) && to && o.DryRun {
		return l, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	l.fd = fd
	if to && !o.DryRun {
		// Two runs would take each other's unfinished files for leftovers.
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			unix.Close(fd)
			return nil, fmt.Errorf("%s: %w", path, ErrBusy)
		}
	}
	return l, nil
}

func (l *local) close() error {
	if l.fd < 0 {
		return nil
	}
	return unix.Close(l.fd)
}

// at opens a path below the root.
func (l *local) at(path string, flags uint64) (int, error) { return openBeneath(l.fd, path, flags) }

// openBeneath is openat2(2) that stays below fd. It waits for no fifo and for no
// device, and repeats what a signal interrupts.
func openBeneath(fd int, path string, flags uint64) (int, error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		n, err := unix.Openat2(fd, path, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}

// walk implements side. One directory's names are held at a time, for each level.
func (l *local) walk(ctx context.Context) iter.Seq2[*entry, error] {
	return func(yield func(*entry, error) bool) {
		if l.fd < 0 {
			return
		}
		root := &entry{}
		if err := l.stat(l.fd, "", root); err != nil {
			yield(nil, &fs.PathError{Op: "stat", Path: l.path, Err: err})
			return
		}
		l.walkDir(ctx, root, yield)
	}
}

// walkDir yields a directory and all in it. It reports whether to go on.
func (l *local) walkDir(ctx context.Context, d *entry, yield func(*entry, error) bool) bool {
	if ctx.Err() != nil {
		yield(nil, ctx.Err())
		return false
	}
	fd, err := l.at(d.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(fd)
	}
	var names []string
	if err == nil {
		names, err = readNames(fd)
	}
	if errors.Is(err, unix.ENOENT) && d.path != "" {
		return true // gone since it was listed
	}
	if err != nil {
		d.unread = true
		return yield(d, fault("list the directory", err))
	}
	if !yield(d, nil) {
		return false
	}
	if d.skip {
		return true
	}
	es := make([]*entry, 0, len(names))
	for _, name := range names {
		e := &entry{path: join(d.path, name), temp: tempName.MatchString(name)}
		if e.temp && (l.run == "" || strings.HasPrefix(name, TempPrefix+l.run)) || !e.temp && l.filter.leaves(e.path) {
			continue
		}
		switch err := l.stat(fd, name, e); {
		case errors.Is(err, unix.ENOENT): // gone since
		case err != nil:
			if !yield(e, fault("stat", err)) {
				return false
			}
		default:
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *entry) int { return cmp.Compare(a.order(), b.order()) })
	for i, e := range es {
		es[i] = nil // what has been yielded may be forgotten
		if e.isDir() && !e.temp {
			if !l.walkDir(ctx, e, yield) {
				return false
			}
		} else if !yield(e, nil) {
			return false
		}
	}
	return true
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func readNames(fd int) ([]string, error) {
	dup, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// stat fills e with what lstat(2) tells of a name in fd, or of fd itself.
func (l *local) stat(fd int, name string, e *entry) error {
	var st unix.Stat_t
	var err error
	if name == "" {
		err = unix.Fstat(fd, &st)
	} else {
		err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	e.fill(&st)
	return nil
}

func (e *entry) fill(st *unix.Stat_t) {
	e.known |= knowsMode | knowsOwner | knowsMtime | knowsLinks
	e.mode, e.uid, e.gid, e.mtime = st.Mode, st.Uid, st.Gid, st.Mtim.Nano()
	e.ino = inode{uint64(st.Dev), st.Ino}
	if !e.isDir() {
		e.nlink, e.size = uint64(st.Nlink), st.Size
	}
	if e.isDevice() {
		e.rdev = uint64(st.Rdev)
	}
}

// complete implements side. Only files and directories have attributes that
// users set.
func (l *local) complete(_ context.Context, e *entry) error {
	switch {
	case e.isSymlink():
		return l.readlink(e)
	case !l.xattrs || e.known&knowsXattrs != 0 || !e.isRegular() && !e.isDir():
		return nil
	}
	fd, err := l.at(e.path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return fault("open", err)
	}
	defer unix.Close(fd)
	return e.readXattrs(fd)
}

func (l *local) readlink(e *entry) error {
	fd, err := l.at(e.path, unix.O_PATH)
	if err != nil {
		return fault("open", err)
	}
	defer unix.Close(fd)
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return fault("readlink", err)
	}
	e.target = string(b[:n])
	e.size = int64(n)
	return nil
}

// open implements side.
func (l *local) open(ctx context.Context, e *entry) (*content, error) {
	if !e.isRegular() {
		return &content{}, l.complete(ctx, e)
	}
	fd, err := l.at(e.path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fault("open", err)
	}
	f := os.NewFile(uintptr(fd), e.path)
	now := &entry{}
	if err = l.stat(fd, "", now); err == nil && !now.isRegular() {
		err = errChanged
	}
	if err == nil && l.xattrs && e.known&knowsXattrs == 0 {
		err = e.readXattrs(fd)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &content{file: f, size: e.size}, nil
}

// unchanged says that the file behind c is still the one that was listed.
func (c *content) unchanged(e *entry) error {
	if c.file == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(c.file.Fd()), &st); err != nil {
		return fault("stat", err)
	}
	if st.Size != e.size || st.Mtim.Nano() != e.mtime {
		return errChanged
	}
	return nil
}

func (l *local) sync() error {
	if l.fd < 0 {
		return nil
	}
	return fault("sync "+l.path, unix.Syncfs(l.fd))
}
