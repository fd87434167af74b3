package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// watchEvery is the safety net behind raft's observations.
// watchEvery is for what raft's observer does not tell: a term without a leader.
const watchEvery = time.Second

// watchLeader keeps the belief of who leads, and the roster, up to date. Both
// are hints: a wrong one costs time, never correctness.
func (n *Node) watchLeader(ctx context.Context) {
	seen := make(chan raft.Observation, 16)
	obs := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	n.raft().RegisterObserver(obs)
	defer n.raft().DeregisterObserver(obs)
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		n.believe()
		select {
		case <-seen:
		case <-n.rewatch:
			n.configurationChanged()
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) wakeWatcher() {
	select {
	case n.rewatch <- struct{}{}:
	default:
	}
}

// believe takes over raft's idea of the leader if it changed.
func (n *Node) believe() {
	_, id := n.raft().LeaderWithID()
	term := n.raft().CurrentTerm()
	now := n.lead.Load()
	if now.id == fs.NodeID(id) && now.term == term {
		return
	}
	n.setLeader(fs.NodeID(id), term)
	n.log.Debug("leader", "leader", id, "term", term)
	n.step(func(now protocol.Instant) []protocol.Message { return n.member.SetLeader(now, fs.NodeID(id), term) })
	n.wakeTicker()
}

func (n *Node) setLeader(id fs.NodeID, term uint64) {
	for {
		old := n.lead.Load()
		fresh := &leadership{id: id, term: term, epoch: old.epoch + 1, changed: make(chan struct{})}
		if n.lead.CompareAndSwap(old, fresh) {
			close(old.changed)
			return
		}
	}
}

// leader is who this node believes to lead.
func (n *Node) leader() *leadership { return n.lead.Load() }

// leaderEpoch is leader for the proposer.
func (n *Node) leaderEpoch() (fs.NodeID, uint64, <-chan struct{}) {
	l := n.lead.Load()
	return l.id, l.epoch, l.changed
}

// notLeader handles the word of a node that it does not lead: proposals go out
// again after a moment, by then perhaps to another.
func (n *Node) notLeader(from fs.NodeID) {
	l := n.lead.Load()
	if l.id != from {
		return
	}
	time.AfterFunc(leaderPoll, func() {
		if n.lead.Load() == l {
			n.setLeader(l.id, l.term)
		}
	})
}

// leads tells whether this node believes to lead. It gives no permission to
// anything: what a deposed leader does is refused by the log or by the voters.
func (n *Node) leads() bool { return n.batcher.Load() != nil }

// leadWhenElected enters lead when raft elects this node and leaves it when
// raft steps down, until ctx ends.
func (n *Node) leadWhenElected(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case elected := <-n.notify:
			stop()
			stop = func() {}
			if elected {
				lctx, cancel := context.WithCancel(ctx)
				done := make(chan struct{})
				go func() { defer close(done); n.leadTerm(lctx) }()
				stop = func() { cancel(); <-done }
			}
		case <-ctx.Done():
			return
		}
	}
}

// leadTerm is what a leader does; being the leader is being in this function.
// It has a batcher of its own: commands that a former term left behind are not
// proposed in a later one, their nodes send them again.
func (n *Node) leadTerm(ctx context.Context) {
	b := newBatcher(func(entry []byte) { n.raft().Apply(entry, raftEnqueueMax) })
	n.batcher.Store(b)
	defer n.batcher.Store(nil)
	done := make(chan struct{})
	go func() { defer close(done); b.run(ctx) }()
	defer func() { <-done }()

	term, barrier, ok := n.commitBarrier(ctx)
	if !ok {
		return
	}
	n.log.Info("leading", "term", term)
	n.step(func(now protocol.Instant) []protocol.Message { return n.beginTerm(now, term, barrier) })
	n.wakeTicker()
	defer func() {
		n.pmu.Lock()
		n.leading = nil
		n.pmu.Unlock()
		n.log.Info("not leading any more", "term", term)
	}()
	n.nameCluster(ctx)
	n.keepHouse(ctx)
}

// beginTerm makes the leading side of term, or takes the one up again that this
// node has for it: a second one would not know the leases that the first
// granted. What was committed while there was none is told now.
func (n *Node) beginTerm(now protocol.Instant, term uint64, barrier fs.Index) (out []protocol.Message) {
	if n.parked == nil || n.parkedTerm != term {
		conf, _ := n.confs.latest() // there is one: a leader is in it
		clear(n.heard)
		n.parked, out = protocol.NewLeader(n.o.Protocol, protocol.LeaderOptions{
			Self: n.self, Term: term, Conf: conf.index, Servers: serversOf(conf.servers),
		}, now)
		n.parkedTerm = term
		out = append(out, n.parked.Barrier(now, barrier)...)
	}
	n.leading = n.parked
	return append(out, n.leading.Committed(now, n.commitSeen, 0)...)
}

// commitBarrier commits the first entry of the term, trying until this node
// leads no more. Its term is read from the log: the current one may be newer.
func (n *Node) commitBarrier(ctx context.Context) (term uint64, at fs.Index, ok bool) {
	entry := meta.EncodeBatch([][]byte{meta.EncodeCommand(fs.Command{Now: fs.TimeOf(time.Now()), Op: fs.Barrier{}})})
	for ctx.Err() == nil {
		f := n.raft().Apply(entry, raftEnqueueMax)
		var l raft.Log
		if err := f.Error(); err == nil && n.logs.GetLog(f.Index(), &l) == nil {
			return l.Term, fs.Index(f.Index()), ctx.Err() == nil
		}
		select {
		case <-time.After(leaderPoll):
		case <-ctx.Done():
		}
	}
	return 0, 0, false
}

// configurationChanged takes over the latest configuration in the log. A node
// that was just added is granted no lease before it is known here (rule R14),
// so being late costs only time.
func (n *Node) configurationChanged() {
	n.refreshRoster()
	c, ok := n.confs.latest()
	if !ok {
		return
	}
	n.step(func(now protocol.Instant) []protocol.Message {
		if n.leading == nil {
			return nil
		}
		return n.leading.SetServers(now, c.index, serversOf(c.servers))
	})
	n.wakeTicker()
}
