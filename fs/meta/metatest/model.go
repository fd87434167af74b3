package metatest

import (
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// Model is a toy file system in plain maps, with every byte of every file in
// memory. It knows the rules of package fs and shares no code with fs/meta, so
// that a mistake has to be made twice to go unseen. Chunks are not modelled:
// what a Piece cites by hash is looked up in Content.
type Model struct {
	// Content has the bytes of the chunks that pieces may cite, by hash.
	Content map[fs.Hash][]byte

	nodes    map[fs.Ino]*node
	next     fs.Ino
	sessions map[fs.SessionID]*session
	uuid     string
	settings map[string][]byte
	bytesMax uint64
	inodeMax uint64

	at    fs.Index
	now   fs.Time
	ctime map[fs.Ino]bool // moved by this command
	mtime map[fs.Ino]bool // of directories, moved by this command
}

type node struct {
	fs.Attr
	data   []byte
	have   []bool // which bytes of data are not a hole
	target string
	kids   map[string]kid
	cookie uint64
	up     fs.Ino
	xattrs map[string]string
	tmp    bool     // made without a name and never had one
	since  fs.Index // orphan since
}

type kid struct {
	ino    fs.Ino
	cookie uint64
}

type session struct {
	node    fs.NodeID
	ended   bool
	floor   uint64
	results map[uint64]fs.Result
}

// NewModel returns a file system with an empty root.
func NewModel() *Model {
	root := &node{Attr: fs.Attr{Ino: 1, Mode: fs.ModeDir | 0o755, Nlink: 2, Size: 4096}, kids: map[string]kid{}, cookie: 3, up: 1}
	return &Model{
		Content: map[fs.Hash][]byte{}, nodes: map[fs.Ino]*node{1: root}, next: 2,
		sessions: map[fs.SessionID]*session{}, settings: map[string][]byte{},
	}
}

// Apply runs one command of the entry at. Like the real one, it remembers the
// results of sessions.
func (m *Model) Apply(at fs.Index, c fs.Command) fs.Result {
	m.at, m.now = at, c.Now
	if c.Session == 0 {
		return m.result(c.Op)
	}
	s := m.sessions[c.Session]
	if s == nil || s.ended {
		return fs.Result{Index: at, Kind: fs.ErrStale}
	}
	if c.Seq == 0 {
		return fs.Result{Index: at, Kind: fs.ErrInvalid}
	}
	if c.Seq < s.floor {
		return fs.Result{Index: at, Kind: fs.ErrStale}
	}
	if r, ok := s.results[c.Seq]; ok {
		return r
	}
	r := m.result(c.Op)
	if s.ended {
		return r
	}
	s.results[c.Seq] = r
	for s.floor < c.LowWater && s.floor < c.Seq || s.floor+1024 <= c.Seq {
		delete(s.results, s.floor)
		s.floor++
	}
	return r
}

func (m *Model) result(op fs.Op) fs.Result {
	r := fs.Result{}
	m.ctime, m.mtime = map[fs.Ino]bool{}, map[fs.Ino]bool{}
	before := m.clone(op)
	r.Kind = m.do(op, &r)
	if r.Kind != fs.OK {
		r = fs.Result{Kind: r.Kind}
		m.restore(before)
	}
	r.Index = m.at
	return r
}

// clone keeps what a publication may have changed before it is refused; every
// other operation is refused before it changes anything.
func (m *Model) clone(op fs.Op) *node {
	ino := fs.Ino(0)
	switch o := op.(type) {
	case fs.Publish:
		ino = o.Ino
	case fs.Append:
		ino = o.Ino
	case fs.SetAttr:
		ino = o.Ino
	}
	n := m.nodes[ino]
	if n == nil {
		return nil
	}
	c := *n
	c.data, c.have = append([]byte{}, n.data...), append([]bool{}, n.have...)
	return &c
}

func (m *Model) restore(n *node) {
	if n != nil {
		m.nodes[n.Ino] = n
	}
}

func (m *Model) do(op fs.Op, r *fs.Result) fs.Kind {
	switch o := op.(type) {
	case fs.Create:
		return m.create(o, r)
	case fs.Mkdir:
		return m.make(o.Parent, o.Name, fs.ModeDir|o.Mode&0o1777, 0, "", o.Cred, r)
	case fs.Mknod:
		return m.mknod(o, r)
	case fs.Symlink:
		if k := m.free(o.Parent, o.Name); k != fs.OK {
			return k
		}
		if o.Target == "" {
			return fs.ErrNotFound
		}
		if len(o.Target) > 4095 {
			return fs.ErrNameTooLong
		}
		if strings.Contains(o.Target, "\x00") {
			return fs.ErrInvalid
		}
		return m.make(o.Parent, o.Name, fs.ModeSymlink|0o777, 0, o.Target, o.Cred, r)
	case fs.Tmpfile:
		return m.tmpfile(o, r)
	case fs.Link:
		return m.link(o, r)
	case fs.Unlink:
		return m.remove(o.Parent, o.Name, false, o.Cred, r)
	case fs.Rmdir:
		return m.remove(o.Parent, o.Name, true, o.Cred, r)
	case fs.Rename:
		return m.rename(o, r)
	case fs.SetAttr:
		n := m.nodes[o.Ino]
		if n == nil {
			return fs.ErrStale
		}
		k := m.setAttr(n, o)
		r.Attr = n.stat()
		return k
	case fs.SetXattr:
		return m.setXattr(o, r)
	case fs.RemoveXattr:
		return m.removeXattr(o, r)
	case fs.Publish:
		return m.publish(o, r)
	case fs.Append:
		return m.append(o, r)
	}
	return m.doCluster(op)
}

func (m *Model) doCluster(op fs.Op) fs.Kind {
	switch o := op.(type) {
	case fs.OpenSession:
		s := m.sessions[o.Session]
		switch {
		case o.Session == 0 || o.Node == "":
			return fs.ErrInvalid
		case s == nil:
			m.sessions[o.Session] = &session{node: o.Node, floor: 1, results: map[uint64]fs.Result{}}
		case s.ended:
			return fs.ErrStale
		case s.node != o.Node:
			return fs.ErrExist
		}
	case fs.ExpireSession:
		for _, id := range o.Sessions {
			if s := m.sessions[id]; s != nil {
				s.ended, s.results = true, nil
			}
		}
	case fs.Reclaim:
		for _, ino := range o.Inos {
			if n := m.nodes[ino]; n != nil && n.Nlink == 0 {
				delete(m.nodes, ino)
			}
		}
	case fs.StorePack:
		return storePack(o)
	case fs.SetLimits:
		m.bytesMax, m.inodeMax = o.BytesMax, o.InodeMax
	case fs.SetSetting:
		return m.setSetting(o)
	case fs.InitCluster:
		if o.UUID == "" {
			return fs.ErrInvalid
		}
		if m.uuid == "" {
			m.uuid = o.UUID
		}
	}
	return fs.OK
}

// storePack knows which packs cannot be; where chunks are makes no difference to
// anything else the model knows.
func storePack(o fs.StorePack) fs.Kind {
	if o.Pack == (fs.PackID{}) || o.Size < 1 || o.Size > 8<<20 {
		return fs.ErrInvalid
	}
	for _, c := range o.Chunks {
		if c.Len < 1 || uint64(c.Off)+uint64(c.Len) > uint64(o.Size) || c.From == o.Pack {
			return fs.ErrInvalid
		}
	}
	return fs.OK
}

// stat is what the file system says of n.
func (n *node) stat() fs.Attr {
	a := n.Attr
	if a.IsRegular() {
		a.Size = uint64(len(n.data))
		for _, h := range n.have {
			if h {
				a.Bytes++
			}
		}
	}
	return a
}

func (m *Model) changed(n *node) {
	if !m.ctime[n.Ino] {
		n.Ctime = bump(n.Ctime, m.now)
	}
	m.ctime[n.Ino] = true
}

// listed is called on a directory whose entries changed.
func (m *Model) listed(n *node) {
	if !m.mtime[n.Ino] {
		n.Mtime = bump(n.Mtime, m.now)
	}
	m.mtime[n.Ino] = true
	n.Version = m.at
	m.changed(n)
}

func bump(old, now fs.Time) fs.Time {
	if old.Before(now) {
		return now
	}
	return old.Next()
}

// dir finds a directory in which name can be.
func (m *Model) dir(ino fs.Ino, name string) (*node, fs.Kind) {
	d := m.nodes[ino]
	switch {
	case d == nil:
		return nil, fs.ErrStale
	case !d.IsDir():
		return nil, fs.ErrNotDir
	case d.Nlink == 0:
		return nil, fs.ErrNotFound
	case name == "" || name == "." || name == ".." || strings.Contains(name, "/") || strings.Contains(name, "\x00"):
		return nil, fs.ErrInvalid
	case len(name) > 255:
		return nil, fs.ErrNameTooLong
	}
	return d, fs.OK
}

func (m *Model) free(dir fs.Ino, name string) fs.Kind {
	d, k := m.dir(dir, name)
	if k == fs.OK {
		if _, ok := d.kids[name]; ok {
			return fs.ErrExist
		}
	}
	return k
}

func (m *Model) full() bool { return m.inodeMax > 0 && uint64(len(m.nodes)) >= m.inodeMax }

// born makes an inode that has no name yet.
func (m *Model) born(d *node, mode, rdev uint32, cred fs.Cred) *node {
	n := &node{Attr: fs.Attr{
		Ino: m.next, Generation: uint64(m.at), Mode: mode, Uid: cred.Uid, Gid: cred.Gid, Rdev: rdev,
		Atime: m.now, Mtime: m.now, Ctime: m.now, Btime: m.now, Version: m.at,
	}}
	m.next++
	if d.Mode&fs.ModeSetgid != 0 {
		n.Gid = d.Gid
		if n.IsDir() {
			n.Mode |= fs.ModeSetgid
		} else if n.Mode&0o2010 == 0o2010 && cred.Uid != 0 && cred.Gid != d.Gid {
			n.Mode -= fs.ModeSetgid
		}
	}
	m.nodes[n.Ino] = n
	m.ctime[n.Ino] = true
	return n
}

// give makes a name for n.
func (m *Model) give(d *node, name string, n *node) {
	d.kids[name] = kid{n.Ino, d.cookie}
	d.cookie++
	m.listed(d)
}

func (m *Model) make(dir fs.Ino, name string, mode, rdev uint32, target string, cred fs.Cred, r *fs.Result) fs.Kind {
	if k := m.free(dir, name); k != fs.OK {
		return k
	}
	if m.full() {
		return fs.ErrNoSpace
	}
	d := m.nodes[dir]
	n := m.born(d, mode, rdev, cred)
	n.Nlink = 1
	if target != "" {
		n.target, n.Size = target, uint64(len(target))
	}
	if n.IsDir() {
		n.Nlink, n.Size, n.kids, n.cookie, n.up = 2, 4096, map[string]kid{}, 3, dir
		d.Nlink++
	}
	m.give(d, name, n)
	r.Attr = n.stat()
	return fs.OK
}

func (m *Model) create(o fs.Create, r *fs.Result) fs.Kind {
	d, k := m.dir(o.Parent, o.Name)
	if k != fs.OK {
		return k
	}
	if old, ok := d.kids[o.Name]; ok {
		n := m.nodes[old.ino]
		switch {
		case o.Excl:
			return fs.ErrExist
		case n.IsDir():
			return fs.ErrIsDir
		case !n.IsRegular():
			return fs.ErrExist
		}
		r.Attr, r.Existed = n.stat(), true
		return fs.OK
	}
	return m.make(o.Parent, o.Name, fs.ModeRegular|o.Mode&0o7777, 0, "", o.Cred, r)
}

func (m *Model) mknod(o fs.Mknod, r *fs.Result) fs.Kind {
	mode, rdev := o.Mode&0o177777, uint32(0)
	switch mode & fs.ModeType {
	case 0:
		mode |= fs.ModeRegular
	case fs.ModeRegular, fs.ModeFifo, fs.ModeSocket:
	case fs.ModeBlock, fs.ModeChar:
		rdev = o.Rdev
	case fs.ModeDir:
		return fs.ErrPermission
	default:
		return fs.ErrInvalid
	}
	return m.make(o.Parent, o.Name, mode, rdev, "", o.Cred, r)
}

func (m *Model) tmpfile(o fs.Tmpfile, r *fs.Result) fs.Kind {
	d, k := m.dir(o.Parent, "x")
	if k != fs.OK {
		return k
	}
	if m.full() {
		return fs.ErrNoSpace
	}
	n := m.born(d, fs.ModeRegular|o.Mode&0o7777, 0, o.Cred)
	n.tmp, n.since = true, m.at
	r.Attr = n.stat()
	return fs.OK
}

func (m *Model) link(o fs.Link, r *fs.Result) fs.Kind {
	if k := m.free(o.Parent, o.Name); k != fs.OK {
		return k
	}
	n := m.nodes[o.Ino]
	switch {
	case n == nil:
		return fs.ErrStale
	case n.IsDir():
		return fs.ErrPermission
	case n.Nlink == 0 && !n.tmp:
		return fs.ErrNotFound
	}
	n.tmp = false
	n.Nlink++
	m.changed(n)
	m.give(m.nodes[o.Parent], o.Name, n)
	r.Attr = n.stat()
	return fs.OK
}

func (m *Model) setSetting(o fs.SetSetting) fs.Kind {
	now, there := m.settings[o.Key]
	switch {
	case o.Key == "" || len(o.Key) > fs.SettingKeyMax || len(o.Value) > fs.SettingValueMax:
		return fs.ErrInvalid
	case there != (o.Old != nil) || string(now) != string(o.Old):
		return fs.ErrExist
	case o.Value == nil:
		delete(m.settings, o.Key)
	default:
		m.settings[o.Key] = o.Value
	}
	return fs.OK
}
