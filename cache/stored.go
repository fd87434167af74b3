package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Figures of reading packs.
const (
	windowSize = 1 << 20          // bytes of a pack that are read for several chunks in it
	hotFor     = 2 * time.Second  // after one chunk of a pack, another one makes it hot
	aheadMax   = 16 << 20         // bytes that were read for several chunks and are kept
	aheadFor   = 10 * time.Second // how long
)

// fetchStored gets a chunk from the object store. ErrNotFound if it is not there.
func (t *Tier) fetchStored(ctx context.Context, c fs.ChunkInfo) ([]byte, error) {
	b, err := t.openStored(ctx, c)
	if errors.Is(err, object.NotExist) {
		return nil, fs.ErrNotFound
	}
	return b, err
}

func (t *Tier) openStored(ctx context.Context, c fs.ChunkInfo) ([]byte, error) {
	at := c.Place
	if at == (fs.Place{}) {
		b, err := t.store.Get(ctx, pack.ChunkKey(c.ID), 0, -1)
		if err != nil {
			return nil, err
		}
		return pack.Open(b, c.ID)
	}
	r, err := t.readRange(ctx, at)
	if err != nil {
		return nil, err
	}
	b, err := r.open(c)
	if err == nil || !r.window {
		return b, err
	}
	// Damage on the way must not last as long as the window is kept.
	t.ranges.forget(r)
	r = &rangeRead{pack: at.Pack, off: int64(at.Off)}
	if r.b, err = t.store.Get(ctx, pack.Key(at.Pack), r.off, int64(at.Len)); err != nil {
		return nil, err
	}
	return r.open(c)
}

// readRange returns a part of a pack that at lies in.
func (t *Tier) readRange(ctx context.Context, at fs.Place) (*rangeRead, error) {
	for {
		r, mine := t.ranges.join(at, time.Now())
		if mine {
			b, err := t.store.Get(ctx, pack.Key(at.Pack), r.off, r.end-r.off)
			t.ranges.read(r, b, err, err != nil && ctx.Err() != nil)
			return r, err
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !r.abandoned {
			return r, r.err
		}
	}
}

// rangeRead is a part of a pack, on its way or here. Any number of readers wait
// for it.
type rangeRead struct {
	pack     fs.PackID
	off, end int64 // what is asked for
	window   bool  // for more than one chunk
	at       time.Time
	done     chan struct{} // closed at the end; what follows does not change then
	b        []byte
	err      error
	// abandoned: the reader that did the work was itself interrupted, which
	// says nothing about the pack.
	abandoned bool
}

func (r *rangeRead) covers(at fs.Place) bool {
	return r.pack == at.Pack && r.off <= int64(at.Off) && int64(at.Off)+int64(at.Len) <= r.end
}

// open returns one chunk of r. It may share memory with r, which others read too.
func (r *rangeRead) open(c fs.ChunkInfo) ([]byte, error) {
	at := c.Place
	from := int64(at.Off) - r.off
	if from+int64(at.Len) > int64(len(r.b)) {
		return nil, &fs.Error{Op: "read pack", Name: at.Pack.String(), Kind: fs.ErrCorrupt,
			Err: fmt.Errorf("it ends at %d, the metadata has a chunk at %d+%d", r.off+int64(len(r.b)), at.Off, at.Len)}
	}
	return pack.Open(r.b[from:][:at.Len:at.Len], c.ID)
}

// rangeSet decides how much of a pack is read when a chunk in it is wanted: the
// chunk alone, or, if another one was wanted shortly before, the window of
// windowSize that it lies in. Files that were written together are packed and
// read together: one request then serves hundreds of small ones. Windows are kept
// for a little while, in memory; what is read out of them goes to the disk.
type rangeSet struct {
	mu     sync.Mutex
	ranges []*rangeRead // oldest first
	bytes  int          // of those that are here
	last   map[fs.PackID]time.Time
}

// join returns a range that covers at; mine tells the caller to read it.
func (s *rangeSet) join(at fs.Place, now time.Time) (r *rangeRead, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	for _, r := range s.ranges {
		if r.covers(at) {
			s.last[at.Pack] = now
			return r, false
		}
	}
	r = &rangeRead{pack: at.Pack, off: int64(at.Off), end: int64(at.Off) + int64(at.Len), at: now, done: make(chan struct{})}
	begin := r.off - r.off%windowSize
	if _, hot := s.last[at.Pack]; hot && r.end <= begin+windowSize { // else it lies across a border, or is large
		r.off, r.end, r.window = begin, begin+windowSize, true
	}
	if s.last == nil {
		s.last = map[fs.PackID]time.Time{}
	}
	s.last[at.Pack] = now
	s.ranges = append(s.ranges, r)
	return r, true
}

// read ends the reading of r. A window is kept; what was read for one chunk is
// not, nor what failed.
func (s *rangeSet) read(r *rangeRead, b []byte, err error, abandoned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.b, r.err, r.abandoned = b, err, abandoned
	close(r.done)
	if err != nil || !r.window {
		s.ranges = slices.DeleteFunc(s.ranges, func(x *rangeRead) bool { return x == r })
		return
	}
	s.bytes += len(r.b)
	for i := 0; s.bytes > aheadMax && i < len(s.ranges); {
		if !s.drop(i) {
			i++
		}
	}
}

// forget removes a window whose bytes are wrong.
func (s *rangeSet) forget(r *rangeRead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.ranges, r); i >= 0 {
		s.drop(i)
	}
}

// drop removes range i if it is here, and tells so.
func (s *rangeSet) drop(i int) bool {
	r := s.ranges[i]
	select {
	case <-r.done:
	default:
		return false // on its way; read will count it
	}
	s.bytes -= len(r.b)
	s.ranges = slices.Delete(s.ranges, i, i+1)
	return true
}

// expire forgets what was read some time ago.
func (s *rangeSet) expire(now time.Time) {
	for i := 0; i < len(s.ranges); {
		if now.Sub(s.ranges[i].at) < aheadFor || !s.drop(i) {
			i++
		}
	}
	for id, at := range s.last {
		if now.Sub(at) >= hotFor {
			delete(s.last, id)
		}
	}
}
