package cluster

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// fsm is the Node as raft's state machine. raft calls Apply, Snapshot and
// Restore from one goroutine, never at the same time; Persist runs beside Apply.
type fsm Node

var (
	_ raft.BatchingFSM       = (*fsm)(nil)
	_ raft.FSMSnapshot       = (*checkpoint)(nil)
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.SnapshotStore     = (*snapshotStore)(nil)
	_ raft.WithPreVote       = (*pushTransport)(nil)
	_ raft.WithClose         = (*pushTransport)(nil)
	_ raft.StreamLayer       = streamLayer{}
)

// ApplyBatch applies committed entries. An entry that cannot be applied (a
// failing disk, an operation of a newer version) stops the node: it is never
// skipped (rule R42).
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	n := (*Node)(f)
	if n.broken {
		return make([]any, len(logs))
	}
	last := logs[len(logs)-1].Index
	n.trans.push(last) // followers learn of the commit before this node applies it
	bytes := 0
	for _, l := range logs {
		bytes += len(l.Data)
	}
	n.committed(fs.Index(last), bytes)
	for _, l := range logs {
		switch l.Type {
		case raft.LogConfiguration:
			n.configurationCommitted(fs.Index(l.Index), raft.DecodeConfiguration(l.Data))
		case raft.LogCommand:
			if err := n.apply(fs.Index(l.Index), l.Data); err != nil {
				// Nothing may be applied after it. What raft believes to be
				// applied does not matter: the state knows better.
				n.broken = true
				n.o.OnFatal(fmt.Errorf("apply log entry %d: %w", l.Index, err))
				return make([]any, len(logs))
			}
		}
	}
	n.applied(fs.Index(last))
	return make([]any, len(logs))
}

// Apply is not called: raft uses ApplyBatch where it exists.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (n *Node) apply(at fs.Index, entry []byte) error {
	batch, err := meta.DecodeBatch(entry)
	if err != nil {
		return err
	}
	n.beginEntry(batch)
	var results []fs.Result
	n.store.use(func(s *meta.State) { results, _, err = s.Apply(at, batch) })
	if err != nil {
		return err
	}
	n.switched()
	for i := range results { // none for an entry that the state had already
		if c := batch[i]; c.Session != 0 && !(results[i].Kind == fs.ErrStale && n.sessionEnded(c.Session)) {
			n.propose.applied(c.Session, c.Seq, results[i])
		}
		n.offerContent(at, batch[i].Op, results[i])
		n.citedContent(batch[i].Op, results[i])
		n.forgottenContent(batch[i].Op, results[i])
	}
	return nil
}

// sessionEnded tells that ErrStale was about this node's session, not about an
// inode: then nobody is told that his file is gone, all are told that the
// outcome is unknown.
func (n *Node) sessionEnded(session fs.SessionID) bool {
	if !n.propose.owns(session) {
		return false
	}
	known := true
	n.store.use(func(s *meta.State) { _, known = s.Session(session) })
	if !known {
		n.propose.unregistered()
	}
	return !known
}

// Snapshot captures nothing: Persist makes the checkpoint, at whatever entry
// the state is then. That is never before raft's index, and entries the state
// has already are skipped when they come again.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.broken {
		return nil, errBroken // raft's index has run ahead of the state
	}
	return (*checkpoint)(f), nil
}

var errBroken = errors.New("an entry could not be applied; the node is ending")

type checkpoint Node

// Persist flushes the store and links its files. The flush must come before
// raft drops log entries: the store has no write-ahead log of its own.
func (c *checkpoint) Persist(to raft.SnapshotSink) error {
	k, ok := to.(*sink)
	if !ok {
		return fmt.Errorf("snapshot: sink is a %T, not this package's", to)
	}
	err := k.adopt(func(dir string) (err error) {
		(*Node)(c).store.use(func(s *meta.State) {
			if err = s.Flush(); err == nil {
				err = s.Checkpoint(dir)
			}
		})
		return err
	})
	if err != nil {
		k.Cancel()
		return fmt.Errorf("checkpoint the metadata: %w", err)
	}
	return nil
}

func (c *checkpoint) Release() {}

// Restore replaces the state by the leader's snapshot. Results of this node's
// proposals in the entries that were left out are in the state.
func (f *fsm) Restore(r io.ReadCloser) error {
	n := (*Node)(f)
	defer r.Close()
	n.log.Info("taking over a snapshot from the leader")
	var reached fs.Index
	err := n.store.restore(r, func(at fs.Index) {
		reached = at
		n.pmu.Lock()
		defer n.pmu.Unlock()
		n.member.Restoring(at)
	})
	if err != nil {
		n.broken = true
		n.o.OnFatal(fmt.Errorf("restore the leader's snapshot: %w", err))
		return err
	}
	// Nobody sees the new state before S has reached it. The kernel still shows
	// the old one, so it comes before the ack, as in closeKeys; not while the
	// store is locked, because a reader that waits for it may hold pages.
	if k := n.kernel.Load(); k != nil {
		(*k).Drop(true)
	}
	n.applied(reached)
	if metas, err := n.snaps.List(); err == nil && len(metas) > 0 {
		err = n.snaps.setTaken(metas[0].ID)
		if err != nil {
			n.log.Warn("cannot note that the snapshot was taken over; the next start does it again", "err", err)
		}
	}
	return n.resultsFromSnapshot()
}

// resultsFromSnapshot hands out results of this node's proposals whose entries
// the snapshot stands for. If it also ended the session, which of them happened
// can no longer be told.
func (n *Node) resultsFromSnapshot() error {
	session, seqs := n.propose.waiting()
	var known bool
	n.store.use(func(s *meta.State) { _, known = s.Session(session) })
	if session != 0 && !known {
		n.propose.unregistered()
		return nil
	}
	for _, seq := range seqs {
		var res fs.Result
		var ok bool
		var err error
		n.store.use(func(s *meta.State) { res, ok, err = s.SessionResult(session, seq) })
		if err != nil {
			return err
		}
		if ok {
			n.propose.applied(session, seq, res)
		}
	}
	return nil
}
