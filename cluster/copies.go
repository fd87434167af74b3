package cluster

import (
	"errors"
	"slices"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// CopyOf tells what this node's copy of a chunk is for: promised, if the object
// store does not have it and this node was named as a holder; backed, if
// something cites it and the object store or the metadata has it. Before the node
// has caught up with the log of its last run every copy counts as promised.
func (n *Node) CopyOf(h fs.Hash) (promised, backed bool) {
	if !n.propose.open() {
		return true, false
	}
	var infos []fs.ChunkInfo
	var inline []bool
	err := error(errStoreClosed) // unknown is not unneeded: a node that is ending must not say so
	n.store.use(func(s *meta.State) { infos, inline, err = s.Chunks(h) })
	if errors.Is(err, errStoreClosed) {
		return true, false
	}
	if err != nil {
		n.log.Error("cannot tell whether a chunk is needed here; it is kept", "chunk", h, "err", err)
		return true, false
	}
	for i, c := range infos {
		if c.Refs == 0 {
			continue
		}
		backed = backed || c.Durable || inline[i]
		promised = promised || !c.Durable && !inline[i] && slices.Contains(c.Holders, n.o.ID)
	}
	return promised, backed
}

// ChunksOf lists what the metadata cites of chunks with these bytes.
func (n *Node) ChunksOf(h fs.Hash) ([]fs.ChunkInfo, error) {
	var infos []fs.ChunkInfo
	err := error(errStoreClosed)
	n.store.use(func(s *meta.State) { infos, _, err = s.Chunks(h) })
	return slices.DeleteFunc(infos, func(c fs.ChunkInfo) bool { return c.Refs == 0 }), err
}

// SetCited gives the node somewhere to tell of chunks that were just cited with
// this node as a holder. Call it before Run; cited must not block.
func (n *Node) SetCited(cited func(fs.Hash)) { n.cited = cited }

// citedContent tells of the chunks that a command brought.
func (n *Node) citedContent(op fs.Op, res fs.Result) {
	if n.cited == nil || res.Kind != fs.OK {
		return
	}
	var pieces []fs.Piece
	switch op := op.(type) {
	case fs.Publish:
		pieces = op.Pieces
	case fs.Append:
		pieces = op.Pieces
	}
	for _, p := range pieces {
		if slices.Contains(p.Holders, n.o.ID) {
			n.cited(p.Hash)
		}
	}
}
