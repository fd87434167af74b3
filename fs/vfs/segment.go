package vfs

import "github.com/wpfs/wpfs/fs"

// appendSegmentMax is where an append segment ends and another begins. One
// segment becomes one Append operation, so no write is ever torn between two.
const appendSegmentMax = 64 << 20

// segment is unpublished content of one inode. Its fields are guarded by the
// record's mu until sealed; after that only cut-free reading is left, and it
// never changes again.
type segment struct {
	app    bool // append: data holds bytes from offset 0, to go behind the end of file
	sealed bool // belongs to a publication; new writes go to another segment

	// Positional only: first the file is cut to cutTo, then data replaces what
	// it overlaps, then the file grows to grow.
	cut   bool
	cutTo uint64
	grow  uint64

	data  store
	mtime fs.Time // of the last write
	kill  bool    // set-id bits are to be cleared
}

// sizeAfter tells the size of a file of size bytes once s is applied to it.
func (s *segment) sizeAfter(size uint64) uint64 {
	if s.app {
		return size + s.data.dirty.end()
	}
	if s.cut {
		size = min(size, s.cutTo)
	}
	return max(size, s.data.dirty.end(), s.grow)
}

// truncate makes the file exactly size bytes long at this point of the history.
func (s *segment) truncate(size uint64) {
	if !s.cut || size < s.cutTo {
		s.cut, s.cutTo = true, size
	}
	s.data.cut(size)
	s.grow = size
}

// onlyLength tells that s sets the file's length and brings no bytes: what
// O_TRUNC leaves before the first write.
func (s *segment) onlyLength() bool {
	return !s.app && len(s.data.dirty) == 0
}

// empty tells that publishing s would change nothing.
func (s *segment) empty() bool {
	return !s.cut && s.grow == 0 && len(s.data.dirty) == 0
}

// canvas is a reader's buffer while segments are painted over it.
type canvas struct {
	p    []byte
	off  uint64 // of p in the file
	done spans  // parts of the file inside p that the committed content may not show through
}

func (c *canvas) end() uint64 { return c.off + uint64(len(c.p)) }

// paint puts s on c; size is the file's size before s.
func (c *canvas) paint(s *segment, size uint64) error {
	if s.cut && s.cutTo < c.end() {
		from := max(s.cutTo, c.off)
		clear(c.p[from-c.off:])
		c.done = c.done.add(from, c.end())
	}
	base := uint64(0)
	if s.app {
		base = size
	}
	if c.end() <= base {
		return nil
	}
	from := max(c.off, base)
	return s.data.dirty.within(from-base, c.end()-base, func(x span) error {
		lo, hi := x.off+base-c.off, x.end+base-c.off
		c.done = c.done.add(x.off+base, x.end+base)
		return s.data.readAt(c.p[lo:hi], x.off)
	})
}
