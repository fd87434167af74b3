package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Peer is a member's name and the address other nodes reach it at.
type Peer struct {
	ID   fs.NodeID `json:"id"`
	Addr string    `json:"addr"`
}

// Member is one member as this node sees it.
type Member struct {
	ID     fs.NodeID `json:"id"`
	Addr   string    `json:"addr"`
	Voter  bool      `json:"voter"`
	Leader bool      `json:"leader"`
	Alive  bool      `json:"alive"` // by gossip: a hint, nothing is decided by it
	Lease  bool      `json:"lease"` // as far as the leader knows; false on other nodes
}

// roster is raft's configuration as last seen. It is replaced, never changed.
type roster struct {
	index   fs.Index
	members []Member // sorted by ID
}

func (r *roster) addr(id fs.NodeID) string {
	i := slices.IndexFunc(r.members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return ""
	}
	return r.members[i].Addr
}

// refreshRoster takes over the latest configuration in the log.
func (n *Node) refreshRoster() {
	c, ok := n.confs.latest()
	if !ok || c.index == n.roster.Load().index {
		return
	}
	r := &roster{index: c.index}
	for _, s := range c.servers {
		r.members = append(r.members, Member{ID: fs.NodeID(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	slices.SortFunc(r.members, func(a, b Member) int { return compare(a.ID, b.ID) })
	n.roster.Store(r)
}

func compare(a, b fs.NodeID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Members lists the cluster's members.
func (n *Node) Members() []Member {
	leader := n.leader().id
	out := slices.Clone(n.roster.Load().members)
	for i := range out {
		m := &out[i]
		m.Leader = m.ID == leader
		m.Alive = m.ID == n.o.ID || n.alive(m.ID)
		m.Lease = n.holdsLease(m.ID)
	}
	return out
}

// Notes are the nodes' Options.Note, as far as gossip has them: of nodes that seem
// alive, whether they are members or not.
func (n *Node) Notes() map[fs.NodeID][]byte {
	notes := map[fs.NodeID][]byte{}
	for name, b := range n.gossip.Notes() {
		notes[fs.NodeID(name)] = b
	}
	return notes
}

// votersWanted is how many voters a cluster of so many members has (DESIGN
// D13). Two members vote both, so that either has everything; but losing either
// then stops writes.
func votersWanted(members int) int {
	switch {
	case members >= 10:
		return 5
	case members >= 3:
		return 3
	}
	return members
}

// promoteVoters makes a learner that has caught up a voter, one at a time,
// while there are too few.
func (n *Node) promoteVoters(ctx context.Context) {
	n.refreshRoster()
	r := n.roster.Load()
	voters := 0
	for _, m := range r.members {
		if m.Voter {
			voters++
		}
	}
	if voters >= votersWanted(len(r.members)) {
		return
	}
	for _, m := range r.members {
		if m.Voter || !n.holdsLease(m.ID) { // a holder has caught up and is alive (rule R9)
			continue
		}
		f := n.raft().AddVoter(raft.ServerID(m.ID), raft.ServerAddress(m.Addr), uint64(r.index), raftEnqueueMax)
		if err := f.Error(); err != nil {
			n.log.Warn("cannot make a member a voter yet", "node", m.ID, "err", err)
			return
		}
		n.log.Info("member is a voter now", "node", m.ID)
		return
	}
}

// joinRequest and joinAnswer travel as JSON: they are rare and must outlive versions.
type joinRequest struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"` // the configured name
	Peer    Peer   `json:"peer"`
}

type joinAnswer struct {
	Leader  string `json:"leader,omitempty"`  // ask there instead
	Refused string `json:"refused,omitempty"` // why, for people
	Done    bool   `json:"done,omitempty"`
}

const joinVersion = 1

// ErrJoinRefused means the cluster does not want this node as it is.
var ErrJoinRefused = errors.New("the cluster refuses this node")

// join asks the members at addrs until this node is in the configuration.
func (n *Node) join(ctx context.Context, addrs []string) error {
	req, err := json.Marshal(joinRequest{Version: joinVersion, Cluster: n.o.Cluster, Peer: Peer{n.o.ID, n.o.Advertise}})
	if err != nil {
		return err
	}
	n.log.Info("asking to join", "members", addrs)
	for warned := false; ; {
		for _, a := range addrs {
			done, err := n.askToJoin(ctx, a, req)
			if done || errors.Is(err, ErrJoinRefused) {
				return err
			}
			if err != nil && !warned {
				n.log.Warn("cannot join yet; trying on", "member", a, "err", err)
				warned = true
			}
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Node) askToJoin(ctx context.Context, addr string, req []byte) (done bool, err error) {
	for hops := 0; hops < 3; hops++ {
		cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		b, err := n.hub.Call(cctx, addr, methodJoin, req)
		cancel()
		if err != nil {
			return false, err
		}
		var a joinAnswer
		if err := json.Unmarshal(b, &a); err != nil {
			return false, fmt.Errorf("answer of %s to joining: %w", addr, err)
		}
		switch {
		case a.Refused != "":
			return false, fmt.Errorf("%w: %s", ErrJoinRefused, a.Refused)
		case a.Done:
			return true, nil
		case a.Leader == "" || a.Leader == addr:
			return false, errNoLeader
		}
		addr = a.Leader
	}
	return false, errNoLeader
}

var errNoLeader = errors.New("the cluster has no leader at the moment")

// serveJoin adds a node to the configuration as a learner, if this node leads.
func (n *Node) serveJoin(body []byte) ([]byte, error) {
	var req joinRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, &fs.Error{Op: "join", Kind: fs.ErrInvalid, Err: err}
	}
	return json.Marshal(n.admit(req))
}

func (n *Node) admit(req joinRequest) joinAnswer {
	if req.Version > joinVersion {
		return joinAnswer{Refused: "it is of a newer version: upgrade the cluster first"}
	}
	if req.Cluster != n.o.Cluster {
		return joinAnswer{Refused: fmt.Sprintf("its cluster.name is %q, this cluster's is %q", req.Cluster, n.o.Cluster)}
	}
	if !n.leads() {
		return joinAnswer{Leader: n.roster.Load().addr(n.leader().id)}
	}
	var seen bool
	var err error
	n.store.use(func(s *meta.State) { seen, err = s.NodeSeen(req.Peer.ID) })
	if err != nil {
		return joinAnswer{}
	}
	if seen { // only a node with an empty data directory asks (rule R27)
		return joinAnswer{Refused: fmt.Sprintf("node %q was a member before and has lost its data directory: choose a new node.id", req.Peer.ID)}
	}
	n.refreshRoster()
	for _, m := range n.roster.Load().members {
		if m.ID == req.Peer.ID && m.Addr == req.Peer.Addr {
			return joinAnswer{Done: true}
		}
		if m.Addr == req.Peer.Addr || m.ID == req.Peer.ID {
			return joinAnswer{Refused: fmt.Sprintf("member %s at %s has that name or address: choose another node.id and cluster.advertise", m.ID, m.Addr)}
		}
	}
	f := n.raft().AddNonvoter(raft.ServerID(req.Peer.ID), raft.ServerAddress(req.Peer.Addr), 0, raftEnqueueMax)
	if err := f.Error(); err != nil {
		n.log.Warn("cannot add a member", "node", req.Peer.ID, "err", err)
		return joinAnswer{}
	}
	n.log.Info("a node joined", "node", req.Peer.ID, "addr", req.Peer.Addr)
	return joinAnswer{Done: true}
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562, version 4
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
