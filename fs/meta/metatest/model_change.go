package metatest

import (
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// mayRemove is the rule of sticky directories.
func mayRemove(d, n *node, c fs.Cred) bool {
	return d.Mode&fs.ModeSticky == 0 || c.Uid == 0 || c.Uid == d.Uid || c.Uid == n.Uid
}

func (m *Model) remove(dir fs.Ino, name string, wantDir bool, cred fs.Cred, r *fs.Result) fs.Kind {
	d, k := m.dir(dir, name)
	if k != fs.OK {
		return k
	}
	x, ok := d.kids[name]
	if !ok {
		return fs.ErrNotFound
	}
	n := m.nodes[x.ino]
	switch {
	case !mayRemove(d, n, cred):
		return fs.ErrPermission
	case wantDir && !n.IsDir():
		return fs.ErrNotDir
	case !wantDir && n.IsDir():
		return fs.ErrIsDir
	case len(n.kids) > 0:
		return fs.ErrNotEmpty
	}
	m.take(d, name)
	m.lose(d, n)
	r.Attr = n.stat()
	return fs.OK
}

// take removes a name.
func (m *Model) take(d *node, name string) {
	delete(d.kids, name)
	m.listed(d)
}

// lose counts a name of n, which was in d, less.
func (m *Model) lose(d, n *node) {
	n.Nlink--
	if n.IsDir() {
		n.Nlink = 0
		d.Nlink--
	}
	if n.Nlink == 0 {
		n.since = m.at
	}
	m.changed(n)
}

func (m *Model) rename(o fs.Rename, r *fs.Result) fs.Kind {
	if o.Flags > 2 {
		return fs.ErrInvalid
	}
	d1, k := m.dir(o.Parent, o.Name)
	if k != fs.OK {
		return k
	}
	d2, k := m.dir(o.NewParent, o.NewName)
	if k != fs.OK {
		return k
	}
	x1, ok1 := d1.kids[o.Name]
	x2, ok2 := d2.kids[o.NewName]
	swap := o.Flags == fs.RenameExchange
	if !ok1 || swap && !ok2 {
		return fs.ErrNotFound
	}
	if ok2 && o.Flags == fs.RenameNoReplace {
		return fs.ErrExist
	}
	n1, n2 := m.nodes[x1.ino], m.nodes[x2.ino]
	if m.below(d2, n1) || swap && m.below(d1, n2) {
		return fs.ErrInvalid
	}
	if n1 != n2 {
		if k := m.mayRename(d1, n1, d2, n2, swap, o.Cred); k != fs.OK {
			return k
		}
		if swap {
			m.swapNames(d1, o.Name, d2, o.NewName)
		} else {
			m.moveName(d1, o.Name, d2, o.NewName)
		}
	}
	r.Attr = n1.stat()
	return fs.OK
}

// below tells whether d is the directory n or somewhere in it.
func (m *Model) below(d, n *node) bool {
	for d != n {
		if d.Ino == 1 {
			return false
		}
		d = m.nodes[d.up]
	}
	return true
}

func (m *Model) mayRename(d1, n1, d2, n2 *node, swap bool, cred fs.Cred) fs.Kind {
	switch {
	case !mayRemove(d1, n1, cred) || n2 != nil && !mayRemove(d2, n2, cred):
		return fs.ErrPermission
	case n2 == nil || swap:
		return fs.OK
	case n1.IsDir() && !n2.IsDir():
		return fs.ErrNotDir
	case !n1.IsDir() && n2.IsDir():
		return fs.ErrIsDir
	case len(n2.kids) > 0:
		return fs.ErrNotEmpty
	}
	return fs.OK
}

func (m *Model) moveName(d1 *node, name1 string, d2 *node, name2 string) {
	n := m.nodes[d1.kids[name1].ino]
	if x, ok := d2.kids[name2]; ok {
		m.lose(d2, m.nodes[x.ino])
		d2.kids[name2] = kid{n.Ino, x.cookie}
		m.listed(d2)
	} else {
		m.give(d2, name2, n)
	}
	m.take(d1, name1)
	m.rehome(n, d1, d2)
	m.changed(n)
}

func (m *Model) swapNames(d1 *node, name1 string, d2 *node, name2 string) {
	x1, x2 := d1.kids[name1], d2.kids[name2]
	d1.kids[name1], d2.kids[name2] = kid{x2.ino, x1.cookie}, kid{x1.ino, x2.cookie}
	m.listed(d1)
	m.listed(d2)
	n1, n2 := m.nodes[x1.ino], m.nodes[x2.ino]
	m.rehome(n1, d1, d2)
	m.rehome(n2, d2, d1)
	m.changed(n1)
	m.changed(n2)
}

func (m *Model) rehome(n, from, to *node) {
	if n.IsDir() {
		n.up = to.Ino
		from.Nlink--
		to.Nlink++
	}
}

func (m *Model) setAttr(n *node, o fs.SetAttr) fs.Kind {
	has := func(bit fs.AttrMask) bool { return o.Mask&bit != 0 }
	switch {
	case o.Mask >= 1<<7 || has(fs.SetAtime) && o.Atime.Nsec > 999_999_999 || has(fs.SetMtime) && o.Mtime.Nsec > 999_999_999:
		return fs.ErrInvalid
	case has(fs.SetMode) && n.IsSymlink():
		return fs.ErrNotSupported
	case o.Mask == 0:
		return fs.OK
	}
	if has(fs.SetSize) {
		if k := m.truncate(n, o.Size); k != fs.OK {
			return k
		}
	}
	if has(fs.KillSetid) || (has(fs.SetUid) || has(fs.SetGid)) && o.Cred.Uid != 0 {
		n.dropSetid()
	}
	if has(fs.SetUid) {
		n.Uid = o.Uid
	}
	if has(fs.SetGid) {
		n.Gid = o.Gid
	}
	if has(fs.SetMode) {
		n.Mode = n.Mode/0o10000*0o10000 + o.Mode%0o10000
	}
	if has(fs.SetAtime) {
		n.Atime = o.Atime
	}
	if has(fs.SetMtime) {
		n.Mtime = o.Mtime
	}
	m.changed(n)
	return fs.OK
}

func (n *node) dropSetid() {
	if n.IsDir() {
		return
	}
	n.Mode &^= 0o4000
	if n.Mode&0o010 != 0 {
		n.Mode &^= 0o2000
	}
}

func (m *Model) truncate(n *node, size uint64) fs.Kind {
	if n.IsDir() {
		return fs.ErrIsDir
	}
	if !n.IsRegular() {
		return fs.ErrInvalid
	}
	if size > 1<<60 {
		return fs.ErrTooBig
	}
	before := len(n.data)
	n.resize(size)
	n.written(m, m.now)
	return m.room(before, len(n.data))
}

func (n *node) resize(size uint64) {
	for uint64(len(n.data)) < size {
		n.data, n.have = append(n.data, 0), append(n.have, false)
	}
	n.data, n.have = n.data[:size], n.have[:size]
}

// room tells whether the limits allow a file to have grown.
func (m *Model) room(before, now int) fs.Kind {
	if _, bytes := m.sum(); m.bytesMax > 0 && now > before && bytes > m.bytesMax {
		return fs.ErrNoSpace
	}
	return fs.OK
}

func (m *Model) sum() (inodes, bytes uint64) {
	for _, n := range m.nodes {
		inodes++
		bytes += uint64(len(n.data))
	}
	return inodes, bytes
}

// written moves mtime: to t, or just past the old one if that is not in the past
// and not in the far future either.
func (n *node) written(m *Model, t fs.Time) {
	far := fs.Time{Sec: m.now.Sec + 10, Nsec: m.now.Nsec}
	if t == n.Mtime || t.Before(n.Mtime) && !far.Before(n.Mtime) {
		t = n.Mtime.Next()
	}
	n.Mtime = t
	n.Version = m.at
	m.changed(n)
}

func (m *Model) setXattr(o fs.SetXattr, r *fs.Result) fs.Kind {
	n := m.nodes[o.Ino]
	if n == nil {
		return fs.ErrStale
	}
	_, have := n.xattrs[o.Name]
	sum := len(o.Name) + len(o.Value)
	for k, v := range n.xattrs {
		if k != o.Name {
			sum += len(k) + len(v)
		}
	}
	switch {
	case o.Name == "" || len(o.Name) > 255 || len(o.Value) > 65536:
		return fs.ErrRange
	case strings.Contains(o.Name, "\x00") || o.Flags > 3:
		return fs.ErrInvalid
	case have && o.Flags&1 != 0:
		return fs.ErrExist
	case !have && o.Flags&2 != 0:
		return fs.ErrNoXattr
	case sum > 262144:
		return fs.ErrNoSpace
	}
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[o.Name] = string(o.Value)
	m.changed(n)
	r.Attr = n.stat()
	return fs.OK
}

func (m *Model) removeXattr(o fs.RemoveXattr, r *fs.Result) fs.Kind {
	n := m.nodes[o.Ino]
	if n == nil {
		return fs.ErrStale
	}
	if o.Name == "" || len(o.Name) > 255 {
		return fs.ErrRange
	}
	if strings.Contains(o.Name, "\x00") {
		return fs.ErrInvalid
	}
	if _, ok := n.xattrs[o.Name]; !ok {
		return fs.ErrNoXattr
	}
	delete(n.xattrs, o.Name)
	m.changed(n)
	r.Attr = n.stat()
	return fs.OK
}

func (m *Model) publish(o fs.Publish, r *fs.Result) fs.Kind {
	n, k := m.file(o.Ino, o.Pieces, o.Mtime, o.Mask)
	if k != fs.OK {
		return k
	}
	before := len(n.data)
	if o.Cut != nil {
		if *o.Cut > 1<<60 {
			return fs.ErrTooBig
		}
		n.resize(*o.Cut)
	}
	for _, p := range o.Pieces {
		if p.Off > 1<<60 || p.Off+p.Len > 1<<60 {
			return fs.ErrTooBig
		}
		m.write(n, p, p.Off)
	}
	grown := o.Grow > uint64(len(n.data))
	if grown {
		if o.Grow > 1<<60 {
			return fs.ErrTooBig
		}
		n.resize(o.Grow)
	}
	if k := m.room(before, len(n.data)); k != fs.OK {
		return k
	}
	if o.Cut != nil || grown || len(o.Pieces) > 0 {
		n.written(m, o.Mtime)
	}
	return m.finish(n, o.Mask, o.Attr, r)
}

func (m *Model) append(o fs.Append, r *fs.Result) fs.Kind {
	n, k := m.file(o.Ino, o.Pieces, o.Mtime, o.Mask)
	if k != fs.OK {
		return k
	}
	before := len(n.data)
	for _, p := range o.Pieces {
		m.write(n, p, uint64(len(n.data)))
	}
	if k := m.room(before, len(n.data)); k != fs.OK {
		return k
	}
	if len(o.Pieces) > 0 {
		n.written(m, o.Mtime)
	}
	r.Offset = uint64(before)
	return m.finish(n, o.Mask, o.Attr, r)
}

func (m *Model) finish(n *node, mask fs.AttrMask, attr *fs.SetAttr, r *fs.Result) fs.Kind {
	if mask != 0 {
		n.dropSetid()
		m.changed(n)
	}
	if attr != nil {
		if k := m.setAttr(n, *attr); k != fs.OK {
			return k
		}
	}
	r.Attr = n.stat()
	return fs.OK
}

// file finds what is published to and checks the pieces.
func (m *Model) file(ino fs.Ino, pieces []fs.Piece, mtime fs.Time, mask fs.AttrMask) (*node, fs.Kind) {
	n := m.nodes[ino]
	switch {
	case n == nil:
		return nil, fs.ErrStale
	case n.IsDir():
		return nil, fs.ErrIsDir
	case !n.IsRegular():
		return nil, fs.ErrInvalid
	case mask != 0 && mask != fs.KillSetid, mtime.Nsec > 999_999_999, len(pieces) > 8192:
		return nil, fs.ErrInvalid
	}
	inline := 0
	for _, p := range pieces {
		inline += len(p.Data)
		bad := p.Data == nil && (len(p.Holders) == 0 || uint64(p.ChunkOff)+p.Len > uint64(p.ChunkLen) || p.ChunkLen > 4<<20)
		if p.Len == 0 || p.Data != nil && uint64(len(p.Data)) != p.Len || bad {
			return nil, fs.ErrInvalid
		}
	}
	if inline > 32<<10 {
		return nil, fs.ErrInvalid
	}
	return n, fs.OK
}

func (m *Model) write(n *node, p fs.Piece, off uint64) {
	b := p.Data
	if b == nil {
		b = m.Content[p.Hash][p.ChunkOff:][:p.Len]
	}
	if end := off + uint64(len(b)); end > uint64(len(n.data)) {
		n.resize(end)
	}
	for i, x := range b {
		n.data[off+uint64(i)], n.have[off+uint64(i)] = x, true
	}
}
