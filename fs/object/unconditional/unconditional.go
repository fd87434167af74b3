// Package unconditional wraps a bucket whose server does not look at the
// conditions of a put, and looks itself: first what is there, then the put. Two
// writers at the same moment may therefore both win, so two clusters are kept
// apart less surely; the operator has to ask for it.
package unconditional

import (
	"context"
	"errors"

	"github.com/wpfs/wpfs/fs/object"
)

// Store is the wrapper.
type Store struct{ object.Store }

// New wraps next.
func New(next object.Store) *Store { return &Store{next} }

// Put implements object.Store, but for the promise that exactly one wins.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	if err := object.CheckPut(key, b, o); err != nil {
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Invalid, Err: err}
	}
	if !o.IfAbsent && o.IfMatch == "" {
		return s.Store.Put(ctx, key, b, o)
	}
	info, err := s.Stat(ctx, key)
	absent := errors.Is(err, object.NotExist)
	switch {
	case err != nil && !absent:
		return err
	case o.IfAbsent && !absent:
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Exists}
	case o.IfMatch != "" && (absent || info.Version != o.IfMatch):
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Changed}
	}
	return s.Store.Put(ctx, key, b, object.PutOptions{})
}
