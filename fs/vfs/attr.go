package vfs

import (
	"context"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// committed reads the attributes of ino as all nodes see them.
func (f *FS) committed(ctx context.Context, ino fs.Ino) (fs.Attr, time.Duration, error) {
	var a fs.Attr
	keep, err := f.meta.Read(ctx, func(v fs.View) (err error) {
		a, err = v.Attr(ino)
		return err
	})
	return a, keep, err
}

// Attr tells the attributes of ino as local processes see them: size and times
// include what they have written. keep is how long the kernel may answer with
// them: not at all while the file has unpublished content here, which changes
// without a word from the log.
func (f *FS) Attr(ctx context.Context, ino fs.Ino) (out fs.Attr, keep time.Duration, err error) {
	err = f.settled(ctx, ino, func() (a fs.Attr, err error) {
		a, keep, err = f.committed(ctx, ino)
		return a, err
	}, func(r *record, a fs.Attr) error {
		out = a
		if r != nil {
			out = r.local(a)
			if len(r.segs) > 0 || r.flight != nil {
				keep = 0
			}
		}
		return nil
	})
	return out, keep, failure("getattr", ino, "", err)
}

// SetAttr says what chmod(2), chown(2), truncate(2), ftruncate(2) and
// utimensat(2) are to do.
type SetAttr struct {
	fs.SetAttr
	// Handle is set if the size is changed through an open file.
	Handle Handle
	// AtimeNow and MtimeNow say that the time is the one of the call.
	AtimeNow, MtimeNow bool
}

// SetAttr changes attributes and returns the new ones as local processes see
// them. A size set through a handle is content: it is buffered and published
// with what is written next, and nothing is waited for. Everything else is
// committed when SetAttr returns, and unpublished content with it where the
// order of the two matters. What changes nothing is not committed at all.
func (f *FS) SetAttr(ctx context.Context, q SetAttr) (fs.Attr, error) {
	if q.AtimeNow {
		q.Atime = f.now()
	}
	if q.MtimeNow {
		q.Mtime = f.now()
	}
	if q.Mask&fs.SetSize != 0 && q.Size > fs.FileMax {
		return fs.Attr{}, refuse("setattr", q.Ino, fs.ErrTooBig)
	}
	if q.Mask&fs.SetSize != 0 && q.Handle != 0 {
		a, err := f.truncateOpen(q.Handle, q.Size, q.Mask&fs.KillSetid != 0)
		q.Mask &^= fs.SetSize | fs.KillSetid
		if err != nil || q.Mask == 0 {
			return a, err
		}
	}
	r := f.hold(q.Ino)
	defer f.release(r)
	if q.Mask&fs.SetSize != 0 {
		return f.truncateNamed(ctx, r, q.SetAttr)
	}
	cur, _, err := f.Attr(ctx, q.Ino)
	if err != nil {
		return cur, err
	}
	if changesNothing(cur, q.SetAttr) {
		return cur, nil
	}
	return f.setAttrAfterContent(ctx, r, q.SetAttr)
}

// changesNothing tells that a has all that q asks for.
func changesNothing(a fs.Attr, q fs.SetAttr) bool {
	return (q.Mask&fs.SetMode == 0 || q.Mode&fs.ModePerm == a.Mode&fs.ModePerm) &&
		(q.Mask&fs.SetUid == 0 || q.Uid == a.Uid) &&
		(q.Mask&fs.SetGid == 0 || q.Gid == a.Gid) &&
		(q.Mask&fs.SetAtime == 0 || q.Atime == a.Atime) &&
		(q.Mask&fs.SetMtime == 0 || q.Mtime == a.Mtime) &&
		(q.Mask&fs.KillSetid == 0 || killSetid(a.Mode) == a.Mode)
}

// truncateOpen buffers a new size, and answers from what is known here: the
// kernel holds the inode's lock meanwhile.
func (f *FS) truncateOpen(id Handle, size uint64, kill bool) (fs.Attr, error) {
	h, err := f.handle("ftruncate", id)
	if err != nil {
		return fs.Attr{}, err
	}
	r := h.rec
	r.mu.Lock()
	defer r.mu.Unlock()
	f.truncateLocked(r, size, kill)
	return r.local(r.base), nil
}

// truncateNamed is truncate(2), which is seen by everybody when it returns.
func (f *FS) truncateNamed(ctx context.Context, r *record, q fs.SetAttr) (fs.Attr, error) {
	if err := f.dropCapability(ctx, r.ino); err != nil {
		return fs.Attr{}, failure("truncate", r.ino, "", err)
	}
	r.mu.Lock()
	dirty := len(r.segs) > 0
	if dirty {
		f.truncateLocked(r, q.Size, q.Mask&fs.KillSetid != 0)
	}
	r.mu.Unlock()
	if !dirty {
		return f.completed(ctx, r, func() (fs.Attr, error) { return f.setAttr(ctx, r, &q) })
	}
	q.Mask &^= fs.SetSize | fs.KillSetid
	var attr *fs.SetAttr
	if q.Mask != 0 {
		attr = &q
	}
	return f.completed(ctx, r, func() (fs.Attr, error) { return f.publish(ctx, r, publishOptions{attr: attr}) })
}

// setAttrAfterContent commits q so that it lands after what was written before.
func (f *FS) setAttrAfterContent(ctx context.Context, r *record, q fs.SetAttr) (fs.Attr, error) {
	if q.Mask&(fs.SetUid|fs.SetGid) != 0 {
		if err := f.dropCapability(ctx, r.ino); err != nil {
			return fs.Attr{}, failure("setattr", r.ino, "", err)
		}
	}
	if r.mayOvertake(q) {
		return f.completed(ctx, r, func() (fs.Attr, error) { return f.setAttr(ctx, r, &q) })
	}
	return f.completed(ctx, r, func() (fs.Attr, error) { return f.publish(ctx, r, publishOptions{attr: &q}) })
}

// mayOvertake tells that q can be committed before the unpublished content, and
// that the content is better left alone: it is what O_TRUNC leaves behind, so
// publishing it would show the empty half of a file that is being replaced.
func (r *record) mayOvertake(q fs.SetAttr) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if q.Mask&^(fs.SetMode|fs.SetUid|fs.SetGid|fs.KillSetid) != 0 {
		return false
	}
	for _, s := range r.segs {
		if s.sealed || s.kill || !s.onlyLength() {
			return false
		}
	}
	return true
}

// completed runs change and returns the attributes that it left, with what has
// been written locally since.
func (f *FS) completed(ctx context.Context, r *record, change func() (fs.Attr, error)) (fs.Attr, error) {
	a, err := change()
	if err != nil {
		return fs.Attr{}, err
	}
	if a.Ino == 0 || r.isDirty() {
		a, _, err = f.Attr(ctx, r.ino)
		return a, err
	}
	return a, nil
}
