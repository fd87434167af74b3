// Package dir is a bucket in a local directory: every Put is on the disk when
// it returns (temporary file, fdatasync, link or rename, fsync of the
// directory). It serves clusters whose nodes share one machine or one mounted
// directory, and is the default of wpfs dev.
//
// An object is the file of the same name below the root, so a bucket can be
// copied to S3 and back with ordinary tools. The fan-out comes from the keys
// themselves: whoever stores many objects puts two hex digits between slashes,
// which keeps a directory at 1/256 of them. The name .tmp is the driver's own;
// no key starts with a dot.
//
// System calls on a hung network file system cannot be interrupted: there, and
// only there, a call may outlast its context.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

// tempAgeMax is how old a temporary file must be before a start removes it:
// other processes may be using the same directory, and no put takes that long.
const tempAgeMax = time.Hour

// durableMax bounds how many directories a Store remembers as durable.
const durableMax = 4096

const tempDir = ".tmp"

// Options for New.
type Options struct {
	// Root is the absolute path of the directory.
	Root string
	// Create makes Root if its parent exists. Without it a missing Root is
	// NoBucket, so that a forgotten mount is noticed and not filled.
	Create bool
}

// ParseURL reads file:///path, where ?create=true asks for Create.
func ParseURL(raw string) (Options, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Options{}, fmt.Errorf("object URL: %w", err)
	}
	if u.Scheme != "file" || u.Host != "" || u.Opaque != "" || !filepath.IsAbs(u.Path) {
		return Options{}, fmt.Errorf("object URL %s: want file:///absolute/path", raw)
	}
	o := Options{Root: filepath.Clean(u.Path)}
	for name, values := range u.Query() {
		if name != "create" {
			return Options{}, fmt.Errorf("object URL %s: unknown parameter %q; there is only create=true", raw, name)
		}
		o.Create = values[len(values)-1] == "true"
	}
	return o, nil
}

// Store is the bucket.
type Store struct {
	root string
	now  func() time.Time

	mu      sync.Mutex
	durable map[string]bool // directories whose names are known to be on disk
}

var _ object.Store = (*Store)(nil)

// New opens the bucket and removes what crashed puts have left behind.
func New(o Options) (*Store, error) {
	s := &Store{root: o.Root, now: time.Now, durable: make(map[string]bool)}
	if !filepath.IsAbs(o.Root) {
		return nil, s.fail("open", "", object.Invalid, fmt.Errorf("root %q is not an absolute path", o.Root))
	}
	if o.Create {
		if err := mkdirSynced(o.Root); err != nil {
			return nil, s.wrap("open", "", err)
		}
	}
	if err := mkdirSynced(s.path(tempDir)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, s.fail("open", "", object.NoBucket, err)
		}
		return nil, s.wrap("open", "", err)
	}
	if err := s.removeOldTemps(); err != nil {
		return nil, s.wrap("open", "", err)
	}
	return s, nil
}

func (s *Store) removeOldTemps() error {
	entries, err := os.ReadDir(s.path(tempDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == swapLock {
			continue // another process may hold it
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // another process was faster
		}
		if err != nil {
			return err
		}
		if s.now().Sub(info.ModTime()) < tempAgeMax {
			continue
		}
		if err := os.Remove(s.path(tempDir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := object.CheckGet(key, off); err != nil {
		return nil, s.fail(object.OpGet, key, object.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, s.fail(object.OpGet, key, object.Interrupted, err)
	}
	f, err := os.Open(s.path(key))
	if err != nil {
		return nil, s.wrapMissing(object.OpGet, key, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, s.wrap(object.OpGet, key, err)
	}
	if !info.Mode().IsRegular() {
		return nil, s.fail(object.OpGet, key, object.NotExist, nil)
	}
	want := max(info.Size()-off, 0)
	if n >= 0 {
		want = min(want, n)
	}
	if want > object.SizeMax {
		return nil, s.fail(object.OpGet, key, object.Invalid, fmt.Errorf("object has %d bytes", info.Size()))
	}
	b := make([]byte, want)
	if _, err := io.ReadFull(io.NewSectionReader(f, off, want), b); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, s.fail(object.OpGet, key, object.Broken, err)
		}
		return nil, s.wrap(object.OpGet, key, err)
	}
	return b, nil
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	if err := object.CheckKey(key); err != nil {
		return object.Info{}, s.fail(object.OpStat, key, object.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return object.Info{}, s.fail(object.OpStat, key, object.Interrupted, err)
	}
	info, err := os.Lstat(s.path(key))
	if err != nil {
		return object.Info{}, s.wrapMissing(object.OpStat, key, err)
	}
	if !info.Mode().IsRegular() {
		return object.Info{}, s.fail(object.OpStat, key, object.NotExist, nil)
	}
	version, err := s.version(s.path(key), info.Size())
	if err != nil {
		return object.Info{}, s.wrapMissing(object.OpStat, key, err)
	}
	return object.Info{Key: key, Size: info.Size(), Modified: info.ModTime(), Version: version}, nil
}

// Delete implements object.Store. The directory stays, for the next object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return s.fail(object.OpDelete, key, object.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return s.fail(object.OpDelete, key, object.Interrupted, err)
	}
	path := s.path(key)
	err := syscall.Unlink(path)
	switch {
	case err == nil:
		if err := syncDir(filepath.Dir(path)); err != nil {
			return s.wrap(object.OpDelete, key, err)
		}
		return nil
	case isMissing(err), errors.Is(err, syscall.EISDIR):
		return s.checkRoot(object.OpDelete, key)
	default:
		return s.wrap(object.OpDelete, key, err)
	}
}

// wrapMissing is wrap where a missing file is an ordinary answer, provided that
// the bucket itself is there.
func (s *Store) wrapMissing(op object.Op, key string, err error) error {
	if !isMissing(err) {
		return s.wrap(op, key, err)
	}
	if err := s.checkRoot(op, key); err != nil {
		return err
	}
	return s.fail(op, key, object.NotExist, nil)
}

func (s *Store) checkRoot(op object.Op, key string) error {
	if _, err := os.Stat(s.path(tempDir)); err != nil {
		if isMissing(err) {
			return s.fail(op, key, object.NoBucket, err)
		}
		return s.wrap(op, key, err)
	}
	return nil
}

// isMissing: a component that is a file where a key has a directory means that
// the key is absent, too.
func isMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (s *Store) fail(op object.Op, key string, kind object.Kind, err error) error {
	e := &object.Error{Op: op, Key: key, Store: "file://" + s.root, Kind: kind, Err: err}
	if kind == object.NoBucket {
		e.Hint = "create the directory, mount it, or correct the configured object URL"
	}
	return e
}

// wrap classifies an error of the file system.
func (s *Store) wrap(op object.Op, key string, err error) error {
	e := &object.Error{Op: op, Key: key, Store: "file://" + s.root, Err: err}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Kind = object.NoSpace
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		e.Kind, e.Hint = object.Credentials, "make the directory writable for the user that wpfs runs as"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		// A key that is another key's directory, or a root that is a file.
		e.Kind = object.Invalid
	case errors.Is(err, os.ErrNotExist):
		e.Kind = object.NoBucket
		e.Hint = "create the directory, mount it, or correct the configured object URL"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.EMFILE),
		errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ETIMEDOUT):
		e.Kind, e.Hint = object.Busy, "look at the disk and the kernel log of this machine"
	default:
		e.Kind = object.Unknown
	}
	return e
}

// mkdirSynced makes one directory and its name durable; one that exists is fine.
func mkdirSynced(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			if err != nil {
				return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
			}
			return nil
		}
	}
}
