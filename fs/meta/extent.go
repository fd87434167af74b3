package meta

import "github.com/wpfs/wpfs/fs"

// putExtent writes an extent whose chunk has been cited for it.
func (t *tx) putExtent(n *inode, x fs.Extent) {
	t.o.put(keyExtent(n.Ino, x.Off), encodeExtent(x))
	n.Bytes += x.Len
}

// removeExtent deletes an extent whole.
func (t *tx) removeExtent(n *inode, x fs.Extent) error {
	t.o.del(keyExtent(n.Ino, x.Off))
	n.Bytes -= x.Len
	return t.addRefs(x.Chunk, -1)
}

// punch makes [off, end) of n a hole: extents inside go, those across a border
// are trimmed, one that reaches across both becomes two.
func (t *tx) punch(n *inode, off, end uint64) error {
	list, err := t.extents(n.Ino, off, end)
	if err != nil {
		return err
	}
	for _, x := range list {
		if err := t.punchExtent(n, x, off, end); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) punchExtent(n *inode, x fs.Extent, off, end uint64) error {
	t.o.del(keyExtent(n.Ino, x.Off))
	n.Bytes -= x.Len
	refs := -1
	if x.Off < off {
		left := x
		left.Len = off - x.Off
		t.putExtent(n, left)
		refs++
	}
	if xEnd := x.Off + x.Len; xEnd > end {
		right := x
		right.Off, right.Len = end, xEnd-end
		right.ChunkOff += uint32(end - x.Off)
		t.putExtent(n, right)
		refs++
	}
	return t.addRefs(x.Chunk, refs)
}
