package vfs

import (
	"context"
	"slices"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// keepFull is how long content that the file system has no room for is kept
// and retried once nobody has the file open: its writer was told at close.
const keepFull = 10 * time.Minute

// capabilityXattr holds a program's file capabilities. Like the set-id bits it
// must not survive a change of the content; the kernel leaves both to us
// (FUSE_HANDLE_KILLPRIV_V2).
const capabilityXattr = "security.capability"

// publishOptions say how one publication is meant.
type publishOptions struct {
	sync bool        // content is to survive the power loss of all nodes
	attr *fs.SetAttr // to be applied after the content, in the same operation
}

// publish commits everything that was written to r before the call, in order,
// and then o.attr. It returns the attributes after that, zero if there was
// nothing to do. Writes that come in the meantime are not waited for.
//
// After an error whose outcome may be different next time, the content stays
// where it is and is due again after a pause; after any other it is given up.
func (f *FS) publish(ctx context.Context, r *record, o publishOptions) (fs.Attr, error) {
	if o.attr == nil && !r.isDirty() {
		return fs.Attr{}, nil
	}
	r.publishing.Lock()
	defer r.publishing.Unlock()
	todo := r.seal()
	if len(todo) == 0 {
		f.queue.succeeded(r, false)
		return f.setAttr(ctx, r, o.attr)
	}
	var a fs.Attr
	err := f.dropCapability(ctx, r.ino)
	for i := 0; err == nil && i < len(todo); i++ {
		var attr *fs.SetAttr
		if i == len(todo)-1 {
			attr = o.attr
		}
		if a, err = f.commit(ctx, r, todo[i], o.sync, attr); err != nil {
			todo = todo[i:]
		}
	}
	if err != nil {
		f.metrics.failures.Add(1)
		f.publishFailed(r, todo, err, o.attr != nil)
		return fs.Attr{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failing = time.Time{}
	// Under the lock: a write that comes next queues r again, and must not be
	// taken out by what was true before it.
	f.queue.succeeded(r, len(r.segs) == 0)
	err, r.late = r.late, nil
	return a, err
}

// seal ends all segments of r and returns those that change anything.
func (r *record) seal() []*segment {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.segs = slices.DeleteFunc(r.segs, (*segment).empty)
	for _, s := range r.segs {
		s.sealed = true
	}
	return slices.Clone(r.segs)
}

// setAttr commits a change of attributes that no content goes before.
func (f *FS) setAttr(ctx context.Context, r *record, op *fs.SetAttr) (fs.Attr, error) {
	if op == nil {
		return fs.Attr{}, nil
	}
	res, err := f.do(ctx, "setattr", r.ino, "", *op)
	if err != nil {
		return fs.Attr{}, err
	}
	r.mu.Lock()
	r.learn(res.Attr)
	r.mu.Unlock()
	return res.Attr, nil
}

// commit publishes the sealed segment s, the first of r, and removes it.
func (f *FS) commit(ctx context.Context, r *record, s *segment, sync bool, attr *fs.SetAttr) (fs.Attr, error) {
	var a fs.Attr
	c := cutter{s: s, inline: f.opt.InlineMax}
	for first := true; ; first = false {
		pieces, groups, last := c.next()
		if err := f.putAll(ctx, s, pieces, groups, sync); err != nil {
			return a, failure("publish", r.ino, "", err)
		}
		op := s.op(r.ino, pieces, first, last)
		if last {
			op = withAttr(op, attr)
		}
		var err error
		if a, err = f.fly(ctx, r, op, last); err != nil {
			return a, err
		}
		if last {
			f.metrics.published.Add(s.data.dirty.bytes())
			s.data.drop()
			return a, nil
		}
	}
}

// op is the operation that brings pieces of s; first and last tell its place
// among the operations that s needs.
func (s *segment) op(ino fs.Ino, pieces []fs.Piece, first, last bool) fs.Op {
	var mask fs.AttrMask
	if s.kill {
		mask = fs.KillSetid
	}
	if s.app {
		return fs.Append{Ino: ino, Pieces: pieces, Mtime: s.mtime, Mask: mask}
	}
	op := fs.Publish{Ino: ino, Pieces: pieces, Mtime: s.mtime, Mask: mask}
	if first && s.cut {
		op.Cut = &s.cutTo
	}
	if last {
		op.Grow = s.grow
	}
	return op
}

func withAttr(op fs.Op, attr *fs.SetAttr) fs.Op {
	switch op := op.(type) {
	case fs.Publish:
		op.Attr = attr
		return op
	case fs.Append:
		op.Attr = attr
		return op
	}
	return op
}

// fly commits op for the first segment of r, and with last removes the segment
// in the same moment in which readers begin to take the committed content for
// it.
func (f *FS) fly(ctx context.Context, r *record, op fs.Op, last bool) (fs.Attr, error) {
	fl := &flight{done: make(chan struct{})}
	r.mu.Lock()
	fl.seen = r.base.Version
	r.flight = fl
	r.mu.Unlock()
	// Whoever asked may give up; the operation goes on, so its end is waited for.
	// Sending the content again in another operation would append it twice, or
	// put it over what another node has written since.
	res, err := f.do(context.WithoutCancel(ctx), "publish", r.ino, "", op)
	r.mu.Lock()
	r.flight = nil
	if err != nil && res.Index != 0 && res.Kind == fs.OK {
		r.late, err = err, nil // it is committed, only not known to be seen everywhere
	}
	if err == nil {
		r.learn(res.Attr)
		if last {
			r.segs[0] = nil
			r.segs = r.segs[1:]
		}
		r.pubSeq = f.pubSeq.Add(1)
		f.metrics.publications.Add(1)
	}
	r.mu.Unlock()
	close(fl.done)
	return res.Attr, err
}

// dropCapability removes the file capabilities of a file whose content changes.
func (f *FS) dropCapability(ctx context.Context, ino fs.Ino) error {
	err := f.look(ctx, func(v fs.View) error {
		_, err := v.Xattr(ino, capabilityXattr)
		return err
	})
	switch fs.KindOf(err) {
	case fs.ErrNoXattr:
		return nil
	case fs.OK:
	default:
		return failure("publish", ino, "", err)
	}
	_, err = f.do(ctx, "publish", ino, capabilityXattr, fs.RemoveXattr{Ino: ino, Name: capabilityXattr})
	if fs.KindOf(err) == fs.ErrNoXattr {
		return nil // another node was faster
	}
	return err
}

// publishFailed keeps or gives up the segments segs, the first ones of r.
func (f *FS) publishFailed(r *record, segs []*segment, err error, withAttr bool) {
	open, kernel := f.isHeld(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	if keep(fs.KindOf(err), withAttr, open, time.Since(r.failing)) {
		f.queue.failed(r)
		f.opt.Logger.Warn("content is not published yet; it is kept and tried again",
			"inode", uint64(r.ino), "for", time.Since(r.failing).Round(time.Second), "error", err)
		return
	}
	var lost uint64
	for _, s := range segs {
		lost += s.data.dirty.bytes()
		s.data.drop()
	}
	r.segs = r.segs[len(segs):]
	r.failing = time.Time{}
	r.pubSeq = f.pubSeq.Add(1)
	r.loss = err
	r.lossSeq++
	if kernel != nil {
		kernel.Lost(r.ino)
	}
	f.queue.succeeded(r, len(r.segs) == 0)
	f.opt.Logger.Error("content written here is lost: it cannot be published",
		"inode", uint64(r.ino), "bytes", lost, "error", err)
}

// keep tells whether unpublished content is worth another try after an error of
// the given kind.
func keep(kind fs.Kind, withAttr, open bool, failing time.Duration) bool {
	switch kind {
	case fs.ErrIO, fs.ErrReadOnly, fs.ErrInterrupted, fs.ErrBusy:
		return true
	case fs.ErrNoSpace, fs.ErrQuota:
		return open || failing < keepFull
	case fs.ErrStale:
		return false
	}
	// The attributes may be what was refused; the content gets its own chance.
	return withAttr
}

// isHeld tells whether somebody besides the publisher holds r, and who is to know
// if its content is given up.
func (f *FS) isHeld(r *record) (bool, Kernel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return r.refs > 1, f.kernel
}
