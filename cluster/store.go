package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// store is this node's copy of the metadata. Its state is replaced as a whole
// when a snapshot comes from the leader; everybody else holds it by a method.
//
//	DIR/meta/       the live store
//	DIR/meta.new/   a restored one; complete if it holds the file "complete"
type store struct {
	dir  string
	hook func(*meta.State) // sets the callbacks of a state just opened

	mu    sync.RWMutex // held for reading by users of state, for writing by restore
	state *meta.State
}

const (
	metaDir      = "meta"
	metaNewDir   = "meta.new"
	completeFile = "complete"
)

func openStore(dir string, hook func(*meta.State)) (*store, error) {
	s := &store{dir: dir, hook: hook}
	if err := s.finishSwap(); err != nil {
		return nil, fmt.Errorf("finish the restore of a snapshot: %w", err)
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *store) open() error {
	kv, err := meta.OpenPebble(filepath.Join(s.dir, metaDir), meta.PebbleOptions{})
	if err != nil {
		return err
	}
	st, err := meta.Open(kv)
	if err != nil {
		return errors.Join(err, kv.Close())
	}
	s.hook(st)
	s.state = st
	return nil
}

// finishSwap completes or drops a restore that a crash interrupted.
func (s *store) finishSwap() error {
	fresh := filepath.Join(s.dir, metaNewDir)
	if _, err := os.Stat(filepath.Join(fresh, completeFile)); err != nil {
		return os.RemoveAll(fresh)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, metaDir)); err != nil {
		return err
	}
	if err := os.Rename(fresh, filepath.Join(s.dir, metaDir)); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.dir, metaDir, completeFile)); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// restore replaces the state by a snapshot's stream. Readers wait only for the
// swap itself; before they see the new state, swapped is called with its index
// (it must not use the store). After an error the old state is still in use, unless it had
// been closed already; then every later use fails and the node must restart.
func (s *store) restore(r io.Reader, swapped func(fs.Index)) error {
	fresh := filepath.Join(s.dir, metaNewDir)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := readTar(r, fresh); err != nil {
		return fmt.Errorf("unpack snapshot: %w", err)
	}
	if err := writeFileSync(filepath.Join(fresh, completeFile), nil); err != nil {
		return err
	}
	if err := errors.Join(syncDir(fresh), syncDir(s.dir)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.state.Close()
	s.state = nil
	if err != nil {
		return fmt.Errorf("close the metadata store: %w", err)
	}
	if err := s.finishSwap(); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	swapped(s.state.Applied())
	return nil
}

// read runs f on one consistent state.
func (s *store) read(f func(fs.View) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state == nil {
		return &fs.Error{Op: "read metadata", Kind: fs.ErrIO, Err: errStoreClosed}
	}
	return s.state.Read(f)
}

var errStoreClosed = errors.New("the metadata store is closed: the node is ending")

// use lends the state. f must not keep it. Once the store is closed f is not
// called.
func (s *store) use(f func(*meta.State)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state != nil {
		f(s.state)
	}
}

func (s *store) applied() (at fs.Index) {
	s.use(func(st *meta.State) { at = st.Applied() })
	return at
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil { // a restore failed after it had closed the old one
		return nil
	}
	err := errors.Join(s.state.Flush(), s.state.Close())
	s.state = nil
	return err
}
