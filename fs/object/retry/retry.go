// Package retry wraps a bucket and tries again what may succeed then. Whether
// that is so the driver has decided ([object.Class]); this package only asks,
// waits, and clears up what a lost answer leaves open.
package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// Options for New; the zero value means the defaults.
type Options struct {
	Attempts   int           // in all, at least 1; default 5
	BackoffMin time.Duration // before the second attempt at most; default 100 ms
	BackoffMax time.Duration // at most, however many attempts; default 2 s
	// OnRetry hears of every failure that is tried again, for logs and metrics.
	OnRetry func(op object.Op, key string, attempt int, err error)
}

func (o *Options) setDefaults() {
	if o.Attempts <= 0 {
		o.Attempts = 5
	}
	if o.BackoffMin <= 0 {
		o.BackoffMin = 100 * time.Millisecond
	}
	if o.BackoffMax <= 0 {
		o.BackoffMax = 2 * time.Second
	}
	if o.OnRetry == nil {
		o.OnRetry = func(object.Op, string, int, error) {}
	}
}

// Store is the wrapper. There is no budget shared by calls: in an outage each
// call still makes all its attempts, and whoever calls in a loop has to slow
// down by itself.
type Store struct {
	next object.Store
	o    Options
}

var _ object.Store = (*Store)(nil)

// New wraps next.
func New(next object.Store, o Options) *Store {
	o.setDefaults()
	return &Store{next: next, o: o}
}

// do calls f until it succeeds, fails for good, or the attempts are used up.
func (s *Store) do(ctx context.Context, op object.Op, key string, f func(attempt int) error) error {
	for attempt := 1; ; attempt++ {
		err := f(attempt)
		if err == nil {
			return nil
		}
		if err := s.again(ctx, op, key, attempt, err); err != nil {
			return err
		}
	}
}

// again returns nil when it is time for another attempt, and otherwise the
// error that the call ends with.
func (s *Store) again(ctx context.Context, op object.Op, key string, attempt int, err error) error {
	if object.ClassOf(err) != object.Again || object.KindOf(err) == object.Suspended {
		return err // whoever has suspended the store knows when to ask again
	}
	if ctx.Err() == nil {
		if attempt >= s.o.Attempts {
			return err
		}
		s.o.OnRetry(op, key, attempt, err)
		if s.wait(ctx, attempt) {
			return nil
		}
	}
	// The failure goes along as text only: what ended the call is the context.
	return &object.Error{Op: op, Key: key, Kind: object.Interrupted, Err: fmt.Errorf("%w after: %v", ctx.Err(), err)}
}

// wait sleeps a random part of a doubling time, so that many clients that
// failed together do not come back together. It reports whether ctx still runs.
func (s *Store) wait(ctx context.Context, attempt int) bool {
	limit := s.o.BackoffMax
	if shift := attempt - 1; shift < 20 {
		limit = min(limit, s.o.BackoffMin<<shift)
	}
	t := time.NewTimer(limit/2 + rand.N(limit/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Put implements object.Store. If the condition of a put does not hold after an
// attempt of unknown outcome, the reason may be that attempt: the same bytes mean
// success (rule R39).
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	return s.do(ctx, object.OpPut, key, func(attempt int) error {
		err := s.next.Put(ctx, key, b, o)
		if attempt == 1 || !errors.Is(err, object.Exists) && !errors.Is(err, object.Changed) {
			return err
		}
		got, gerr := s.next.Get(ctx, key, 0, -1)
		switch {
		case errors.Is(gerr, object.NotExist) && o.IfMatch != "":
			return err
		case errors.Is(gerr, object.NotExist):
			// Put and deleted by somebody else in between: the next attempt decides.
			return &object.Error{Op: object.OpPut, Key: key, Kind: object.Busy, Err: gerr}
		case gerr != nil:
			return gerr
		case bytes.Equal(got, b):
			return nil
		default:
			return err
		}
	})
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (b []byte, err error) {
	err = s.do(ctx, object.OpGet, key, func(int) error {
		b, err = s.next.Get(ctx, key, off, n)
		return err
	})
	return b, err
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (info object.Info, err error) {
	err = s.do(ctx, object.OpStat, key, func(int) error {
		info, err = s.next.Stat(ctx, key)
		return err
	})
	return info, err
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.do(ctx, object.OpDelete, key, func(int) error { return s.next.Delete(ctx, key) })
}

// List implements object.Store. After a failure it goes on behind the last key
// it has yielded; every key that arrives earns the full number of attempts.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		for attempt := 1; ; attempt++ {
			var failed error
			for info, err := range s.next.List(ctx, prefix, after) {
				if err != nil {
					failed = err
					break
				}
				if !yield(info, nil) {
					return
				}
				after, attempt = info.Key, 1
			}
			if failed == nil {
				return
			}
			if err := s.again(ctx, object.OpList, prefix, attempt, failed); err != nil {
				yield(object.Info{}, err)
				return
			}
		}
	}
}
