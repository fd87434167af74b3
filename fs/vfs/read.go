package vfs

import (
	"context"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	// settleWait bounds how long a reader waits for the outcome of an operation
	// that may or may not be in what it read.
	settleWait = 100 * time.Millisecond
	// fetchParallel is how many chunks one read waits for at a time.
	fetchParallel = 4
)

// settled calls read, which reads committed state of ino by FS.meta, and then
// paint, until the two fit together, that is until the segments that paint puts
// over the state are exactly those that the state lacks. paint runs under the
// record's lock with the record, or with nil if there is none; it must be able
// to run again.
//
// They do not fit in two cases. A segment was removed while read ran: pubSeq
// tells. Or an operation is in flight, and the state read may already have it
// although its segment is still there: then the state's version is newer than
// flight.seen, and a moment later the outcome is known. That wait is bounded,
// because a reader may hold pages locked that the operation's way through the
// cluster depends on; when it ends, the operation is taken to be not in the
// state, as it almost certainly is when its answer is late.
func (f *FS) settled(ctx context.Context, ino fs.Ino, read func() (fs.Attr, error), paint func(*record, fs.Attr) error) error {
	patience := time.Time{}
	for {
		r := f.lookupRecord(ino)
		var seq uint64
		if r != nil {
			r.mu.RLock()
			seq = r.pubSeq
			r.mu.RUnlock()
		}
		a, err := read()
		if err != nil {
			return err
		}
		again, flying, err := f.fit(ino, r, seq, a, !patience.IsZero() && time.Now().After(patience), paint)
		if !again || err != nil {
			return err
		}
		if flying == nil {
			continue
		}
		if patience.IsZero() {
			patience = time.Now().Add(settleWait)
		}
		timer := time.NewTimer(time.Until(patience))
		select {
		case <-flying.done:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// fit runs paint if state a, read after the record was seen as before with
// pubSeq seq, fits the record as it is now. Otherwise again is true, and flying
// is the operation to wait for, if any.
func (f *FS) fit(ino fs.Ino, before *record, seq uint64, a fs.Attr, late bool, paint func(*record, fs.Attr) error) (again bool, flying *flight, err error) {
	r := f.lookupRecord(ino)
	if r == nil {
		if before != nil {
			return true, nil, nil
		}
		return false, nil, paint(nil, a)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pubSeq != seq || before != nil && before != r {
		return true, nil, nil
	}
	if r.flight != nil && a.Version > r.flight.seen && !late {
		return true, r.flight, nil
	}
	if r.flight == nil || a.Version <= r.flight.seen {
		// A version that may contain the flight must not become the mark by
		// which the next flight is judged before this one is decided.
		r.learn(a)
	}
	return false, nil, paint(r, a)
}

// Read fills p with the file's bytes from off, as local processes have written
// them and otherwise as committed, and returns how many there were: fewer than
// len(p) only at the end of file.
func (f *FS) Read(ctx context.Context, id Handle, p []byte, off uint64) (int, error) {
	h, err := f.handle("read", id)
	if err != nil {
		return 0, err
	}
	ino := h.rec.ino
	if off > fs.FileMax {
		return 0, nil
	}
	var (
		found fetch
		n     int
		holes spans
	)
	err = f.settled(ctx, ino, func() (fs.Attr, error) {
		return found.plan(ctx, f, ino, off, uint64(len(p)))
	}, func(r *record, a fs.Attr) error {
		c := canvas{p: p, off: off}
		size := a.Size
		if r != nil {
			for _, s := range r.segs {
				if err := c.paint(s, size); err != nil {
					return err
				}
				size = s.sizeAfter(size)
			}
		}
		n, holes = 0, nil
		if size > off {
			n = int(min(size-off, uint64(len(p))))
		}
		return c.done.gaps(off, off+uint64(n), func(x span) error {
			holes = append(holes, x)
			return nil
		})
	})
	if err == nil {
		err = found.fill(ctx, f.chunks, p, off, holes)
	}
	if err != nil {
		return 0, failure("read", ino, "", err)
	}
	f.metrics.read.Add(uint64(n))
	return n, nil
}

// fetch is the committed content of a range of a file, not read yet.
type fetch struct {
	extents []fs.Extent
	infos   []fs.ChunkInfo // of extents
}

// plan looks up what covers [off, off+n) of ino, and the attributes at that
// moment.
func (t *fetch) plan(ctx context.Context, from *FS, ino fs.Ino, off, n uint64) (fs.Attr, error) {
	var a fs.Attr
	err := from.look(ctx, func(v fs.View) (err error) {
		t.infos = t.infos[:0]
		if a, err = v.Attr(ino); err != nil {
			return err
		}
		if t.extents, err = v.Extents(ino, off, n); err != nil {
			return err
		}
		for _, x := range t.extents {
			info, err := v.Chunk(x.Chunk)
			if err != nil {
				return err
			}
			t.infos = append(t.infos, info)
		}
		return nil
	})
	return a, err
}

// piece is a part of a buffer that one chunk has the bytes for.
type piece struct {
	info fs.ChunkInfo
	dst  []byte
	off  int64 // in the chunk
}

// fill puts committed content into the holes of p, which starts at off of the
// file. What no extent covers is zero.
func (t *fetch) fill(ctx context.Context, chunks fs.Chunks, p []byte, off uint64, holes spans) error {
	var pieces []piece
	for _, h := range holes {
		clear(p[h.off-off : h.end-off])
		for i, x := range t.extents {
			lo, hi := max(h.off, x.Off), min(h.end, x.Off+x.Len)
			if lo >= hi {
				continue
			}
			at := uint64(x.ChunkOff) + lo - x.Off
			dst := p[lo-off : hi-off]
			if in := t.infos[i].Inline; in != nil {
				if at > uint64(len(in)) || copy(dst, in[at:]) < len(dst) {
					return shortChunk(t.infos[i])
				}
				continue
			}
			pieces = append(pieces, piece{t.infos[i], dst, int64(at)})
		}
	}
	return parallel(min(len(pieces), fetchParallel), len(pieces), func(i int) error {
		n, err := chunks.ReadAt(ctx, pieces[i].info, pieces[i].dst, pieces[i].off)
		if err == nil && n < len(pieces[i].dst) {
			err = shortChunk(pieces[i].info)
		}
		return err
	})
}

func shortChunk(info fs.ChunkInfo) error {
	return &fs.Error{Op: "read chunk", Kind: fs.ErrCorrupt, Err: fmt.Errorf("chunk %s ends before its extent", info.ID)}
}

// Whence of Seek.
type Whence uint32

// The two kinds of lseek(2) that ask about holes.
const (
	SeekData Whence = 3
	SeekHole Whence = 4
)

// seekWindow is how much of a file Seek looks at in one go.
const seekWindow = 1 << 30

// Seek finds the next data or hole at or after off: ErrNoDevice beyond the last
// one. A file with unpublished content counts as data throughout, as lseek(2)
// allows.
func (f *FS) Seek(ctx context.Context, id Handle, off uint64, whence Whence) (uint64, error) {
	h, err := f.handle("lseek", id)
	if err != nil {
		return 0, err
	}
	ino := h.rec.ino
	if whence != SeekData && whence != SeekHole {
		return 0, refuse("lseek", ino, fs.ErrInvalid)
	}
	var a fs.Attr
	dense := false
	err = f.settled(ctx, ino, func() (fs.Attr, error) {
		a, _, err := f.committed(ctx, ino)
		return a, err
	}, func(r *record, got fs.Attr) error {
		a = got
		if dense = r != nil && len(r.segs) > 0; dense {
			a = r.local(a)
		}
		return nil
	})
	if err != nil {
		return 0, failure("lseek", ino, "", err)
	}
	if off >= a.Size {
		return 0, refuse("lseek", ino, fs.ErrNoDevice)
	}
	if dense {
		if whence == SeekHole {
			off = a.Size
		}
		return off, nil
	}
	return f.seekExtents(ctx, a, off, whence)
}

// seekExtents is Seek on committed content alone.
func (f *FS) seekExtents(ctx context.Context, a fs.Attr, off uint64, whence Whence) (uint64, error) {
	for at := off; at < a.Size; {
		stop := min(a.Size, at+seekWindow)
		var extents []fs.Extent
		err := f.look(ctx, func(v fs.View) (err error) {
			extents, err = v.Extents(a.Ino, at, stop-at)
			return err
		})
		if err != nil {
			return 0, failure("lseek", a.Ino, "", err)
		}
		var covered spans
		for _, x := range extents {
			covered = covered.add(max(x.Off, at), min(x.Off+x.Len, stop))
		}
		if whence == SeekData && len(covered) > 0 {
			return covered[0].off, nil
		}
		if whence == SeekHole && (len(covered) == 0 || covered[0] != (span{at, stop})) {
			if len(covered) == 0 || covered[0].off > at {
				return at, nil
			}
			return covered[0].end, nil
		}
		at = stop
	}
	if whence == SeekHole {
		return a.Size, nil
	}
	return 0, refuse("lseek", a.Ino, fs.ErrNoDevice)
}
