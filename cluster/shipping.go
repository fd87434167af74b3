package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// ArchiveSource is this node's log and state for the copy in the bucket.
func (n *Node) ArchiveSource() archive.Source { return (*archiveSource)(n) }

type archiveSource Node

func (a *archiveSource) node() *Node { return (*Node)(a) }

// Leading is so once the first entry of the term is committed and applied here.
func (a *archiveSource) Leading() (term uint64, ok bool) {
	n := a.node()
	n.pmu.Lock()
	defer n.pmu.Unlock()
	return n.parkedTerm, n.leading != nil
}

func (a *archiveSource) UUID() string      { return a.node().uuid() }
func (a *archiveSource) Applied() fs.Index { return a.node().store.applied() }
func (a *archiveSource) Stable() fs.Index  { return a.node().Stable() }

// Entries reads raft's log beside raft.
func (a *archiveSource) Entries(from, to fs.Index, limit int) (log []archive.Entry, last fs.Index, err error) {
	n := a.node()
	// raft-wal still finds entries that it has dropped, while their file is there.
	first, err := n.logs.FirstIndex()
	if err != nil {
		return nil, 0, fmt.Errorf("read the log to ship it: %w", err)
	}
	if from < fs.Index(first) {
		return nil, 0, archive.ErrCompacted
	}
	size := 0
	for last = from - 1; last < to && size < limit; last++ {
		var l raft.Log
		err := n.logs.GetLog(uint64(last+1), &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			// Before the log's beginning; or, of a state that came as a snapshot,
			// behind its end. Only another snapshot covers it.
			return nil, 0, archive.ErrCompacted
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read the log to ship it: %w", err)
		}
		if l.Type == raft.LogCommand {
			log = append(log, archive.Entry{Index: fs.Index(l.Index), Term: l.Term, Data: l.Data, Idle: idleEntry(l.Data)})
			size += len(l.Data)
		}
	}
	return log, last, nil
}

// idleEntryMax is more than any entry has that is idle.
const idleEntryMax = 1 << 10

// idleEntry tells that an entry changes nothing that a restore would miss.
func idleEntry(b []byte) bool {
	if len(b) > idleEntryMax {
		return false
	}
	batch, err := meta.DecodeBatch(b)
	if err != nil {
		return false
	}
	for _, c := range batch {
		switch c.Op.(type) {
		case fs.Barrier, fs.RecordShipped:
		default:
			return false
		}
	}
	return true
}

// Export keeps the state from being replaced by a leader's snapshot until it ends.
func (a *archiveSource) Export(begin func(at fs.Index, hash uint64) error, f func(k, v []byte) error) error {
	err := error(&fs.Error{Op: "export metadata", Kind: fs.ErrIO, Err: errStoreClosed})
	a.node().store.use(func(s *meta.State) {
		err = s.Export(func(i meta.Image) error { return begin(i.Applied, i.Hash) }, f)
	})
	return err
}

func (a *archiveSource) RecordShipped(index, oldest fs.Index) {
	a.node().proposeOwn(context.Background(), fs.RecordShipped{Index: index, Oldest: oldest})
}

// UUID is the cluster's, "" while this node does not know it.
func (n *Node) UUID() string { return n.uuid() }

// Fresh tells that the data directory was empty when the node was opened.
func (n *Node) Fresh() bool { return n.fresh }

// Shipped is how far the bucket has the log, as the log itself says: a few seconds
// less than the truth. PinnedBefore explains Oldest.
func (n *Node) Shipped() (index, oldest fs.Index) {
	n.store.use(func(s *meta.State) {
		if r, err := s.Shipped(); err == nil {
			index, oldest = r.Index, r.Oldest
		}
	})
	return index, oldest
}

// PinnedBefore is the index of the oldest state that can still be restored from
// the bucket; 0: every state is. A chunk may be deleted from the bucket only if its
// last reference went at or before it: states from it on do not cite the chunk, and
// earlier ones cannot be restored any more (rule R37). It only grows, the same on
// every node that has applied as much.
func (n *Node) PinnedBefore() fs.Index {
	_, oldest := n.Shipped()
	return oldest
}
