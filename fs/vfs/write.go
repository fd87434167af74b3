package vfs

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

const (
	// rangesSoft is how many separate ranges of one segment start a background
	// publication at once, and rangesMax how many it may have at all: they cost
	// memory that no staging file can take over.
	rangesSoft = fs.ExtentsMax / 2
	rangesMax  = 1 << 18
)

// WriteFlags say how one write(2) is meant. They come with each write because
// fcntl(2) can change them on an open file.
type WriteFlags struct {
	Append    bool // behind the end of file; the offset is not looked at
	Sync      bool // as if fsync(2) followed
	KillSetid bool
}

// Write buffers p at off and returns at once, before any other node or the log
// has heard of it; only with flags.Sync it returns once p is committed. It takes
// longer while Options.Admit wants writers to slow down. p may be reused afterwards. Either all of p is taken or nothing is.
func (f *FS) Write(ctx context.Context, id Handle, p []byte, off uint64, flags WriteFlags) error {
	h, err := f.handle("write", id)
	if err != nil {
		return err
	}
	r := h.rec
	if err := f.opt.Admit(ctx, len(p)); err != nil {
		return failure("write", r.ino, "", err)
	}
	r.mu.Lock()
	err = f.writeLocked(r, p, off, flags)
	r.mu.Unlock()
	if err != nil {
		return failure("write", r.ino, "", err)
	}
	f.metrics.written.Add(uint64(len(p)))
	if flags.Sync {
		return f.fsync(ctx, h)
	}
	return nil
}

func (f *FS) writeLocked(r *record, p []byte, off uint64, flags WriteFlags) error {
	if len(p) == 0 {
		return nil
	}
	if off > fs.FileMax || uint64(len(p)) > fs.FileMax-off {
		return fs.ErrTooBig
	}
	s := f.segment(r, flags.Append)
	if len(s.data.dirty) >= rangesMax {
		return fs.ErrNoSpace
	}
	if flags.Append {
		off = s.data.dirty.end()
	}
	if err := s.data.writeAt(p, off); err != nil {
		if s.empty() {
			r.segs = r.segs[:len(r.segs)-1]
		}
		return err
	}
	f.touched(r, s, flags.KillSetid)
	if flags.Append && int64(s.data.dirty.end()) >= f.opt.AppendBytesMax || len(s.data.dirty) >= rangesSoft {
		f.queue.add(r, time.Now())
	}
	return nil
}

// segment returns the segment that the next write of the given kind goes to.
// The caller holds r.mu.
func (f *FS) segment(r *record, app bool) *segment {
	if n := len(r.segs); n > 0 {
		s := r.segs[n-1]
		if !s.sealed && s.app == app && !(app && s.data.dirty.end() >= appendSegmentMax) {
			return s
		}
	}
	if app && r.cutFirst { // an append cannot carry the cut
		f.segment(r, false)
	}
	s := &segment{app: app, data: store{budget: &f.memory, stage: f.stage}}
	s.cut, r.cutFirst = r.cutFirst, false // to nothing: cutTo is 0
	r.segs = append(r.segs, s)
	return s
}

// touched notes that s, the last segment of r, was changed just now. The caller
// holds r.mu.
func (f *FS) touched(r *record, s *segment, kill bool) {
	r.mtime = changedAt(changedAt(f.now(), r.mtime), r.base.Mtime)
	s.mtime = r.mtime
	s.kill = s.kill || kill
	f.queue.add(r, time.Now().Add(f.opt.PublishAfter))
}

// truncateLocked buffers that the file becomes size bytes long. The caller
// holds r.mu.
func (f *FS) truncateLocked(r *record, size uint64, kill bool) {
	s := f.segment(r, false)
	s.truncate(size)
	f.touched(r, s, kill)
}

// Allocate is fallocate(2). Space is not reserved: it is the cluster's, and
// nobody else can be kept from using it. What is left is that the file grows.
// Holes cannot be made yet: ErrNotSupported.
func (f *FS) Allocate(id Handle, off, n uint64, mode uint32) error {
	h, err := f.handle("fallocate", id)
	if err != nil {
		return err
	}
	r := h.rec
	switch {
	case n == 0:
		return refuse("fallocate", r.ino, fs.ErrInvalid)
	case mode&^unix.FALLOC_FL_KEEP_SIZE != 0:
		return refuse("fallocate", r.ino, fs.ErrNotSupported)
	case off > fs.FileMax || n > fs.FileMax-off:
		return refuse("fallocate", r.ino, fs.ErrTooBig)
	case mode&unix.FALLOC_FL_KEEP_SIZE != 0:
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := f.segment(r, false)
	s.grow = max(s.grow, off+n)
	f.touched(r, s, false)
	return nil
}

// Fsync publishes the file's unpublished content and returns once it is
// committed and safe from a power loss of all nodes, content published earlier
// included.
func (f *FS) Fsync(ctx context.Context, id Handle) error {
	h, err := f.handle("fsync", id)
	if err != nil {
		return err
	}
	return f.fsync(ctx, h)
}
