package vfs

import (
	"context"

	"github.com/wpfs/wpfs/fs"
)

// copyMax bounds the bytes that one Copy shares; copy_file_range(2) may be
// short, and its callers go on.
const copyMax = 1 << 30

// Copy makes n bytes of the file from, at off, appear in the file to at toOff,
// without moving them: both files then cite the same chunks. It is committed
// when Copy returns, and Copy tells how many bytes that were; fewer than n at
// the end of the source. Files with unpublished content are not shared, nor
// content that is still on its way in the log but too large for one operation:
// ErrNotSupported, and the caller copies by reading and writing.
func (f *FS) Copy(ctx context.Context, from Handle, off uint64, to Handle, toOff, n uint64) (uint64, error) {
	src, err := f.handle("copy_file_range", from)
	if err != nil {
		return 0, err
	}
	dst, err := f.handle("copy_file_range", to)
	if err != nil {
		return 0, err
	}
	if toOff > fs.FileMax || n > fs.FileMax-toOff {
		return 0, refuse("copy_file_range", dst.rec.ino, fs.ErrTooBig)
	}
	if src.rec == dst.rec || src.rec.isDirty() {
		return 0, refuse("copy_file_range", src.rec.ino, fs.ErrNotSupported)
	}
	pieces, n, err := f.cite(ctx, src.rec.ino, off, toOff, min(n, copyMax))
	if err != nil || n == 0 {
		return 0, failure("copy_file_range", src.rec.ino, "", err)
	}
	if err := f.publishPieces(ctx, dst.rec, pieces, toOff+n); err != nil {
		if fs.KindOf(err) == fs.ErrInvalid {
			// Some of the source's content was replaced since it was looked at,
			// and given up.
			err = &fs.Error{Op: "share", Ino: src.rec.ino, Kind: fs.ErrNotSupported, Err: err}
		}
		return 0, failure("copy_file_range", dst.rec.ino, "", err)
	}
	f.metrics.copied.Add(n)
	return n, nil
}

// cite returns pieces at toOff that cite the chunks of n bytes of ino at off,
// and n cut to the end of file.
func (f *FS) cite(ctx context.Context, ino fs.Ino, off, toOff, n uint64) ([]fs.Piece, uint64, error) {
	var found fetch
	a, err := found.plan(ctx, f, ino, off, n)
	if err != nil || off >= a.Size {
		return nil, 0, err
	}
	n = min(n, a.Size-off)
	pieces := make([]fs.Piece, 0, len(found.extents))
	inline, covered := 0, off
	for i, x := range found.extents {
		lo, hi := max(x.Off, off), min(x.Off+x.Len, off+n)
		if lo > covered || len(pieces) == fs.ExtentsMax {
			return nil, 0, fs.ErrNotSupported // a hole must become zeros over there
		}
		covered = hi
		p := fs.Piece{Off: lo - off + toOff, Len: hi - lo}
		info := found.infos[i]
		at := x.ChunkOff + uint32(lo-x.Off)
		if info.Inline != nil {
			if inline += int(p.Len); inline > f.opt.InlineMax {
				return nil, 0, fs.ErrNotSupported
			}
			p.Data = info.Inline[at:][:p.Len:p.Len]
		} else {
			// No holders: those of the source were bound to keep the bytes, and need
			// not have them any more if the source has let go of them.
			p.Hash, p.ChunkOff, p.ChunkLen = info.ID.Hash, at, info.Size
		}
		pieces = append(pieces, p)
	}
	if covered < off+n {
		return nil, 0, fs.ErrNotSupported
	}
	return pieces, n, nil
}

// publishPieces commits pieces into r, whose unpublished content may be at most
// a new length. That goes with them.
func (f *FS) publishPieces(ctx context.Context, r *record, pieces []fs.Piece, grow uint64) error {
	if err := f.dropCapability(ctx, r.ino); err != nil {
		return err
	}
	r.publishing.Lock()
	defer r.publishing.Unlock()
	op := fs.Publish{Ino: r.ino, Pieces: pieces, Grow: grow}
	r.mu.Lock()
	length := len(r.segs) == 1 && r.segs[0].onlyLength()
	if len(r.segs) > 0 && !length {
		r.mu.Unlock()
		return fs.ErrNotSupported
	}
	op.Mtime = changedAt(f.now(), r.base.Mtime)
	if length {
		s := r.segs[0]
		s.sealed = true
		if s.cut {
			op.Cut = &s.cutTo
		}
		op.Grow = max(grow, s.grow)
		if s.kill {
			op.Mask = fs.KillSetid
		}
	}
	r.mu.Unlock()
	if !length {
		res, err := f.do(ctx, "publish", r.ino, "", op)
		if err == nil {
			r.mu.Lock()
			r.learn(res.Attr)
			r.mu.Unlock()
		}
		return err
	}
	if _, err := f.fly(ctx, r, op, true); err != nil {
		// The length stays sealed and is published with what comes next.
		f.queue.failed(r)
		return err
	}
	r.mu.Lock()
	f.queue.succeeded(r, len(r.segs) == 0)
	r.mu.Unlock()
	return nil
}
