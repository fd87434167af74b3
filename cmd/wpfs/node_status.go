package main

import (
	"time"

	wfs "github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/lb"
)

// warnAlone says in the log what a cluster of one node cannot promise.
func (n *node) warnAlone() {
	if n.cluster.Status().Members != 1 {
		return
	}
	n.log.Warn("this cluster has one node: without it nothing goes on; add two more")
	if n.cfg.Cluster.Durability != durabilityS3 {
		n.log.Warn("this cluster has one node: what close() has stored is on one disk until the object store has it")
	}
}

// Status implements stack.
func (n *node) Status() Status {
	c, d, u := n.cluster.Status(), n.disk.Stats(), n.uploader.Status()
	st := Status{
		Node: n.cfg.Node.ID,
		Cluster: ClusterStatus{
			Name: c.Cluster, UUID: c.UUID, Role: role(c.Leader == c.Node, c.Voter), Leader: string(c.Leader), Term: c.Term,
			Applied: uint64(c.Applied), Stable: uint64(c.Stable), LeaseValid: c.Lease,
			LeaseLeftMS: float64(max(c.LeaseLeft, 0).Microseconds()) / 1000, Members: c.Members,
		},
		Mount: MountStatus{Path: n.cfg.Mount.Path, Live: n.mounted()},
		Content: ContentStatus{Object: withoutParameters(n.cfg.Object.URL), Replicas: n.cfg.Cluster.Replicas, Durability: n.cfg.Cluster.Durability,
			CacheBytes: d.Bytes, CacheChunks: d.Chunks, CacheMax: int64(n.cfg.Cache.MaxBytes), CacheFree: int64(d.Free),
			CachePressure: d.Pressure, Evicted: d.Evicted, Corrupt: d.Corrupt,
			UploadChunks: int64(u.Chunks), UploadBytes: int64(u.Bytes), UploadAgeS: u.OldestAge.Seconds()},
	}
	st.Content.AtRisk = n.risk.get()
	st.Garbage = garbageStatus(n.garbage.Last(), n.garbage.Totals())
	st.Archive, st.Scrub = n.archiveStatus(time.Now()), n.Scrubbed()
	if b := n.breaker.Status(); b.ReadsOpen || b.WritesOpen {
		st.Content.ObjectSuspended = true
	}
	if g := n.gate.Stats(); g.Full != nil {
		st.Content.WritesRefused = g.Full.Error()
	} else {
		st.Content.WritesSlowed = g.Fill > 0.5
	}
	if !u.FailingSince.IsZero() && u.LastError != nil {
		st.Content.ObjectError = u.LastError.Error()
	}
	return st
}

// Members implements stack. Only the leader knows who holds a lease; each node
// knows of its own.
func (n *node) Members() []Member {
	leads := n.cluster.Status().Leader == wfs.NodeID(n.cfg.Node.ID)
	out := []Member{}
	for _, m := range n.cluster.Members() {
		local, lease := string(m.ID) == n.cfg.Node.ID, "unknown"
		switch {
		case !leads && !local:
		case m.Lease:
			lease = "held"
		default:
			lease = "none"
		}
		out = append(out, Member{ID: string(m.ID), Addr: m.Addr, Role: role(m.Leader, m.Voter), Lease: lease, Alive: m.Alive, Local: local})
	}
	return out
}

// Store implements stack.
func (n *node) Store() lb.Store { return clusterStore{n.cluster} }

// WebNotes implements stack.
func (n *node) WebNotes() (members []string, notes map[wfs.NodeID][]byte) {
	for _, m := range n.cluster.Members() {
		members = append(members, string(m.ID))
	}
	return members, n.cluster.Notes()
}

func role(leads, votes bool) string {
	switch {
	case leads:
		return "leader"
	case votes:
		return "voter"
	}
	return "learner"
}

// Scrub implements stack.
func (n *node) Scrub(bytesPerSecond int64) { n.scrubber.Start(bytesPerSecond) }

// Scrubbed implements stack.
func (n *node) Scrubbed() ScrubStatus {
	s := n.scrubber.Status()
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	return ScrubStatus{Running: s.Running, Asked: s.Asked, StartedAt: at(s.Started), FinishedAt: at(s.Finished), Chunks: s.Chunks,
		Bytes: s.Bytes, TotalBytes: s.TotalBytes, Damaged: s.Damaged, Mended: s.Mended, Unread: s.Unread, Names: s.Names}
}
