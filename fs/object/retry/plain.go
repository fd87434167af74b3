package retry

import (
	"context"
	"io"
	"iter"

	"github.com/wpfs/wpfs/fs/object"
)

// PlainSource is what [Plain] wraps: a list can be gone on with.
type PlainSource interface {
	object.Plain
	// ListAfter is List for the keys above after.
	ListAfter(ctx context.Context, after string) iter.Seq2[object.PlainInfo, error]
}

// Plain wraps the door for ordinary objects. A body that was opened is not
// opened again: whoever reads it knows what to do with what has arrived.
type Plain struct {
	next PlainSource
	s    Store
}

var _ object.Plain = (*Plain)(nil)

// NewPlain wraps next.
func NewPlain(next PlainSource, o Options) *Plain {
	o.setDefaults()
	return &Plain{next: next, s: Store{o: o}}
}

// List implements object.Plain. After a failure it goes on behind the last key
// it has yielded; every key that arrives earns the full number of attempts.
func (p *Plain) List(ctx context.Context) iter.Seq2[object.PlainInfo, error] {
	return func(yield func(object.PlainInfo, error) bool) {
		after := ""
		for attempt := 1; ; attempt++ {
			var failed error
			for info, err := range p.next.ListAfter(ctx, after) {
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
			if err := p.s.again(ctx, object.OpList, "", attempt, failed); err != nil {
				yield(object.PlainInfo{}, err)
				return
			}
		}
	}
}

// Stat implements object.Plain.
func (p *Plain) Stat(ctx context.Context, key string) (info object.PlainInfo, err error) {
	err = p.s.do(ctx, object.OpStat, key, func(int) error {
		info, err = p.next.Stat(ctx, key)
		return err
	})
	return info, err
}

// Open implements object.Plain.
func (p *Plain) Open(ctx context.Context, key string) (info object.PlainInfo, r io.ReadCloser, err error) {
	err = p.s.do(ctx, object.OpGet, key, func(int) error {
		info, r, err = p.next.Open(ctx, key)
		return err
	})
	return info, r, err
}

// Put implements object.Plain.
func (p *Plain) Put(ctx context.Context, key string, body io.ReaderAt, size int64, head object.PlainHead) (etag string, err error) {
	err = p.s.do(ctx, object.OpPut, key, func(int) error {
		etag, err = p.next.Put(ctx, key, body, size, head)
		return err
	})
	return etag, err
}

// Delete implements object.Plain.
func (p *Plain) Delete(ctx context.Context, key string) error {
	return p.s.do(ctx, object.OpDelete, key, func(int) error { return p.next.Delete(ctx, key) })
}
