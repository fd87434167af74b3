package cluster

import (
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// recorder is a View that notes the keys it was asked for, so that Read can
// hold back what is still in flight. It errs on the side of too many keys.
type recorder struct {
	fs.View
	keys []fs.Key
}

var _ fs.View = (*recorder)(nil)

// recorders saves an allocation per read. What is in it carries no state.
var recorders = sync.Pool{New: func() any { return &recorder{keys: make([]fs.Key, 0, 8)} }}

func (r *recorder) free() {
	r.View = nil
	if cap(r.keys) <= 64 {
		recorders.Put(r)
	}
}

func (r *recorder) touch(k fs.KeyKind, ino fs.Ino, name string) {
	r.keys = append(r.keys, fs.Key{Kind: k, Ino: ino, Name: name})
}

func (r *recorder) Lookup(dir fs.Ino, name string) (fs.Attr, error) {
	r.touch(fs.KeyName, dir, name)
	a, err := r.View.Lookup(dir, name)
	if err == nil {
		r.touch(fs.KeyAttr, a.Ino, "")
	}
	return a, err
}

func (r *recorder) Attr(ino fs.Ino) (fs.Attr, error) {
	r.touch(fs.KeyAttr, ino, "")
	return r.View.Attr(ino)
}

func (r *recorder) Parent(dir fs.Ino) (fs.Ino, error) {
	r.touch(fs.KeyAttr, dir, "")
	return r.View.Parent(dir)
}

func (r *recorder) List(dir fs.Ino, after uint64, n int) ([]fs.Entry, error) {
	r.touch(fs.KeyList, dir, "")
	return r.View.List(dir, after, n)
}

func (r *recorder) Readlink(ino fs.Ino) (string, error) {
	r.touch(fs.KeyAttr, ino, "")
	return r.View.Readlink(ino)
}

func (r *recorder) Extents(ino fs.Ino, off, n uint64) ([]fs.Extent, error) {
	r.touch(fs.KeyData, ino, "")
	return r.View.Extents(ino, off, n)
}

// Chunk needs no key: a chunk's content never changes.

func (r *recorder) Xattr(ino fs.Ino, name string) ([]byte, error) {
	r.touch(fs.KeyAttr, ino, "")
	return r.View.Xattr(ino, name)
}

func (r *recorder) Xattrs(ino fs.Ino) ([]string, error) {
	r.touch(fs.KeyAttr, ino, "")
	return r.View.Xattrs(ino)
}
