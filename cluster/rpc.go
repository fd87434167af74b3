package cluster

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/wpfs/wpfs/cluster/peer"
	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/cluster/wire"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// What nodes say to each other (docs/format/peer.md). Numbers never change.
const (
	methodProtocol  peer.Method = 1  // message: one protocol.Message
	methodPropose   peer.Method = 2  // message: commands for the leader
	methodNotLeader peer.Method = 3  // message: the proposals went to the wrong node
	methodFetch     peer.Method = 10 // call: hash → chunk
	methodPush      peer.Method = 11 // call: hash, sync, chunk → nothing
	methodHolds     peer.Method = 12 // call: index, inodes → index, those that are open
	methodJoin      peer.Method = 13 // call: JSON → JSON
	methodSeen      peer.Method = 14 // call: node id → one byte, 1 if that node was a member before
	methodCollect   peer.Method = 30 // call: one byte, 1 for a dry run → JSON
)

func (n *Node) dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	return n.mux.Dial(ctx, addr, wire.Peer)
}

func (n *Node) identify() peer.Identity {
	return peer.Identity{Cluster: n.uuid(), Node: n.o.ID, Session: n.self.Session}
}

// call asks a member.
func (n *Node) call(ctx context.Context, id fs.NodeID, m peer.Method, body []byte) ([]byte, error) {
	addr := n.roster.Load().addr(id)
	if addr == "" {
		return nil, &fs.Error{Op: "call", Name: string(id), Kind: fs.ErrIO, Err: fmt.Errorf("not a member")}
	}
	return n.hub.Call(ctx, addr, m, body)
}

func (n *Node) sendProtocol(m protocol.Message) {
	addr := n.roster.Load().addr(m.To)
	if addr == "" {
		return
	}
	b, err := m.MarshalBinary()
	if err != nil {
		n.log.Error("encode a protocol message", "err", err)
		return
	}
	n.hub.Send(addr, true, methodProtocol, b)
}

// sendProposals sends commands to the leader, or queues them if that is here.
func (n *Node) sendProposals(leader fs.NodeID, encoded [][]byte) {
	if leader == n.o.ID {
		if !n.submit(encoded) {
			n.notLeader(leader) // not yet, or not any more
		}
		return
	}
	addr := n.roster.Load().addr(leader)
	if addr == "" {
		return
	}
	for _, msg := range packProposals(encoded) {
		n.hub.Send(addr, false, methodPropose, msg)
	}
}

// submit queues commands for the log; false if this node does not lead. What
// the full queue drops comes again.
func (n *Node) submit(encoded [][]byte) bool {
	b := n.batcher.Load()
	if b == nil {
		return false
	}
	for _, c := range encoded {
		b.submit(c)
	}
	return true
}

// handler is the Node as the other nodes' partner.
type handler Node

var _ peer.Handler = (*handler)(nil)

// Message must not block: every step here is a few microseconds under pmu.
func (h *handler) Message(from peer.Identity, m peer.Method, body []byte) {
	n := (*Node)(h)
	switch m {
	case methodProtocol:
		var msg protocol.Message
		if err := msg.UnmarshalBinary(body); err != nil || msg.To != n.o.ID || msg.From.Node != from.Node {
			n.log.Warn("dropped a protocol message", "from", from.Node, "err", err)
			return
		}
		n.step(func(now protocol.Instant) []protocol.Message { return n.receive(now, msg) })
		if msg.Kind != protocol.Applied && msg.Kind != protocol.Stable { // those come with every batch and make nothing due
			n.wakeTicker()
		}
	case methodPropose:
		encoded, err := unpackProposals(body)
		if err != nil {
			n.log.Warn("dropped proposals", "from", from.Node, "err", err)
			return
		}
		if !n.submit(encoded) {
			if addr := n.roster.Load().addr(from.Node); addr != "" {
				n.hub.Send(addr, true, methodNotLeader, nil)
			}
		}
	case methodNotLeader:
		n.notLeader(from.Node)
	}
}

// Call answers one call.
func (h *handler) Call(ctx context.Context, from peer.Identity, m peer.Method, body []byte) ([]byte, error) {
	n := (*Node)(h)
	switch m {
	case methodFetch:
		return n.serveFetch(body)
	case methodPush:
		return n.servePush(body)
	case methodHolds:
		return n.holds(ctx, body)
	case methodJoin:
		return n.serveJoin(body)
	case methodCollect:
		return n.serveCollect(ctx, body)
	case methodSeen:
		return n.serveSeen(fs.NodeID(body))
	}
	return nil, &fs.Error{Op: fmt.Sprintf("method %d", m), Kind: fs.ErrNotSupported}
}

// uuid is the cluster's, "" while this node has not learnt it. It is saved with
// the identity the first time.
func (n *Node) uuid() string {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	if n.id.UUID != "" {
		return n.id.UUID
	}
	n.store.use(func(s *meta.State) { n.id.UUID = s.UUID() })
	if n.id.UUID != "" {
		if err := n.id.save(n.o.DataDir); err != nil {
			n.log.Error("cannot save the cluster's UUID", "err", err)
		}
	}
	return n.id.UUID
}

// alive is gossip's hint.
func (n *Node) alive(id fs.NodeID) bool { return slices.Contains(n.gossip.Members(), string(id)) }

// gossipSeeds are the members' gossip addresses, by convention the port after
// the one for raft and RPC.
func (n *Node) gossipSeeds() []string {
	var addrs []string
	for _, m := range n.roster.Load().members {
		addrs = append(addrs, m.Addr)
	}
	if len(addrs) == 0 {
		for _, p := range n.o.Peers {
			addrs = append(addrs, p.Addr)
		}
		addrs = append(addrs, n.o.Join...)
	}
	var out []string
	for _, a := range addrs {
		if g, err := gossipAddr(a); err == nil && a != n.o.Advertise {
			out = append(out, g)
		}
	}
	return out
}
