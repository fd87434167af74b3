package cluster

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Status is how this node stands in the cluster.
type Status struct {
	Node      fs.NodeID
	Cluster   string // the configured name
	UUID      string // "" until known
	Leader    fs.NodeID
	Term      uint64
	Voter     bool
	Applied   fs.Index // of this node's state
	Stable    fs.Index // S, as this node knows it
	Commit    fs.Index // raft's, as this node knows it
	Lease     bool
	LeaseLeft time.Duration
	Members   int
	// Proposals are this node's unanswered ones.
	Proposals int
	// LeaderWait is how long writers still wait for the leases of former
	// leaders; 0 unless this node leads.
	LeaderWait time.Duration
}

// Status does not block.
func (n *Node) Status() Status {
	l := n.leader()
	s := Status{
		Node: n.o.ID, Cluster: n.o.Cluster, UUID: n.uuid(), Leader: l.id, Term: l.term,
		Applied: n.store.applied(),
	}
	if r := n.raft(); r != nil {
		s.Commit = fs.Index(r.CommitIndex())
	}
	r := n.roster.Load()
	s.Members = len(r.members)
	for _, m := range r.members {
		s.Voter = s.Voter || m.ID == n.o.ID && m.Voter
	}
	_, waiting := n.propose.waiting()
	s.Proposals = len(waiting)
	n.pmu.Lock()
	defer n.pmu.Unlock()
	now := n.clock.Now()
	s.Stable = n.member.Stable()
	s.LeaseLeft, s.Lease = n.member.Lease(now)
	if n.leading != nil {
		s.LeaderWait = n.leading.Wait(now)
	}
	return s
}
