// Package breaker wraps a bucket and stops asking one that does not answer: after
// a few failures in a row every call fails at once with [object.Suspended], which
// costs microseconds instead of a timeout, until a probe of the breaker's own
// succeeds (the circuit breaker of Nygard, "Release It!", 2007). Reads and writes
// have a circuit each: a bucket that is full, or refuses uploads, can still be
// read.
//
// The libraries for this let a caller's own call be the probe, which makes some
// reader wait for the timeout each time; here no caller ever does. That, and the
// growing pauses, is most of what there is to it.
package breaker

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// Options for New; the zero value means the defaults.
type Options struct {
	Failures int           // in a row, after which a circuit opens; default 5
	PauseMin time.Duration // before the first probe; default 1 s
	PauseMax time.Duration // it doubles up to this; default 15 s
	// ProbeMax bounds one probe; default 5 s.
	ProbeMax time.Duration
	// Settled is how long a circuit must have been closed for the next failure
	// to begin with PauseMin again; default 1 min. Without it a bucket whose
	// probes succeed and whose calls fail would be asked every second.
	Settled time.Duration
	Log     *slog.Logger // default: discarded
}

func (o *Options) setDefaults() {
	if o.Failures <= 0 {
		o.Failures = 5
	}
	if o.PauseMin <= 0 {
		o.PauseMin = time.Second
	}
	if o.PauseMax <= 0 {
		o.PauseMax = 15 * time.Second
	}
	if o.ProbeMax <= 0 {
		o.ProbeMax = 5 * time.Second
	}
	if o.Settled <= 0 {
		o.Settled = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// probeKey is what probes write and look for.
const probeKey = object.ProbePrefix + "breaker"

// Store is the wrapper. Without Run an open circuit stays open.
type Store struct {
	next          object.Store
	o             Options
	reads, writes circuit
}

var _ object.Store = (*Store)(nil)

// New wraps next. It starts nothing: see Run.
func New(next object.Store, o Options) *Store {
	o.setDefaults()
	s := &Store{next: next, o: o}
	s.reads = circuit{s: s, what: "reads", wake: make(chan struct{}, 1), probe: func(ctx context.Context) error {
		_, err := next.Stat(ctx, probeKey)
		return err
	}}
	s.writes = circuit{s: s, what: "writes", wake: make(chan struct{}, 1), probe: func(ctx context.Context) error {
		return next.Put(ctx, probeKey, []byte("wpfs\n"), object.PutOptions{})
	}}
	return s
}

// Run probes while a circuit is open, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, c := range []*circuit{&s.reads, &s.writes} {
		wg.Go(func() { c.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Status tells of the circuits.
type Status struct {
	ReadsOpen, WritesOpen bool
	Opened                uint64 // times that a circuit opened
	Refused               uint64 // calls that were not made
}

// Status does not block.
func (s *Store) Status() Status {
	return Status{ReadsOpen: s.reads.open.Load() != nil, WritesOpen: s.writes.open.Load() != nil,
		Opened: s.reads.opened.Load() + s.writes.opened.Load(), Refused: s.reads.refused.Load() + s.writes.refused.Load()}
}

// circuit is one half.
type circuit struct {
	s     *Store
	what  string
	probe func(context.Context) error
	wake  chan struct{} // has a token when the circuit has opened

	open            atomic.Pointer[why] // nil: closed
	opened, refused atomic.Uint64

	mu     sync.Mutex
	row    int           // failures without a success between them
	pause  time.Duration // before the next probe
	closed time.Time     // when it was closed again
}

// why is an open circuit.
type why struct {
	since time.Time
	err   error // what opened it
}

// enter fails at once if the circuit is open.
func (c *circuit) enter(op object.Op, key string) error {
	w := c.open.Load()
	if w == nil {
		return nil
	}
	c.refused.Add(1)
	// The cause goes along as text: the kind of this failure is its own.
	return &object.Error{Op: op, Key: key, Kind: object.Suspended,
		Err: fmt.Errorf("not asked: %s have failed for %v: %v", c.what, time.Since(w.since).Round(time.Second), w.err)}
}

// leave counts the outcome of a call.
func (c *circuit) leave(ctx context.Context, began time.Time, err error) {
	if err != nil && ctx.Err() != nil && time.Since(began) < c.s.o.ProbeMax {
		return // the caller gave up before anybody could have answered
	}
	failed := isFailure(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !failed {
		c.row = 0
		return
	}
	if c.row++; c.row < c.s.o.Failures || c.open.Load() != nil {
		return
	}
	if now := time.Now(); c.pause == 0 || now.Sub(c.closed) > c.s.o.Settled {
		c.pause = c.s.o.PauseMin
	}
	c.opened.Add(1)
	c.open.Store(&why{time.Now(), err})
	c.s.o.Log.Warn("the object store fails again and again; it is only probed until it answers", "what", c.what, "error", err)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// isFailure tells an answer from the lack of one. A refusal is an answer: asking
// again costs little, and says the same.
func isFailure(err error) bool {
	switch object.KindOf(err) {
	case object.Unreachable, object.Busy, object.Broken, object.Unknown, object.Interrupted:
		return err != nil
	}
	return false
}

// run probes while the circuit is open, until ctx ends.
func (c *circuit) run(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		for c.open.Load() != nil {
			t := time.NewTimer(c.nextPause())
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return
			}
			c.try(ctx)
		}
	}
}

// nextPause doubles, and is a random part of that: nodes that lost the bucket
// together do not come back together.
func (c *circuit) nextPause() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pause
	c.pause = min(2*p, c.s.o.PauseMax)
	return p/2 + rand.N(p/2+1)
}

func (c *circuit) try(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.s.o.ProbeMax)
	defer cancel()
	if err := c.probe(ctx); isFailure(err) {
		c.s.o.Log.Debug("the object store does not answer yet", "what", c.what, "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.open.Swap(nil)
	c.row, c.closed = 0, time.Now()
	c.s.o.Log.Info("the object store answers again", "what", c.what, "after", time.Since(w.since).Round(time.Second))
}

// do makes a call through a circuit.
func (c *circuit) do(ctx context.Context, op object.Op, key string, f func() error) error {
	if err := c.enter(op, key); err != nil {
		return err
	}
	began := time.Now()
	err := f()
	c.leave(ctx, began, err)
	return err
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	return s.writes.do(ctx, object.OpPut, key, func() error { return s.next.Put(ctx, key, b, o) })
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (b []byte, err error) {
	err = s.reads.do(ctx, object.OpGet, key, func() error { b, err = s.next.Get(ctx, key, off, n); return err })
	return b, err
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (info object.Info, err error) {
	err = s.reads.do(ctx, object.OpStat, key, func() error { info, err = s.next.Stat(ctx, key); return err })
	return info, err
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.writes.do(ctx, object.OpDelete, key, func() error { return s.next.Delete(ctx, key) })
}

// List implements object.Store. Its outcome is that of the whole listing.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		err := s.reads.do(ctx, object.OpList, prefix, func() error {
			for info, err := range s.next.List(ctx, prefix, after) {
				if err != nil {
					return err
				}
				if !yield(info, nil) {
					break
				}
			}
			return nil
		})
		if err != nil {
			yield(object.Info{}, err)
		}
	}
}
