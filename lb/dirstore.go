package lb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DirStore is a Store in a directory of one machine, for a balancer without a
// cluster. Processes that use the directory at the same time see one Store.
type DirStore struct{ dir string }

var _ Store = (*DirStore)(nil)

// OpenDirStore makes the directory if it is absent, for its owner only: private
// keys will lie in it.
func OpenDirStore(dir string) (*DirStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for certificates: %w", err)
	}
	return &DirStore{dir}, nil
}

// The file names: the key, escaped, with an ending that no temporary file has.
const valueEnding = ".value"

func (d *DirStore) path(key string) string {
	return filepath.Join(d.dir, url.PathEscape(key)+valueEnding)
}

// Get implements Store.
func (d *DirStore) Get(_ context.Context, key string) ([]byte, error) {
	b, err := os.ReadFile(d.path(key))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Keys implements Store.
func (d *DirStore) Keys(_ context.Context, prefix string) ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), valueEnding)
		if key, err := url.PathUnescape(name); ok && err == nil && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Swap implements Store.
func (d *DirStore) Swap(ctx context.Context, key string, old, now []byte) (bool, error) {
	lock, err := os.OpenFile(filepath.Join(d.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	defer lock.Close() // gives the lock back
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return false, err
	}
	have, err := d.Get(ctx, key)
	if err != nil || (have == nil) != (old == nil) || !bytes.Equal(have, old) {
		return false, err
	}
	if now == nil {
		if have == nil {
			return true, nil
		}
		return true, os.Remove(d.path(key))
	}
	return true, d.write(key, now)
}

// write replaces a value so that a crash leaves the old or the new one.
func (d *DirStore) write(key string, b []byte) error {
	f, err := os.CreateTemp(d.dir, "new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), d.path(key))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
