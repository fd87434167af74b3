// Package faulty wraps a bucket for tests and makes chosen calls fail. A
// [Fault] is addressed by operation and key, never by luck, so a test says
// exactly which step goes wrong and how.
package faulty

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"

	"github.com/wpfs/wpfs/fs/object"
)

// Action is what happens to a call that a Fault hits.
type Action uint8

// The actions.
const (
	// Fail returns an error of the fault's Kind; the call has no effect.
	Fail Action = iota
	// Hang waits for the end of the call's context; the call has no effect.
	Hang
	// LoseAnswer carries the call out and then fails with Unreachable.
	LoseAnswer
	// ShortBody cuts the last byte off what Get returns, without an error: a
	// store that breaks its promise. What Put stores is cut the same way.
	ShortBody
	// FlipBit changes one bit of what Get returns or Put stores.
	FlipBit
)

// Fault selects calls and says what happens to them.
type Fault struct {
	Op    object.Op // "": every operation
	Key   string    // "": every key; a trailing '*' means every key that starts so
	Skip  int       // this many matching calls pass first
	Every int       // then every so many-th is hit; 0: each
	Times int       // this many are hit in all; 0: no limit
	Do    Action
	Kind  object.Kind // of Fail; Unknown means Busy
}

// Call is one call that was made, in order of its start.
type Call struct {
	Op  object.Op
	Key string
}

// Store is the wrapper.
type Store struct {
	next object.Store

	mu     sync.Mutex
	faults []*Fault // Skip and Times count down; after a hit, Skip is Every-1
	calls  []Call
	waits  int
}

var _ object.Store = (*Store)(nil)

// New wraps next; it fails nothing until told to.
func New(next object.Store) *Store { return &Store{next: next} }

// Inject adds a fault. Of several that match a call the first one counts.
func (s *Store) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal removes all faults; calls that hang go on hanging.
func (s *Store) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Calls returns all calls so far.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Hanging tells how many calls hang now.
func (s *Store) Hanging() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits
}

// hit records the call and finds the fault that it meets, if any.
func (s *Store) hit(op object.Op, key string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{op, key})
	for i, f := range s.faults {
		if !f.matches(op, key) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		found := *f
		if f.Times == 1 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		f.Times--
		f.Skip = max(f.Every-1, 0)
		return &found
	}
	return nil
}

func (f *Fault) matches(op object.Op, key string) bool {
	if f.Op != "" && f.Op != op {
		return false
	}
	if prefix, ok := strings.CutSuffix(f.Key, "*"); ok {
		return strings.HasPrefix(key, prefix)
	}
	return f.Key == "" || f.Key == key
}

// before carries out the faults that keep a call from happening.
func (s *Store) before(ctx context.Context, f *Fault, op object.Op, key string) error {
	switch {
	case f == nil:
		return nil
	case f.Do == Fail:
		kind := f.Kind
		if kind == object.Unknown {
			kind = object.Busy
		}
		return &object.Error{Op: op, Key: key, Store: "faulty:", Kind: kind, Err: errInjected}
	case f.Do == Hang:
		s.count(+1)
		defer s.count(-1)
		<-ctx.Done()
		return &object.Error{Op: op, Key: key, Store: "faulty:", Kind: object.Interrupted, Err: ctx.Err()}
	default:
		return nil
	}
}

func (s *Store) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits += n
}

var errInjected = errors.New("injected fault")

// after carries out LoseAnswer.
func after(f *Fault, op object.Op, key string, err error) error {
	if f != nil && f.Do == LoseAnswer {
		return &object.Error{Op: op, Key: key, Store: "faulty:", Kind: object.Unreachable, Err: errInjected}
	}
	return err
}

// damage carries out ShortBody and FlipBit on a copy of b.
func damage(f *Fault, b []byte) []byte {
	if f == nil || len(b) == 0 || f.Do != ShortBody && f.Do != FlipBit {
		return b
	}
	b = append([]byte(nil), b...)
	if f.Do == ShortBody {
		return b[:len(b)-1]
	}
	b[len(b)/2] ^= 1
	return b
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	f := s.hit(object.OpPut, key)
	if err := s.before(ctx, f, object.OpPut, key); err != nil {
		return err
	}
	return after(f, object.OpPut, key, s.next.Put(ctx, key, damage(f, b), o))
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	f := s.hit(object.OpGet, key)
	if err := s.before(ctx, f, object.OpGet, key); err != nil {
		return nil, err
	}
	b, err := s.next.Get(ctx, key, off, n)
	if err = after(f, object.OpGet, key, err); err != nil {
		return nil, err
	}
	return damage(f, b), nil
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	f := s.hit(object.OpStat, key)
	if err := s.before(ctx, f, object.OpStat, key); err != nil {
		return object.Info{}, err
	}
	info, err := s.next.Stat(ctx, key)
	return info, after(f, object.OpStat, key, err)
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	f := s.hit(object.OpDelete, key)
	if err := s.before(ctx, f, object.OpDelete, key); err != nil {
		return err
	}
	return after(f, object.OpDelete, key, s.next.Delete(ctx, key))
}

// List implements object.Store. A fault hits it before its first object;
// LoseAnswer, after its first one, as a page that does not arrive would.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		f := s.hit(object.OpList, prefix)
		if err := s.before(ctx, f, object.OpList, prefix); err != nil {
			yield(object.Info{}, err)
			return
		}
		lose := f != nil && f.Do == LoseAnswer
		for info, err := range s.next.List(ctx, prefix, after) {
			if !yield(info, err) || err != nil {
				return
			}
			if lose {
				break
			}
		}
		if lose {
			yield(object.Info{}, &object.Error{Op: object.OpList, Key: prefix, Store: "faulty:", Kind: object.Unreachable, Err: errInjected})
		}
	}
}
