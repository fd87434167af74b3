package meta

import "github.com/wpfs/wpfs/fs"

// latest is an fs.View whose every call reads the state of that moment.
type latest struct{ s *State }

var _ fs.View = latest{}

// View returns a view whose method calls each see one state, the latest, so that
// two calls may see different ones. For one state in several calls use Read.
func (s *State) View() fs.View { return latest{s} }

// ask runs one method on the latest state.
func ask[T any](s *State, f func(fs.View) (T, error)) (out T, err error) {
	err = s.Read(func(v fs.View) error {
		out, err = f(v)
		return err
	})
	return out, err
}

func (l latest) Lookup(dir fs.Ino, name string) (fs.Attr, error) {
	return ask(l.s, func(v fs.View) (fs.Attr, error) { return v.Lookup(dir, name) })
}

func (l latest) Attr(ino fs.Ino) (fs.Attr, error) {
	return ask(l.s, func(v fs.View) (fs.Attr, error) { return v.Attr(ino) })
}

func (l latest) Parent(dir fs.Ino) (fs.Ino, error) {
	return ask(l.s, func(v fs.View) (fs.Ino, error) { return v.Parent(dir) })
}

func (l latest) List(dir fs.Ino, after uint64, n int) ([]fs.Entry, error) {
	return ask(l.s, func(v fs.View) ([]fs.Entry, error) { return v.List(dir, after, n) })
}

func (l latest) Readlink(ino fs.Ino) (string, error) {
	return ask(l.s, func(v fs.View) (string, error) { return v.Readlink(ino) })
}

func (l latest) Extents(ino fs.Ino, off, n uint64) ([]fs.Extent, error) {
	return ask(l.s, func(v fs.View) ([]fs.Extent, error) { return v.Extents(ino, off, n) })
}

func (l latest) Chunk(id fs.ChunkID) (fs.ChunkInfo, error) {
	return ask(l.s, func(v fs.View) (fs.ChunkInfo, error) { return v.Chunk(id) })
}

func (l latest) Xattr(ino fs.Ino, name string) ([]byte, error) {
	return ask(l.s, func(v fs.View) ([]byte, error) { return v.Xattr(ino, name) })
}

func (l latest) Xattrs(ino fs.Ino) ([]string, error) {
	return ask(l.s, func(v fs.View) ([]string, error) { return v.Xattrs(ino) })
}

func (l latest) Usage() (fs.Usage, error) { return ask(l.s, fs.View.Usage) }
