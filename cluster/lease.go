package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// This file drives package protocol: it gives its steps the time, under pmu,
// and sends what they return. No step blocks, and nothing else is done under
// pmu.

// tickMax is the longest pause between two looks at the clock: a stopped and
// continued process notices its lost lease within it.
const tickMax = 500 * time.Millisecond

// step runs f under pmu and sends its messages; messages to this node are steps
// themselves. It wakes whoever waits for S or the lease if they changed.
func (n *Node) step(f func(now protocol.Instant) []protocol.Message) {
	out := n.locked(f)
	for len(out) > 0 {
		m := out[0]
		out = out[1:]
		if m.To == n.o.ID {
			out = append(out, n.locked(func(now protocol.Instant) []protocol.Message { return n.receive(now, m) })...)
			continue
		}
		n.sendProtocol(m)
	}
}

func (n *Node) locked(f func(now protocol.Instant) []protocol.Message) []protocol.Message {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	now := n.clock.Now()
	out := f(now)
	n.announce(now)
	return out
}

// announce closes changed if S, the applied index or the lease is not what it
// was, and wakes who drops the kernel's caches if that is due.
func (n *Node) announce(now protocol.Instant) {
	if _, want := n.member.Drop(); want {
		select {
		case n.redrop <- struct{}{}:
		default:
		}
	}
	s := n.member.Stable()
	_, lease := n.member.Lease(now)
	if lease {
		n.noLease = 0
	} else if n.noLease == 0 {
		n.noLease = max(now.Slow, 1)
	}
	at := n.member.AppliedIndex()
	if s == n.seenS && at == n.seenA && lease == n.seenL {
		return
	}
	n.seenS, n.seenA, n.seenL = s, at, lease
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Node) receive(now protocol.Instant, m protocol.Message) []protocol.Message {
	if n.raft() == nil {
		return nil // this node takes no part yet
	}
	if !m.ForLeader() {
		n.leaderSpoke = now.Slow
		return n.member.Receive(now, n.raft().CurrentTerm(), m)
	}
	n.heard[m.From.Node] = now.Slow
	if n.leading == nil {
		return nil
	}
	return n.leading.Receive(now, m)
}

// tick gives package protocol the time until ctx ends.
func (n *Node) tick(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-n.retick:
		case <-ctx.Done():
			return
		}
		n.step(func(now protocol.Instant) []protocol.Message {
			out := n.member.Tick(now)
			if n.leading != nil {
				out = append(out, n.leading.Tick(now)...)
			}
			return out
		})
		t.Reset(n.nextTick())
	}
}

func (n *Node) nextTick() time.Duration {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	now := n.clock.Now()
	d := min(tickMax, n.member.Next(now))
	if n.leading != nil {
		d = min(d, n.leading.Next(now))
	}
	return max(d, time.Millisecond)
}

// wakeTicker makes Tick happen soon: something new is due.
func (n *Node) wakeTicker() {
	select {
	case n.retick <- struct{}{}:
	default:
	}
}

// committed tells the leading side what raft has committed.
func (n *Node) committed(at fs.Index, bytes int) {
	n.step(func(now protocol.Instant) []protocol.Message {
		n.commitSeen = max(n.commitSeen, at)
		if n.leading == nil {
			return nil
		}
		return n.leading.Committed(now, at, bytes)
	})
}

// applied acknowledges entries up to at.
func (n *Node) applied(at fs.Index) {
	n.step(func(now protocol.Instant) []protocol.Message { return n.member.Applied(now, at) })
}

// configurationCommitted takes over a configuration that the log has committed.
func (n *Node) configurationCommitted(at fs.Index, c raft.Configuration) {
	servers := serversOf(c.Servers)
	n.step(func(now protocol.Instant) []protocol.Message {
		n.member.SetServers(now, at, servers)
		return nil
	})
}

func serversOf(servers []raft.Server) []protocol.Server {
	out := make([]protocol.Server, 0, len(servers))
	for _, s := range servers {
		out = append(out, protocol.Server{ID: fs.NodeID(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// holdsLease tells whether node may hold a lease, as far as this node can know:
// its own, and everybody's while it leads.
func (n *Node) holdsLease(id fs.NodeID) bool {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	now := n.clock.Now()
	if n.leading == nil {
		_, ok := n.member.Lease(now)
		return ok && id == n.o.ID
	}
	for _, h := range n.leading.Holders(now) {
		if h.ID.Node == id && !h.Joining {
			return true
		}
	}
	return false
}

func (n *Node) heardOf(id fs.NodeID) time.Duration {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	if id == n.o.ID {
		return n.clock.Now().Slow
	}
	return n.heard[id]
}

// Stable is the stable index S as this node knows it: entries up to it are
// applied on every node that holds a lease.
func (n *Node) Stable() fs.Index {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	return n.member.Stable()
}

// Lease tells how long this node's lease is still valid.
func (n *Node) Lease() (left time.Duration, ok bool) {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	return n.member.Lease(n.clock.Now())
}
