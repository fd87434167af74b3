package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// ChunkServer is this node's disk of chunks as other nodes use it.
type ChunkServer interface {
	// Fetch returns a whole chunk, verified: fs.ErrNotFound if it is not here.
	Fetch(h fs.Hash) ([]byte, error)
	// Keep stores a chunk for another node after verifying it; with sync it is
	// fsynced before Keep returns.
	Keep(h fs.Hash, b []byte, sync bool) error
}

// SetChunks gives the node the chunks to serve. Call it before Run.
func (n *Node) SetChunks(c ChunkServer) { n.chunks = c }

// SetKeepInline gives the node somewhere to put content that leaves the metadata
// because the object store has it now. keep must not block; what it does not
// keep is fetched again when it is read.
func (n *Node) SetKeepInline(keep func(fs.ChunkID, []byte)) { n.keep.Store(&keep) }

// Self is this node.
func (n *Node) Self() fs.NodeID { return n.o.ID }

// Others are the other members that seem alive, nearest first as far as known.
func (n *Node) Others() []fs.NodeID {
	var out []fs.NodeID
	for _, m := range n.roster.Load().members {
		if m.ID != n.o.ID && n.alive(m.ID) {
			out = append(out, m.ID)
		}
	}
	return out
}

// Fetch asks one node for a chunk of size bytes. The bytes are not verified.
func (n *Node) Fetch(ctx context.Context, node fs.NodeID, h fs.Hash, size uint32) ([]byte, error) {
	b, err := n.call(ctx, node, methodFetch, h[:])
	if err != nil {
		return nil, fmt.Errorf("fetch chunk %s from node %s: %w", h, node, err)
	}
	if len(b) != int(size) {
		return nil, fmt.Errorf("fetch chunk %s from node %s: %w: %d bytes instead of %d", h, node, fs.ErrCorrupt, len(b), size)
	}
	return b, nil
}

// Push gives one node a chunk and returns when it has it on disk, with sync
// fsynced. It does not wait for a connection that stands still when ctx ends.
func (n *Node) Push(ctx context.Context, node fs.NodeID, h fs.Hash, b []byte, sync bool) error {
	msg := make([]byte, 0, len(h)+1+len(b))
	msg = append(msg, h[:]...)
	msg = append(msg, boolByte(sync))
	msg = append(msg, b...)
	done := make(chan error, 1)
	go func() { _, err := n.call(ctx, node, methodPush, msg); done <- err }() // bounded by the hub's write timeout
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = &fs.Error{Op: "call", Kind: fs.ErrIO, Err: ctx.Err()}
	}
	if err != nil {
		return fmt.Errorf("push chunk %s to node %s: %w", h, node, err)
	}
	return nil
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (n *Node) serveFetch(body []byte) ([]byte, error) {
	if len(body) != len(fs.Hash{}) || n.chunks == nil {
		return nil, &fs.Error{Op: "serve chunk", Kind: fs.ErrInvalid}
	}
	return n.chunks.Fetch(fs.Hash(body))
}

func (n *Node) servePush(body []byte) ([]byte, error) {
	const head = len(fs.Hash{}) + 1
	if len(body) < head || n.chunks == nil {
		return nil, &fs.Error{Op: "keep chunk", Kind: fs.ErrInvalid}
	}
	return nil, n.chunks.Keep(fs.Hash(body[:head-1]), body[head:], body[head-1] == 1)
}

// Undurable lists up to count chunks that the object store does not have yet,
// oldest first, those that travelled in the log with their content.
func (n *Node) Undurable(after fs.ChunkID, count int) (out []fs.ChunkInfo, err error) {
	var list []meta.Undurable
	n.store.use(func(s *meta.State) { list, err = s.Undurable(after, count) })
	if err != nil {
		return nil, err
	}
	for _, u := range list {
		info := u.Info
		if u.Inline {
			err := n.store.read(func(v fs.View) (err error) { info, err = v.Chunk(u.Info.ID); return err })
			if err != nil {
				continue // it was dropped since it was listed
			}
		}
		out = append(out, info)
	}
	return out, nil
}

// Mine tells whether it is this node's turn to upload the chunk: content that
// travelled in the log is the leader's (every node has it), other content its
// first living holder's. Two uploads of one chunk do no harm.
func (n *Node) Mine(info fs.ChunkInfo) bool {
	if len(info.Holders) == 0 || info.Inline != nil {
		return n.leads()
	}
	i := slices.IndexFunc(info.Holders, func(id fs.NodeID) bool { return id == n.o.ID || n.alive(id) })
	if i < 0 { // none is alive; the leader finds who else has read it
		return n.leads()
	}
	return info.Holders[i] == n.o.ID
}

// StorePack records that the object store has a pack of chunks.
func (n *Node) StorePack(ctx context.Context, op fs.StorePack) error {
	_, err := n.Do(ctx, op)
	return err
}

// offerFileMax is the size up to which a published file is offered to SetOffer's
// function: such files are read whole, and soon, wherever the site runs.
const offerFileMax = 1 << 20

// SetOffer gives the node somewhere to tell of chunks of small files that were
// just published and that this node is no holder of. Call it before Run; offer
// must not block.
func (n *Node) SetOffer(offer func(fs.ChunkInfo)) { n.offer = offer }

// offerContent tells of the chunks that a command of entry at brought.
func (n *Node) offerContent(at fs.Index, op fs.Op, res fs.Result) {
	if n.offer == nil || res.Kind != fs.OK || res.Attr.Size > offerFileMax {
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
		if p.Data == nil && !slices.Contains(p.Holders, n.o.ID) {
			n.offer(fs.ChunkInfo{ID: fs.ChunkID{Hash: p.Hash, Gen: at}, Size: p.ChunkLen, Holders: p.Holders})
		}
	}
}

// Holder tells which inodes are open on this node.
type Holder interface {
	// Holds returns those of inos that are open here. An open that was under
	// way when it was asked counts.
	Holds(ctx context.Context, inos []fs.Ino) ([]fs.Ino, error)
}

// SetHolder gives the node its mount's open files. Call it before Run; without
// one nothing is open here.
func (n *Node) SetHolder(h Holder) { n.holder = h }

// holds answers another node's question, once this node has seen the log up to
// the question's index: an orphan it does not know of yet may still be opened.
func (n *Node) holds(ctx context.Context, body []byte) ([]byte, error) {
	at, inos, err := decodeInos(body)
	if err != nil {
		return nil, err
	}
	if n.store.applied() < at {
		return nil, &fs.Error{Op: "list open files", Kind: fs.ErrBusy, Err: errors.New("this node has not applied the log up to there yet")}
	}
	if n.holder == nil {
		return encodeInos(at, nil), nil
	}
	open, err := n.holder.Holds(ctx, inos)
	if err != nil {
		return nil, err
	}
	return encodeInos(at, open), nil
}

func encodeInos(at fs.Index, inos []fs.Ino) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+8*len(inos)), uint64(at))
	for _, i := range inos {
		b = binary.BigEndian.AppendUint64(b, uint64(i))
	}
	return b
}

func decodeInos(b []byte) (at fs.Index, inos []fs.Ino, err error) {
	if len(b) < 8 || len(b)%8 != 0 {
		return 0, nil, &fs.Error{Op: "decode inodes", Kind: fs.ErrInvalid, Err: errTruncated}
	}
	at = fs.Index(binary.BigEndian.Uint64(b))
	for b = b[8:]; len(b) > 0; b = b[8:] {
		inos = append(inos, fs.Ino(binary.BigEndian.Uint64(b)))
	}
	return at, inos, nil
}
