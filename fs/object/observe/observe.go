// Package observe wraps a bucket and reports every call: as an [Event] to a
// callback, and through [Counters], a listener that adds them up for whoever
// exports metrics.
package observe

import (
	"context"
	"iter"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// Event is one finished call.
type Event struct {
	Op    object.Op
	Key   string        // of List: the prefix
	Bytes int           // of content sent or received; 0 after a failure
	Took  time.Duration // of List: including the time its consumer took
	Err   error
}

// Store is the wrapper.
type Store struct {
	next   object.Store
	listen func(Event)
}

var _ object.Store = (*Store)(nil)

// New wraps next. listen is called in the goroutine of each call, so it must be
// fast and safe for concurrent use.
func New(next object.Store, listen func(Event)) *Store {
	return &Store{next: next, listen: listen}
}

func (s *Store) report(op object.Op, key string, start time.Time, n int, err error) {
	if err != nil {
		n = 0
	}
	s.listen(Event{Op: op, Key: key, Bytes: n, Took: time.Since(start), Err: err})
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	start := time.Now()
	err := s.next.Put(ctx, key, b, o)
	s.report(object.OpPut, key, start, len(b), err)
	return err
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	start := time.Now()
	b, err := s.next.Get(ctx, key, off, n)
	s.report(object.OpGet, key, start, len(b), err)
	return b, err
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	start := time.Now()
	info, err := s.next.Stat(ctx, key)
	s.report(object.OpStat, key, start, 0, err)
	return info, err
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	start := time.Now()
	err := s.next.Delete(ctx, key)
	s.report(object.OpDelete, key, start, 0, err)
	return err
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		start := time.Now()
		var failed error
		defer func() { s.report(object.OpList, prefix, start, 0, failed) }()
		for info, err := range s.next.List(ctx, prefix, after) {
			if err != nil {
				failed = err
			}
			if !yield(info, err) {
				return
			}
		}
	}
}
