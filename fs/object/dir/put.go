package dir

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

// Put implements object.Store. With IfAbsent the name is made by link(2), which
// fails if it is taken, otherwise by rename(2); both are atomic on every file
// system that has them, network ones included. With IfMatch see swap.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	if err := object.CheckPut(key, b, o); err != nil {
		return s.fail(object.OpPut, key, object.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return s.fail(object.OpPut, key, object.Interrupted, err)
	}
	temp, err := s.writeTemp(b)
	if err != nil {
		return s.wrap(object.OpPut, key, err)
	}
	defer os.Remove(temp) // gone after a rename; of a link, the other name
	if err := ctx.Err(); err != nil {
		return s.fail(object.OpPut, key, object.Interrupted, err)
	}
	if o.IfMatch != "" {
		return s.swap(ctx, temp, key, o.IfMatch)
	}
	if err := s.name(temp, key, o.IfAbsent); err != nil {
		if !errors.Is(err, os.ErrExist) {
			return s.wrap(object.OpPut, key, err)
		}
		if info, lerr := os.Lstat(s.path(key)); lerr == nil && info.IsDir() {
			return s.fail(object.OpPut, key, object.Invalid, errors.New("the key is the directory of other keys"))
		}
		// Exists may be good news: the caller finds its own bytes there and
		// relies on them. So the name is made durable, whoever made it.
		if err := syncDir(filepath.Dir(s.path(key))); err != nil {
			return s.wrap(object.OpPut, key, err)
		}
		return s.fail(object.OpPut, key, object.Exists, nil)
	}
	return nil
}

// writeTemp makes a file that holds b durably, under a name that nobody uses.
func (s *Store) writeTemp(b []byte) (path string, err error) {
	var nonce [12]byte
	rand.Read(nonce[:])
	path = s.path(tempDir, hex.EncodeToString(nonce[:]))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = fdatasync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return "", err
	}
	return path, nil
}

// name gives temp the name key, makes missing directories on the way, and
// returns when the name is durable.
func (s *Store) name(temp, key string, ifAbsent bool) error {
	path := s.path(key)
	if err := s.ensureDir(filepath.Dir(key)); err != nil {
		return err
	}
	move := os.Rename
	if ifAbsent {
		move = os.Link
	}
	err := move(temp, path)
	if errors.Is(err, os.ErrNotExist) {
		s.forgetDirs() // somebody removed a directory behind our back
		if err := s.ensureDir(filepath.Dir(key)); err != nil {
			return err
		}
		err = move(temp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ensureDir makes the directory below the root and returns when its name and
// those above it are durable, even if another put or process has just made
// them: an object is only as safe as the path to it. It never makes the root:
// where that is gone (an unmounted disk), filling its mount point would hide it.
func (s *Store) ensureDir(dir string) error {
	if dir == "." {
		return nil
	}
	s.mu.Lock()
	known := s.durable[dir]
	s.mu.Unlock()
	if known {
		return nil
	}
	path := s.root
	for part := range strings.SplitSeq(dir, "/") {
		parent := path
		path = filepath.Join(path, part)
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := syncDir(parent); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.durable) >= durableMax {
		clear(s.durable)
	}
	s.durable[dir] = true
	return nil
}

func (s *Store) forgetDirs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.durable)
}

// swapLock is the file below tempDir whose flock(2) swaps take in turn.
const swapLock = "swap.lock"

// swap gives temp the name key if that holds version. A file system has no such
// operation, so all processes that use the directory take turns with a lock; a
// Put without a condition does not, for nobody mixes the two on one key.
func (s *Store) swap(ctx context.Context, temp, key, version string) error {
	lock, err := os.OpenFile(s.path(tempDir, swapLock), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return s.wrap(object.OpPut, key, err)
	}
	defer lock.Close() // and with it the lock
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return s.wrap(object.OpPut, key, err)
		}
		select {
		case <-ctx.Done():
			return s.fail(object.OpPut, key, object.Interrupted, ctx.Err())
		case <-time.After(swapPoll):
		}
	}
	info, err := s.Stat(ctx, key)
	switch {
	case errors.Is(err, object.NotExist):
		return s.fail(object.OpPut, key, object.Changed, errors.New("it is gone"))
	case err != nil:
		return err
	case info.Version != version:
		return s.fail(object.OpPut, key, object.Changed, nil)
	}
	if err := s.name(temp, key, false); err != nil {
		return s.wrap(object.OpPut, key, err)
	}
	return nil
}

// swapPoll is the pause between two attempts at the lock: a swap takes a few
// milliseconds, and a blocking flock(2) could not be interrupted.
const swapPoll = 2 * time.Millisecond

// version is the SHA-256 of a small file's bytes: a modification time may be the
// same after two puts within a clock tick. It is "" of a large one.
func (s *Store) version(path string, size int64) (string, error) {
	if size > object.VersionedMax {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
