package meta

import (
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// view is an fs.View over one state that does not change while it is used. A
// State has one for all readers: making an fs.View of it then costs nothing.
type view struct {
	reader
	sys   *system
	cache *recordCache // nil: none
}

var _ fs.View = (*view)(nil)

// opLookup is the operation in errors of Lookup, some of which are cached.
const opLookup = "lookup"

// Read runs f on one state: no commit happens while f runs, so f must be short,
// must not keep the View, and must not call methods of s, which could wait for a
// commit that waits for f. f's error is returned as it is.
func (s *State) Read(f func(fs.View) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return f(&s.view)
}

// CacheStats tells how the cache of inodes and names is doing.
func (s *State) CacheStats() CacheStats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.view.cache.stats()
}

func refuse(op string, ino fs.Ino, name string, k fs.Kind) error {
	return &fs.Error{Op: op, Ino: ino, Name: name, Kind: k}
}

// inode is reader's, through the cache. The inode is shared: nobody changes it.
func (v *view) inode(ino fs.Ino) (*inode, error) {
	k := attrKey(ino)
	if r, ok := v.cache.get(k); ok {
		return r.inode, nil
	}
	n, err := v.reader.inode(ino)
	if err == nil && n != nil {
		v.cache.fill(k, cached{inode: n})
	}
	return n, err
}

// name tells where a name leads, through the cache.
func (v *view) name(dir fs.Ino, name string) (cached, error) {
	if r, ok := v.cache.get(nameKey(dir, name)); ok {
		return r, nil
	}
	x, ok, err := v.entry(dir, name)
	if err != nil {
		return cached{}, err
	}
	k := nameKey(dir, strings.Clone(name)) // it may be part of a large buffer
	r := cached{ino: x.ino}
	if !ok {
		r = noEntry(k)
	}
	v.cache.fill(k, r)
	return r, nil
}

// existing reads an inode that the caller believes to exist.
func (v *view) existing(op string, ino fs.Ino) (*inode, error) {
	n, err := v.inode(ino)
	if err == nil && n == nil {
		err = refuse(op, ino, "", fs.ErrStale)
	}
	return n, err
}

func (v *view) directory(op string, ino fs.Ino) (*inode, error) {
	n, err := v.existing(op, ino)
	if err == nil && !n.IsDir() {
		err = refuse(op, ino, "", fs.ErrNotDir)
	}
	return n, err
}

func (v *view) Lookup(dir fs.Ino, name string) (fs.Attr, error) {
	if len(name) > fs.NameMax {
		return fs.Attr{}, v.noName(dir, refuse(opLookup, dir, name, fs.ErrNameTooLong))
	}
	x, err := v.name(dir, name)
	if err != nil {
		return fs.Attr{}, err
	}
	if x.absent != nil {
		return fs.Attr{}, v.noName(dir, x.absent)
	}
	n, err := v.inode(x.ino)
	if err == nil && n == nil {
		err = corrupt("read inode "+x.ino.String(), errMissing)
	}
	if err != nil {
		return fs.Attr{}, err
	}
	return n.Attr, nil
}

// noName is why a name is not in dir: because, unless dir itself is the reason.
func (v *view) noName(dir fs.Ino, because error) error {
	if _, err := v.directory(opLookup, dir); err != nil {
		return err
	}
	return because
}

func (v *view) Attr(ino fs.Ino) (fs.Attr, error) {
	n, err := v.existing("stat", ino)
	if err != nil {
		return fs.Attr{}, err
	}
	return n.Attr, nil
}

func (v *view) Parent(dir fs.Ino) (fs.Ino, error) {
	n, err := v.directory("find the parent of", dir)
	if err != nil {
		return 0, err
	}
	return n.parent, nil
}

func (v *view) List(dir fs.Ino, after uint64, n int) ([]fs.Entry, error) {
	if _, err := v.directory("list", dir); err != nil {
		return nil, err
	}
	if n <= 0 || after == ^uint64(0) {
		return nil, nil
	}
	var list []fs.Entry
	var bad error
	err := v.src.Scan(keyListing(dir, after+1), keyListing(dir+1, 0), func(k, b []byte) bool {
		var x fs.Entry
		x, bad = decodeListing(keyTail(k), b)
		list = append(list, x)
		return bad == nil && len(list) < n
	})
	if err == nil {
		err = bad
	}
	return list, err
}

func (v *view) Readlink(ino fs.Ino) (string, error) {
	n, err := v.existing("readlink", ino)
	if err == nil && !n.IsSymlink() {
		err = refuse("readlink", ino, "", fs.ErrInvalid)
	}
	if err != nil {
		return "", err
	}
	return n.target, nil
}

func (v *view) Extents(ino fs.Ino, off, n uint64) ([]fs.Extent, error) {
	f, err := v.existing("read", ino)
	if err != nil {
		return nil, err
	}
	if k, refused := regular(f).(fs.Kind); refused { //nolint:errorlint // regular returns bare kinds
		return nil, refuse("read", ino, "", k)
	}
	end := f.Size
	if n < end && off < end-n {
		end = off + n
	}
	return v.extents(ino, off, end)
}

func (v *view) Chunk(id fs.ChunkID) (fs.ChunkInfo, error) {
	r, ok, err := v.chunk(id)
	if err == nil && !ok {
		err = refuse("find chunk", 0, id.String(), fs.ErrNotFound)
	}
	if err != nil {
		return fs.ChunkInfo{}, err
	}
	info := r.info(id)
	if r.inline {
		info.Inline, err = v.inline(id)
	}
	return info, err
}

func (r chunkRecord) info(id fs.ChunkID) fs.ChunkInfo {
	return fs.ChunkInfo{ID: id, Size: r.size, Refs: r.refs, Holders: r.holders, Durable: r.durable,
		Place: r.place, Condemned: r.condemned, CondemnedAt: r.since}
}

func (v *view) Xattr(ino fs.Ino, name string) ([]byte, error) {
	b, ok, err := v.xattr(ino, name)
	if err != nil || ok {
		return b, err
	}
	if _, err := v.existing("getxattr", ino); err != nil {
		return nil, err
	}
	return nil, refuse("getxattr", ino, name, fs.ErrNoXattr)
}

func (v *view) Xattrs(ino fs.Ino) ([]string, error) {
	if _, err := v.existing("listxattr", ino); err != nil {
		return nil, err
	}
	var names []string
	err := v.xattrs(ino, func(name string, _ int) { names = append(names, name) })
	return names, err
}

func (v *view) Usage() (fs.Usage, error) {
	return fs.Usage{Bytes: v.sys.bytes, Inodes: v.sys.inodes, BytesMax: v.sys.bytesMax, InodeMax: v.sys.inodeMax}, nil
}
