package vfs

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

// handlesMax bounds the open files and directories of one node.
const handlesMax = 1 << 20

// Handle names an open file or directory of this node; it is never reused
// within one FS. 0 is none.
type Handle uint64

// handle is one open(2) or opendir(2).
type handle struct {
	rec      *record
	writable bool
	lossSeq  uint64 // losses up to here were reported; guarded by rec.mu
}

// register makes a handle for ino. From here on Holds reports ino.
func (f *FS) register(op string, ino fs.Ino, writable bool) (Handle, *record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.handles) >= handlesMax {
		return 0, nil, refuse(op, ino, fs.ErrNoSpace)
	}
	r := f.holdLocked(ino)
	f.lastHandle++
	h := &handle{rec: r, writable: writable}
	r.mu.RLock()
	h.lossSeq = r.lossSeq
	r.mu.RUnlock()
	f.handles[f.lastHandle] = h
	return f.lastHandle, r, nil
}

func (f *FS) handle(op string, id Handle) (*handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.handles[id]
	if h == nil {
		return nil, refuse(op, 0, fs.ErrBadHandle)
	}
	return h, nil
}

// OpenFlags are the flags of open(2) that matter here (O_ACCMODE, O_TRUNC,
// O_EXCL), and whether set-id bits are to be cleared with O_TRUNC.
type OpenFlags struct {
	Flags     uint32
	KillSetid bool
}

func (o OpenFlags) writable() bool { return o.Flags&unix.O_ACCMODE != unix.O_RDONLY }
func (o OpenFlags) trunc() bool    { return o.Flags&unix.O_TRUNC != 0 }

// Open opens a file or directory that exists: ErrStale if it does not. With
// O_TRUNC the file is empty for local processes from now on, and for other
// nodes from the next publication on. While the inode is open here already,
// Open waits for nobody.
func (f *FS) Open(ctx context.Context, ino fs.Ino, flags OpenFlags) (Handle, error) {
	id, r, err := f.register("open", ino, flags.writable())
	if err != nil {
		return 0, err
	}
	empty, err := f.know(ctx, r)
	if err != nil {
		f.Release(id)
		return 0, failure("open", ino, "", err)
	}
	if flags.trunc() {
		f.truncateOpened(r, empty, flags.KillSetid)
	}
	return id, nil
}

// know makes sure that r.base is set and that the inode, which the caller has a
// handle for, exists and will go on to. The second handle of an inode needs no
// look: the first one keeps it. empty tells that the committed file was seen to
// be empty just now.
func (f *FS) know(ctx context.Context, r *record) (empty bool, err error) {
	r.mu.RLock()
	opened := r.opened
	r.mu.RUnlock()
	if opened {
		return false, nil
	}
	a, _, err := f.committed(ctx, r.ino)
	if err != nil {
		return false, err
	}
	if a.Nlink == 0 && f.isDenied(r.ino) {
		// Another node has been told that nobody here has this orphan open, so
		// it may go away any moment. For ErrStale the kernel looks again and
		// finds what the name means now.
		return false, fs.ErrStale
	}
	r.mu.Lock()
	r.learn(a)
	r.opened = true
	r.mu.Unlock()
	return a.Size == 0, nil
}

// truncateOpened does what O_TRUNC asks for. A committed file that is known to
// be empty stays as it is until something is written: alone the cut would be a
// publication of nothing.
func (f *FS) truncateOpened(r *record, empty, kill bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.segs) == 0 && empty {
		r.cutFirst = true
		return
	}
	f.truncateLocked(r, 0, kill)
}

// Create makes and opens a regular file, or opens the one that another node
// made since the kernel looked. It returns the attributes as local processes
// see them. ErrStale means that the file exists and the kernel is to check the
// caller's permission, which it did not do for a file that it believed absent:
// it looks again and sends Open.
func (f *FS) Create(ctx context.Context, op fs.Create, flags OpenFlags) (fs.Attr, Handle, error) {
	if len(op.Name) > fs.NameMax {
		return fs.Attr{}, 0, &fs.Error{Op: "create", Ino: op.Parent, Name: op.Name, Kind: fs.ErrNameTooLong}
	}
	op.Excl = flags.Flags&unix.O_EXCL != 0
	m := f.startMaking()
	defer f.endMaking(m)
	res, err := f.do(ctx, "create", op.Parent, op.Name, op)
	if err != nil {
		return fs.Attr{}, 0, err
	}
	if res.Existed && !permits(res.Attr, op.Cred, flags) {
		return fs.Attr{}, 0, &fs.Error{Op: "create", Ino: op.Parent, Name: op.Name, Kind: fs.ErrStale}
	}
	id, r, err := f.made("create", res.Attr, flags)
	if err != nil {
		return fs.Attr{}, 0, err
	}
	if !res.Existed {
		return res.Attr, id, nil
	}
	if flags.trunc() {
		f.truncateOpened(r, res.Attr.Size == 0, flags.KillSetid)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.local(res.Attr), id, nil
}

// permits tells whether cred may certainly open a file with attributes a. Its
// supplementary groups are not known here, so false means "perhaps not".
func permits(a fs.Attr, cred fs.Cred, flags OpenFlags) bool {
	if cred.Uid == 0 {
		return true
	}
	want := uint32(4)
	switch flags.Flags & unix.O_ACCMODE {
	case unix.O_WRONLY:
		want = 2
	case unix.O_RDWR:
		want = 6
	}
	if flags.trunc() {
		want |= 2
	}
	have := a.Mode
	switch {
	case cred.Uid == a.Uid:
		have >>= 6
	case cred.Gid == a.Gid:
		have >>= 3
	default:
		// A supplementary group may hold fewer rights than "other".
		have &= a.Mode >> 3
	}
	return have&want == want
}

// Tmpfile makes and opens a regular file without a name.
func (f *FS) Tmpfile(ctx context.Context, op fs.Tmpfile, flags OpenFlags) (fs.Attr, Handle, error) {
	m := f.startMaking()
	defer f.endMaking(m)
	res, err := f.do(ctx, "tmpfile", op.Parent, "", op)
	if err != nil {
		return fs.Attr{}, 0, err
	}
	id, _, err := f.made("tmpfile", res.Attr, flags)
	return res.Attr, id, err
}

// made registers a handle for the inode that an operation returned.
func (f *FS) made(op string, a fs.Attr, flags OpenFlags) (Handle, *record, error) {
	id, r, err := f.register(op, a.Ino, flags.writable())
	if err != nil {
		return 0, nil, err
	}
	r.mu.Lock()
	r.learn(a)
	r.opened = true
	r.mu.Unlock()
	return id, r, nil
}

// Flush publishes what local processes have written to the file of a writable
// handle; it returns once that is committed. After an error the content is kept
// and published later, unless the error is ErrStale: then it is lost. After
// ErrIO nobody knows whether the last operation was committed; if it was an
// append, its bytes may then be in the file twice.
func (f *FS) Flush(ctx context.Context, id Handle) error {
	h, err := f.handle("flush", id)
	if err != nil || !h.writable {
		return err
	}
	_, err = f.publish(ctx, h.rec, publishOptions{})
	h.rec.mu.Lock()
	h.rec.cutFirst = false // whoever truncated has had its close
	h.rec.mu.Unlock()
	if err = errors.Join(err, f.lost(h)); err == nil {
		err = f.awaitBucket(ctx, h.rec)
	}
	return failure("flush", h.rec.ino, "", err)
}

// lost returns, once per handle, why content of its file was given up in the
// background.
func (f *FS) lost(h *handle) error {
	h.rec.mu.Lock()
	defer h.rec.mu.Unlock()
	if h.lossSeq == h.rec.lossSeq {
		return nil
	}
	h.lossSeq = h.rec.lossSeq
	return h.rec.loss
}

// Release ends a handle. Content that it leaves unpublished is published in the
// background.
func (f *FS) Release(id Handle) {
	f.mu.Lock()
	h := f.handles[id]
	delete(f.handles, id)
	f.mu.Unlock()
	if h != nil && f.release(h.rec) {
		f.queue.add(h.rec, time.Now())
	}
}

// ReleaseAll ends every handle: the kernel is gone and sends no more.
func (f *FS) ReleaseAll() {
	f.mu.Lock()
	ids := make([]Handle, 0, len(f.handles))
	for id := range f.handles {
		ids = append(ids, id)
	}
	f.mu.Unlock()
	for _, id := range ids {
		f.Release(id)
	}
}
