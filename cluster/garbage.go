package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// What collects garbage sees the cluster through these methods. They read this
// node's own state: what an entry has decided stays decided.

// Leads tells whether this node believes to lead; see leads.
func (n *Node) Leads() bool { return n.leads() }

// UncitedChunks looks at up to count chunks behind after and returns those that
// nothing cites, how many were looked at, and the last of these.
func (n *Node) UncitedChunks(after fs.ChunkID, count int) (list []fs.ChunkInfo, seen int, last fs.ChunkID, err error) {
	n.store.use(func(s *meta.State) { list, seen, last, err = s.UncitedChunks(after, count) })
	return list, seen, last, err
}

// Packs lists up to count packs behind after.
func (n *Node) Packs(after fs.PackID, count int) (list []fs.PackInfo, err error) {
	n.store.use(func(s *meta.State) { list, err = s.Packs(after, count) })
	return list, err
}

// Pack looks up one pack.
func (n *Node) Pack(id fs.PackID) (info fs.PackInfo, known bool, err error) {
	err = errStoreClosed // an unknown pack is an orphan: a node that is ending must not say so
	n.store.use(func(s *meta.State) { info, known, err = s.Pack(id) })
	return info, known, err
}

// Chunk looks up one chunk.
func (n *Node) Chunk(id fs.ChunkID) (info fs.ChunkInfo, known bool, err error) {
	err = n.store.read(func(v fs.View) (err error) {
		info, err = v.Chunk(id)
		return err
	})
	if fs.KindOf(err) == fs.ErrNotFound {
		return info, false, nil
	}
	return info, err == nil, err
}

// Condemn gives up chunks that nothing cites, and objects that nobody recorded.
func (n *Node) Condemn(ctx context.Context, op fs.Condemn) error {
	_, err := n.Do(ctx, op)
	return err
}

// Forget drops the records of what was condemned and is gone.
func (n *Node) Forget(ctx context.Context, op fs.Forget) error {
	_, err := n.Do(ctx, op)
	return err
}

// SetForgotten gives the node somewhere to tell of chunks that the metadata has
// just forgotten: copies on this node's disk are of no use. Call it before Run;
// forgotten must not block.
func (n *Node) SetForgotten(forgotten func(fs.Hash)) { n.forgotten = forgotten }

// forgottenContent tells of the chunks that a command has forgotten, or wanted to.
func (n *Node) forgottenContent(op fs.Op, res fs.Result) {
	if f, ok := op.(fs.Forget); ok && n.forgotten != nil && res.Kind == fs.OK {
		for _, id := range f.Chunks {
			n.forgotten(id.Hash)
		}
	}
}

// CollectFunc makes a round of garbage collection here and returns its report.
type CollectFunc func(ctx context.Context, dryRun bool) (json.RawMessage, error)

// SetCollect gives the node its collector, which the other nodes may ask for a
// round. Call it before Run.
func (n *Node) SetCollect(f CollectFunc) { n.collect = f }

var errLeaderUnknown = errors.New("no leader is known; are more than half of the voters running?")

// Collect makes the leader do a round of garbage collection and returns its
// report as JSON. It blocks for as long as the round takes, or until ctx ends;
// the round goes on then.
func (n *Node) Collect(ctx context.Context, dryRun bool) (json.RawMessage, error) {
	leader := n.leader().id
	switch leader {
	case "":
		return nil, &fs.Error{Op: "collect garbage", Kind: fs.ErrIO, Err: errLeaderUnknown}
	case n.o.ID:
		return n.serveCollect(ctx, []byte{boolByte(dryRun)})
	}
	b, err := n.call(ctx, leader, methodCollect, []byte{boolByte(dryRun)})
	if err != nil {
		return nil, fmt.Errorf("collect garbage on the leader %s: %w", leader, err)
	}
	return b, nil
}

func (n *Node) serveCollect(ctx context.Context, body []byte) ([]byte, error) {
	if len(body) != 1 || n.collect == nil {
		return nil, &fs.Error{Op: "collect garbage", Kind: fs.ErrInvalid}
	}
	if !n.leads() {
		return nil, &fs.Error{Op: "collect garbage", Kind: fs.ErrBusy, Err: errors.New("the leader has just changed: try again")}
	}
	return n.collect(ctx, body[0] == 1)
}
