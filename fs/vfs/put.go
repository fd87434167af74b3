package vfs

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

const (
	// groupFill is when a chunk that small ranges were gathered in is full
	// enough to be closed at a chunk-aligned offset of the file.
	groupFill = fs.ChunkMax / 4
	// groupPieces bounds the ranges gathered in one chunk.
	groupPieces = 1024
)

// group is pieces whose bytes, one after the other, make one chunk.
type group struct {
	first, n int // into the pieces
	bytes    int
}

// cutter turns the dirty ranges of a sealed segment into the pieces of as many
// operations as needed.
type cutter struct {
	s      *segment
	inline int
	at     uint64 // next offset in the segment
}

// next returns the pieces of the next operation. Those that groups mention
// still lack their chunk; the others carry their data. last tells that no
// operation is needed after this one.
func (c *cutter) next() (pieces []fs.Piece, groups []group, last bool) {
	dirty := c.s.data.dirty
	chunked := dirty.bytes() > uint64(c.inline)
	end := dirty.end()
	full := func(x span) bool {
		if len(pieces) == fs.ExtentsMax {
			return true
		}
		pieces = append(pieces, fs.Piece{Off: x.off, Len: x.end - x.off})
		c.at = x.end
		if chunked {
			groups = gather(groups, pieces)
		}
		return false
	}
	for _, x := range dirty[dirty.find(c.at):] {
		for off := max(x.off, c.at); off < x.end; {
			stop := x.end
			if chunked {
				stop = min(stop, off-off%fs.ChunkMax+fs.ChunkMax)
			}
			if full(span{off, stop}) {
				return pieces, groups, false
			}
			off = stop
		}
	}
	c.at = end
	return pieces, groups, true
}

// gather puts the newest piece into the last group, or into a new one.
func gather(groups []group, pieces []fs.Piece) []group {
	p := pieces[len(pieces)-1]
	if n := len(groups); n > 0 {
		g := &groups[n-1]
		boundary := p.Off%fs.ChunkMax == 0 && g.bytes >= groupFill
		if !boundary && g.bytes+int(p.Len) <= fs.ChunkMax && g.n < groupPieces {
			g.n++
			g.bytes += int(p.Len)
			return groups
		}
	}
	return append(groups, group{first: len(pieces) - 1, n: 1, bytes: int(p.Len)})
}

// putAll gives every piece its bytes: those in groups by storing chunks, several
// at a time, the others by data.
func (f *FS) putAll(ctx context.Context, s *segment, pieces []fs.Piece, groups []group, durable bool) error {
	if len(groups) == 0 {
		for i := range pieces {
			data, err := s.data.view(pieces[i].Off, int(pieces[i].Len))
			if err != nil {
				return err
			}
			pieces[i].Data = data
		}
		return nil
	}
	return parallel(min(len(groups), f.opt.PutParallel), len(groups), func(i int) error {
		return f.put(ctx, s, pieces[groups[i].first:][:groups[i].n], groups[i].bytes, durable)
	})
}

// put stores one chunk made of the bytes of pieces, n in all, and cites it in
// them.
func (f *FS) put(ctx context.Context, s *segment, pieces []fs.Piece, n int, durable bool) error {
	select {
	case f.puts <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.puts }()
	buf := f.buffers.Get().(*[]byte)
	defer f.buffers.Put(buf)
	b := (*buf)[:0]
	for _, p := range pieces {
		at := len(b)
		b = b[:at+int(p.Len)]
		if err := s.data.readAt(b[at:], p.Off); err != nil {
			return err
		}
	}
	hash, holders, err := f.chunks.Put(ctx, b, durable)
	if err != nil {
		return err
	}
	if durable {
		f.synced.note(hash, 0, holders)
	} else {
		f.synced.forget(hash)
	}
	at := 0
	for i := range pieces {
		p := &pieces[i]
		p.Hash, p.ChunkOff, p.ChunkLen, p.Holders = hash, uint32(at), uint32(n), holders
		at += int(p.Len)
	}
	return nil
}

// parallel calls f with 0 to n-1 from up to workers goroutines and returns the
// first error, after which it starts no more calls. It waits for all of them.
func parallel(workers, n int, f func(int) error) error {
	if workers <= 1 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		once  sync.Once
		first error
	)
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					once.Do(func() { first = err })
					next.Store(int64(n))
					return
				}
			}
		}()
	}
	wg.Wait()
	return first
}
