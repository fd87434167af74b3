// Package mem is a bucket in memory, for tests: the smallest thing that keeps
// every promise of [object.Store] except surviving the process.
package mem

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// Store is the bucket. The zero value is not usable; see New.
type Store struct {
	mu      sync.Mutex
	puts    uint64
	objects map[string]entry
}

type entry struct {
	b        []byte // never changed once stored
	modified time.Time
	version  string
}

var _ object.Store = (*Store)(nil)

// New makes an empty bucket.
func New() *Store { return &Store{objects: make(map[string]entry)} }

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	if err := object.CheckPut(key, b, o); err != nil {
		return fail(object.OpPut, key, object.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(object.OpPut, key, object.Interrupted, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.objects[key]
	switch {
	case ok && o.IfAbsent:
		return fail(object.OpPut, key, object.Exists, nil)
	case o.IfMatch != "" && old.version != o.IfMatch:
		return fail(object.OpPut, key, object.Changed, nil)
	}
	s.puts++
	s.objects[key] = entry{bytes.Clone(b), time.Now(), strconv.FormatUint(s.puts, 10)}
	return nil
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := object.CheckGet(key, off); err != nil {
		return nil, fail(object.OpGet, key, object.Invalid, err)
	}
	e, err := s.find(ctx, object.OpGet, key)
	if err != nil {
		return nil, err
	}
	b := e.b[min(off, int64(len(e.b))):]
	if n >= 0 {
		b = b[:min(n, int64(len(b)))]
	}
	return bytes.Clone(b), nil
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	if err := object.CheckKey(key); err != nil {
		return object.Info{}, fail(object.OpStat, key, object.Invalid, err)
	}
	e, err := s.find(ctx, object.OpStat, key)
	if err != nil {
		return object.Info{}, err
	}
	return object.Info{Key: key, Size: int64(len(e.b)), Modified: e.modified, Version: e.version}, nil
}

func (s *Store) find(ctx context.Context, op object.Op, key string) (entry, error) {
	if err := ctx.Err(); err != nil {
		return entry{}, fail(op, key, object.Interrupted, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[key]
	if !ok {
		return entry{}, fail(op, key, object.NotExist, nil)
	}
	return e, nil
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return fail(object.OpDelete, key, object.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(object.OpDelete, key, object.Interrupted, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if err := object.CheckPrefix(prefix); err != nil {
			yield(object.Info{}, fail(object.OpList, prefix, object.Invalid, err))
			return
		}
		for _, key := range s.keys() {
			if err := ctx.Err(); err != nil {
				yield(object.Info{}, fail(object.OpList, prefix, object.Interrupted, err))
				return
			}
			if key <= after || !strings.HasPrefix(key, prefix) {
				continue
			}
			info, err := s.Stat(ctx, key)
			if errors.Is(err, object.NotExist) {
				continue
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(object.Info{}, fail(object.OpList, prefix, object.Interrupted, err))
		}
	}
}

func (s *Store) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

func fail(op object.Op, key string, kind object.Kind, err error) error {
	return &object.Error{Op: op, Key: key, Store: "mem:", Kind: kind, Err: err}
}
