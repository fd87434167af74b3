// Package seal wraps a bucket and encrypts what is put into it, so that whoever
// can read or change the bucket learns nothing of the content and can replace none
// of it without that being noticed: AES-256-GCM in segments that can be read one by
// one, each object under a key of its own, bound to the object's name.
//
// What it does not hide: how many objects there are, their names, sizes and times.
// Nor does it notice that an object is an old version of itself.
//
// docs/format/objects.md has the picture.
package seal

import (
	"context"
	"errors"
	"iter"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/wpfs/wpfs/fs/object"
)

// headsMax is how many objects' heads are remembered, so that parts of an object
// cost one request each. An entry has about 600 bytes.
const headsMax = 4096

// Options for New.
type Options struct {
	// Keys to read with; the first is to write with. None: nothing is encrypted, and
	// what is encrypted cannot be read, which is said clearly.
	Keys Keys
	// AcceptPlain: objects that are not encrypted are read as they are, for a bucket
	// from before. Otherwise they are refused: somebody else may have put them there.
	AcceptPlain bool
}

// Store is the wrapper.
type Store struct {
	next  object.Store
	o     Options
	heads *lru.Cache[string, *head] // nil: a plain object
}

var _ object.Store = (*Store)(nil)

// New wraps next. Keys of objects stay as they are.
func New(next object.Store, o Options) *Store {
	heads, err := lru.New[string, *head](headsMax)
	if err != nil {
		panic(err) // headsMax is not positive
	}
	return &Store{next: next, o: o, heads: heads}
}

// Put implements object.Store. With keys, an object has at most PlainMax bytes.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	if err := object.CheckPut(key, b, o); err != nil {
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Invalid, Err: err}
	}
	if len(s.o.Keys) == 0 {
		return s.next.Put(ctx, key, b, o)
	}
	if int64(len(b)) > PlainMax {
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Invalid, Err: errors.New("too large to be encrypted")}
	}
	sealed, err := seal(s.o.Keys[0], key, b)
	if err != nil {
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Unknown, Err: err}
	}
	s.heads.Remove(key)
	return s.next.Put(ctx, key, sealed, o)
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if len(s.o.Keys) == 0 {
		return s.getPlain(ctx, key, off, n)
	}
	if err := object.CheckGet(key, off); err != nil {
		return nil, &object.Error{Op: object.OpGet, Key: key, Kind: object.Invalid, Err: err}
	}
	remembered := s.heads.Contains(key)
	b, err := s.get(ctx, key, off, n)
	if remembered && errors.Is(err, errSeal) { // somebody has put the object anew
		s.heads.Remove(key)
		b, err = s.get(ctx, key, off, n)
	}
	if err != nil {
		s.heads.Remove(key)
		return nil, s.wrap(object.OpGet, key, err)
	}
	return b, nil
}

// getPlain reads without keys, and tells what is encrypted where that shows.
func (s *Store) getPlain(ctx context.Context, key string, off, n int64) ([]byte, error) {
	b, err := s.next.Get(ctx, key, off, n)
	if err == nil && off == 0 && isSealed(b) {
		id := ID{}
		copy(id[:], b[len(magic):])
		return nil, s.wrap(object.OpGet, key, unknownKey{id})
	}
	return b, err
}

// get returns errors of the layer below as they are; wrap makes *object.Error of
// the others.
func (s *Store) get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	first, at := segmentOf(off)
	from := segmentStart(first)
	if first == 0 {
		from = 0 // the head comes along
	}
	want := int64(-1)
	if n >= 0 {
		last, _ := segmentOf(off + max(n, 1) - 1)
		want = segmentStart(last+1) - from
	}
	h, known := s.heads.Get(key)
	if first > 0 && !known {
		b, err := s.next.Get(ctx, key, 0, int64(headSize))
		if err != nil {
			return nil, err
		}
		if h, err = s.remember(key, b); err != nil {
			return nil, err
		}
		known = true
	}
	if known && h == nil {
		return s.next.Get(ctx, key, off, n)
	}
	b, err := s.next.Get(ctx, key, from, want)
	if err != nil {
		return nil, err
	}
	ends := want < 0 || int64(len(b)) < want
	if first == 0 {
		if h, err = s.remember(key, b); err != nil {
			return nil, err
		}
		if h == nil {
			return s.next.Get(ctx, key, off, n)
		}
		b = b[headSize:]
	}
	if len(b) == 0 {
		return nil, s.beyond(ctx, key, off, h)
	}
	plain, err := h.openFrom(first, b, ends)
	if err != nil {
		return nil, err
	}
	plain = plain[min(at, int64(len(plain))):]
	if n >= 0 {
		plain = plain[:min(n, int64(len(plain)))]
	}
	return plain, nil
}

// remember reads the head of an object, of which b is the beginning; nil: it is
// plain, and that is accepted.
func (s *Store) remember(key string, b []byte) (*head, error) {
	if !isSealed(b) {
		if !s.o.AcceptPlain {
			if strings.HasPrefix(magic, string(b)) { // cut within it
				return nil, errSeal
			}
			return nil, errPlain
		}
		s.heads.Add(key, nil)
		return nil, nil
	}
	h, err := readHead(s.o.Keys, key, b)
	if err != nil {
		return nil, err
	}
	s.heads.Add(key, h)
	return h, nil
}

// beyond proves that the object ends before plain byte off: what was cut off by
// somebody would end there, too.
func (s *Store) beyond(ctx context.Context, key string, off int64, h *head) error {
	info, err := s.next.Stat(ctx, key)
	if err != nil {
		return err
	}
	size, err := plainSize(info.Size)
	if err != nil || size > off {
		return errSeal
	}
	last, _ := segmentOf(max(size, 1) - 1)
	b, err := s.next.Get(ctx, key, segmentStart(last), -1)
	if err != nil {
		return err
	}
	_, err = h.openFrom(last, b, true)
	return err
}

var errPlain = errors.New("it is not encrypted")

// wrap makes an *object.Error of errors of this package.
func (s *Store) wrap(op object.Op, key string, err error) error {
	e := &object.Error{Op: op, Key: key, Err: err}
	var unknown unknownKey
	switch {
	case errors.As(err, &unknown):
		e.Kind, e.Hint = object.Credentials, "add key "+unknown.id.String()+" to object.encryption_key_file"
	case errors.Is(err, errPlain):
		e.Kind, e.Hint = object.Credentials,
			"if the bucket was used without encryption before, set object.encryption_accept_plain; if not, somebody else has written there"
	case errors.Is(err, errSeal):
		e.Kind = object.Damaged
	default:
		return err
	}
	return e
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	info, err := s.next.Stat(ctx, key)
	if err != nil || len(s.o.Keys) == 0 {
		return info, err
	}
	if s.o.AcceptPlain {
		b, err := s.next.Get(ctx, key, 0, int64(len(magic)))
		if err != nil || !isSealed(b) {
			return info, err
		}
	}
	if info.Size, err = plainSize(info.Size); err != nil {
		return object.Info{}, s.wrap(object.OpStat, key, err)
	}
	return info, nil
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	s.heads.Remove(key)
	return s.next.Delete(ctx, key)
}

// List implements object.Store. The size of an object that nothing sealed can have
// is what the store says. With AcceptPlain all sizes are: nothing in a listing tells
// what is encrypted, so they are upper bounds, and [Store.Stat] has the truth.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	if len(s.o.Keys) == 0 || s.o.AcceptPlain {
		return s.next.List(ctx, prefix, after)
	}
	return func(yield func(object.Info, error) bool) {
		for info, err := range s.next.List(ctx, prefix, after) {
			if size, odd := plainSize(info.Size); err == nil && odd == nil {
				info.Size = size
			}
			if !yield(info, err) {
				return
			}
		}
	}
}
