package meta

import "github.com/wpfs/wpfs/fs"

// AppendMergeMax is the size up to which inline appends join the file's last
// chunk, so that a log file does not become one extent per line.
const AppendMergeMax = 16 << 10

// HoldersMax bounds how many nodes one piece may name.
const HoldersMax = 64

// regular refuses what has no content.
func regular(n *inode) error {
	switch {
	case n.IsDir():
		return fs.ErrIsDir
	case !n.IsRegular():
		return fs.ErrInvalid
	}
	return nil
}

// contentInode returns the file that a publication is for, and checks what all
// publications have.
func (t *tx) contentInode(ino fs.Ino, pieces []fs.Piece, mtime fs.Time, mask fs.AttrMask) (*inode, error) {
	n, err := t.fileInode(ino)
	if err == nil {
		err = regular(n)
	}
	if err == nil && (mask&^fs.KillSetid != 0 || !validTime(mtime)) {
		err = fs.ErrInvalid
	}
	if err == nil {
		err = checkPieces(pieces)
	}
	return n, err
}

// checkPieces refuses what no honest publisher sends.
func checkPieces(pieces []fs.Piece) error {
	if len(pieces) > fs.ExtentsMax {
		return fs.ErrInvalid
	}
	inline := 0
	for i := range pieces {
		p := &pieces[i]
		switch {
		case p.Len == 0:
			return fs.ErrInvalid
		case p.Data != nil:
			inline += len(p.Data)
			if uint64(len(p.Data)) != p.Len || inline > fs.InlineMax {
				return fs.ErrInvalid
			}
		case p.ChunkLen > fs.ChunkMax || p.Len > uint64(p.ChunkLen) || uint64(p.ChunkOff) > uint64(p.ChunkLen)-p.Len:
			return fs.ErrInvalid
		case !validHolders(p.Holders):
			return fs.ErrInvalid
		}
	}
	return nil
}

func validHolders(nodes []fs.NodeID) bool {
	for _, h := range nodes {
		if h == "" || len(h) > NodeIDMax {
			return false
		}
	}
	return len(nodes) <= HoldersMax
}

func (t *tx) publish(o fs.Publish) (fs.Result, error) {
	n, err := t.contentInode(o.Ino, o.Pieces, o.Mtime, o.Mask)
	if err != nil {
		return fs.Result{}, err
	}
	before := n.Size
	if o.Cut != nil {
		if err := t.resize(n, *o.Cut); err != nil {
			return fs.Result{}, err
		}
	}
	for i := range o.Pieces {
		if err := t.place(n, &o.Pieces[i], o.Pieces[i].Off); err != nil {
			return fs.Result{}, err
		}
	}
	grow := o.Grow > n.Size
	if grow {
		if err := t.resize(n, o.Grow); err != nil {
			return fs.Result{}, err
		}
	}
	if err := t.chargeBytes(before, n.Size); err != nil {
		return fs.Result{}, err
	}
	if o.Cut != nil || len(o.Pieces) > 0 || grow {
		t.contentChanged(n, o.Mtime)
	}
	return t.published(n, o.Mask, o.Attr, fs.Result{})
}

func (t *tx) append(o fs.Append) (fs.Result, error) {
	n, err := t.contentInode(o.Ino, o.Pieces, o.Mtime, o.Mask)
	if err != nil {
		return fs.Result{}, err
	}
	before := n.Size
	for i := range o.Pieces {
		p := &o.Pieces[i]
		merged, err := t.extendLast(n, p)
		if err == nil && !merged {
			err = t.place(n, p, n.Size)
		}
		if err != nil {
			return fs.Result{}, err
		}
	}
	if err := t.chargeBytes(before, n.Size); err != nil {
		return fs.Result{}, err
	}
	if len(o.Pieces) > 0 {
		t.contentChanged(n, o.Mtime)
	}
	return t.published(n, o.Mask, o.Attr, fs.Result{Offset: before})
}

// published applies what comes after the content of a publication.
func (t *tx) published(n *inode, mask fs.AttrMask, attr *fs.SetAttr, r fs.Result) (fs.Result, error) {
	if mask&fs.KillSetid != 0 {
		killSetid(n)
		t.touch(n)
	}
	if attr != nil {
		if err := t.applyAttr(n, attr); err != nil {
			return fs.Result{}, err
		}
	}
	r.Attr = n.Attr
	return r, nil
}

// resize cuts n or lets it grow by a hole.
func (t *tx) resize(n *inode, size uint64) error {
	if size > fs.FileMax {
		return fs.ErrTooBig
	}
	if size < n.Size {
		if err := t.punch(n, size, n.Size); err != nil {
			return err
		}
	}
	n.Size = size
	return nil
}

// place puts a piece into n at off over whatever is there.
func (t *tx) place(n *inode, p *fs.Piece, off uint64) error {
	if off > fs.FileMax || p.Len > fs.FileMax-off {
		return fs.ErrTooBig
	}
	x := fs.Extent{Off: off, Len: p.Len}
	var err error
	// The new citation comes first: the old extent may be of the same chunk,
	// which must not go away in between.
	if p.Data != nil {
		x.Chunk, err = t.citeData(p.Data)
	} else {
		x.Chunk, err = t.citeHeld(p)
		x.ChunkOff = p.ChunkOff
	}
	if err == nil {
		err = t.punch(n, off, off+p.Len)
	}
	if err != nil {
		return err
	}
	t.putExtent(n, x)
	n.Size = max(n.Size, off+p.Len)
	return nil
}

// extendLast puts an inline piece behind the end of n by replacing n's last
// chunk with a longer one, if that chunk is small and nobody else's.
func (t *tx) extendLast(n *inode, p *fs.Piece) (bool, error) {
	if p.Data == nil || p.Len >= AppendMergeMax || n.Size > fs.FileMax-p.Len {
		return false, nil
	}
	x, ok, err := t.extentBefore(n.Ino, n.Size)
	if err != nil || !ok || x.Off+x.Len != n.Size || x.Len+p.Len > AppendMergeMax {
		return false, err
	}
	r, err := t.mustChunk(x.Chunk)
	if err != nil || !r.inline || r.refs != 1 || uint64(x.ChunkOff)+x.Len != uint64(r.size) {
		return false, err
	}
	content, err := t.inline(x.Chunk)
	if err != nil {
		return false, err
	}
	joined := make([]byte, 0, x.Len+p.Len)
	joined = append(append(joined, content[x.ChunkOff:]...), p.Data...)
	id, err := t.citeData(joined)
	if err != nil {
		return false, err
	}
	if err := t.removeExtent(n, x); err != nil {
		return false, err
	}
	t.putExtent(n, fs.Extent{Off: x.Off, Len: uint64(len(joined)), Chunk: id})
	n.Size += p.Len
	return true, nil
}
