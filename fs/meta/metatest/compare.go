package metatest

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"sort"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Compare says how s differs from the model in anything a reader could see; nil
// if it does not.
func (m *Model) Compare(s *meta.State) error {
	return s.Read(func(v fs.View) error {
		inodes, size := m.sum()
		want := fs.Usage{Bytes: size, Inodes: inodes, BytesMax: m.bytesMax, InodeMax: m.inodeMax}
		if u, err := v.Usage(); err != nil || u != want {
			return fmt.Errorf("usage %+v (%w), want %+v", u, err, want)
		}
		for _, ino := range m.sorted() {
			if err := m.compareNode(v, m.nodes[ino]); err != nil {
				return fmt.Errorf("inode %d: %w", ino, err)
			}
		}
		return nil
	})
}

// CompareLists is Compare for what is not in a View: orphans, sessions, UUID.
func (m *Model) CompareLists(s *meta.State) error {
	var orphans []meta.Orphan
	for _, ino := range m.sorted() {
		if n := m.nodes[ino]; n.Nlink == 0 {
			orphans = append(orphans, meta.Orphan{Ino: ino, Since: n.since})
		}
	}
	if got, err := s.Orphans(0, 1<<20); err != nil || !slices.Equal(got, orphans) {
		return fmt.Errorf("orphans %v (%w), want %v", got, err, orphans)
	}
	for id, x := range m.sessions {
		node, ok := s.Session(id)
		if ok == x.ended || ok && node != x.node {
			return fmt.Errorf("session %d of %q live: %t, want %q %t", id, node, ok, x.node, !x.ended)
		}
		for seq, want := range x.results {
			if r, ok, err := s.SessionResult(id, seq); err != nil || !ok || r != want {
				return fmt.Errorf("session %d result %d: %+v %t (%w), want %+v", id, seq, r, ok, err, want)
			}
		}
	}
	if s.UUID() != m.uuid {
		return fmt.Errorf("uuid %q, want %q", s.UUID(), m.uuid)
	}
	if err := compareSettings(s, m); err != nil {
		return err
	}
	return nil
}

func (m *Model) sorted() []fs.Ino {
	var list []fs.Ino
	for ino := range m.nodes {
		list = append(list, ino)
	}
	slices.Sort(list)
	return list
}

func (m *Model) compareNode(v fs.View, n *node) error {
	if a, err := v.Attr(n.Ino); err != nil || a != n.stat() {
		return fmt.Errorf("attr %+v (%w), want %+v", a, err, n.stat())
	}
	if err := compareXattrs(v, n); err != nil {
		return err
	}
	switch {
	case n.IsDir():
		return m.compareDir(v, n)
	case n.IsSymlink():
		if target, err := v.Readlink(n.Ino); err != nil || target != n.target {
			return fmt.Errorf("target %q (%w), want %q", target, err, n.target)
		}
	case n.IsRegular():
		got, err := m.Read(v, n.Ino)
		if err != nil || !bytes.Equal(got, n.data) {
			return fmt.Errorf("content of %d bytes differs from the wanted %d (%w)", len(got), len(n.data), err)
		}
	}
	return nil
}

func compareXattrs(v fs.View, n *node) error {
	names, err := v.Xattrs(n.Ino)
	if err != nil || len(names) != len(n.xattrs) || !sort.StringsAreSorted(names) {
		return fmt.Errorf("xattrs %q (%w), want %d", names, err, len(n.xattrs))
	}
	for name, want := range n.xattrs {
		if b, err := v.Xattr(n.Ino, name); err != nil || string(b) != want {
			return fmt.Errorf("xattr %q is %q (%w), want %q", name, b, err, want)
		}
	}
	return nil
}

func (m *Model) compareDir(v fs.View, n *node) error {
	if up, err := v.Parent(n.Ino); err != nil || up != n.up {
		return fmt.Errorf("parent %d (%w), want %d", up, err, n.up)
	}
	var want []fs.Entry
	for name, x := range n.kids {
		want = append(want, fs.Entry{Name: name, Ino: x.ino, Type: m.nodes[x.ino].Mode & fs.ModeType, Cookie: x.cookie})
		if a, err := v.Lookup(n.Ino, name); err != nil || a != m.nodes[x.ino].stat() {
			return fmt.Errorf("lookup %q: %+v (%w)", name, a, err)
		}
	}
	slices.SortFunc(want, func(a, b fs.Entry) int { return int(a.Cookie) - int(b.Cookie) })
	var got []fs.Entry
	for after := uint64(0); ; { // in small steps, as readdir does
		part, err := v.List(n.Ino, after, 3)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		got = append(got, part...)
		if len(part) < 3 {
			break
		}
		after = part[2].Cookie
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("entries %v, want %v", got, want)
	}
	return nil
}

// Read returns a file's content, put together from its extents.
func (m *Model) Read(v fs.View, ino fs.Ino) ([]byte, error) {
	a, err := v.Attr(ino)
	if err != nil {
		return nil, err
	}
	list, err := v.Extents(ino, 0, a.Size)
	if err != nil {
		return nil, err
	}
	out := make([]byte, a.Size)
	for _, x := range list {
		c, err := v.Chunk(x.Chunk)
		if err != nil {
			return nil, err
		}
		content := c.Inline
		if content == nil {
			content = m.Content[x.Chunk.Hash]
		}
		if uint64(x.ChunkOff)+x.Len > uint64(len(content)) || int(c.Size) != len(content) {
			return nil, fmt.Errorf("extent at %d reaches beyond its chunk of %d bytes (%d known)", x.Off, c.Size, len(content))
		}
		copy(out[x.Off:x.Off+x.Len], content[x.ChunkOff:])
	}
	return out, nil
}

func compareSettings(s *meta.State, m *Model) error {
	keys, err := s.Settings("")
	if err != nil {
		return err
	}
	if len(keys) != len(m.settings) {
		return fmt.Errorf("settings %q, want %d", keys, len(m.settings))
	}
	for _, k := range keys {
		if v, err := s.Setting(k); err != nil || v == nil || string(v) != string(m.settings[k]) {
			return fmt.Errorf("setting %q is %q, want %q: %w", k, v, m.settings[k], err)
		}
	}
	return nil
}
