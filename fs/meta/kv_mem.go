package meta

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/google/btree"
)

// memDegree is the fan-out of the tree; large enough that a copied path is short.
const memDegree = 32

// memFile is the only file of a checkpoint of a memory store.
const memFile = "state"

type pair struct{ k, v []byte }

func pairLess(a, b pair) bool { return bytes.Compare(a.k, b.k) < 0 }

// memTree is one immutable state of a memory store.
type memTree struct{ t *btree.BTreeG[pair] }

// memKV is a KV of immutable trees behind one pointer: Commit changes a
// copy-on-write clone and swaps the pointer, so readers need no lock.
type memKV struct{ now atomic.Pointer[memTree] }

// NewMemKV returns an empty store in memory. Nothing of it survives a restart
// except checkpoints, which LoadMemKV reads.
func NewMemKV() KV {
	m := &memKV{}
	m.now.Store(&memTree{btree.NewG(memDegree, pairLess)})
	return m
}

// LoadMemKV reads a checkpoint that a memory store wrote.
func LoadMemKV(dir string) (KV, error) {
	b, err := os.ReadFile(filepath.Join(dir, memFile))
	if err != nil {
		return nil, fmt.Errorf("load memory store: %w", err)
	}
	var w []Write
	d := dec{b: b}
	for len(d.b) > 0 && d.err == nil {
		w = append(w, Write{Key: d.bytes(), Value: d.bytes()})
	}
	if d.err != nil {
		return nil, fmt.Errorf("load memory store %s: %w", dir, d.err)
	}
	kv := NewMemKV()
	return kv, kv.Commit(w)
}

func (m *memTree) Get(key []byte) ([]byte, bool, error) {
	p, ok := m.t.Get(pair{k: key})
	return p.v, ok, nil
}

func (m *memTree) Scan(lo, hi []byte, f func(k, v []byte) bool) error {
	m.t.AscendGreaterOrEqual(pair{k: lo}, func(p pair) bool {
		return (hi == nil || bytes.Compare(p.k, hi) < 0) && f(p.k, p.v)
	})
	return nil
}

func (m *memTree) Last(lo, hi []byte) (k, v []byte, ok bool, err error) {
	m.t.DescendLessOrEqual(pair{k: hi}, func(p pair) bool {
		if bytes.Equal(p.k, hi) {
			return true
		}
		if bytes.Compare(p.k, lo) >= 0 {
			k, v, ok = p.k, p.v, true
		}
		return false
	})
	return k, v, ok, nil
}

func (m *memTree) Close() error { return nil }

func (m *memKV) Get(key []byte) ([]byte, bool, error) { return m.now.Load().Get(key) }
func (m *memKV) Scan(lo, hi []byte, f func(k, v []byte) bool) error {
	return m.now.Load().Scan(lo, hi, f)
}
func (m *memKV) Last(lo, hi []byte) (k, v []byte, ok bool, err error) {
	return m.now.Load().Last(lo, hi)
}

func (m *memKV) Commit(w []Write) error {
	t := m.now.Load().t.Clone()
	for _, x := range w {
		if x.Delete {
			t.Delete(pair{k: x.Key})
			continue
		}
		t.ReplaceOrInsert(pair{bytes.Clone(x.Key), append([]byte{}, x.Value...)})
	}
	m.now.Store(&memTree{t})
	return nil
}

func (m *memKV) Snapshot() (Snapshot, error) { return m.now.Load(), nil }
func (m *memKV) Flush() error                { return nil }

func (m *memKV) Checkpoint(dir string) error {
	var e enc
	err := m.Scan(nil, nil, func(k, v []byte) bool {
		e.bytes(k)
		e.bytes(v)
		return true
	})
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("checkpoint memory store: %w", err)
	}
	return writeSynced(filepath.Join(dir, memFile), e.b)
}

// writeSynced writes b to a new file and its directory entry to the disk.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint memory store: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("checkpoint memory store: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("checkpoint memory store: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (m *memKV) Close() error { return nil }
