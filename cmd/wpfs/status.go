package main

import (
	"fmt"
	"time"

	"github.com/wpfs/wpfs/cache"
)

// Status is what an agent says of itself: the same value is /status, the
// answer of the admin socket and wpfs status --output json.
type Status struct {
	Version   string        `json:"version"`
	Node      string        `json:"node"`
	PID       int           `json:"pid"`
	StartedAt time.Time     `json:"started_at"`
	UptimeS   float64       `json:"uptime_s"`
	Healthy   bool          `json:"healthy"`
	Reasons   []string      `json:"reasons"`  // why it is not; empty when it is
	Warnings  []string      `json:"warnings"` // what an operator should know although the node is fit to serve
	Draining  bool          `json:"draining"`
	Cluster   ClusterStatus `json:"cluster"`
	Mount     MountStatus   `json:"mount"`
	Content   ContentStatus `json:"content"`
	Scrub     ScrubStatus   `json:"scrub"`
	Archive   ArchiveStatus `json:"archive"`
	Garbage   GarbageStatus `json:"garbage"`
}

// ClusterStatus is this node's view of order and visibility.
type ClusterStatus struct {
	Name        string  `json:"name"`
	UUID        string  `json:"uuid"`
	Role        string  `json:"role"`   // leader, voter, learner or none
	Leader      string  `json:"leader"` // node id; "" while there is none
	Term        uint64  `json:"term"`
	Applied     uint64  `json:"applied_index"`
	Stable      uint64  `json:"stable_index"` // S: everything up to it may be shown
	LeaseValid  bool    `json:"lease_valid"`
	LeaseLeftMS float64 `json:"lease_left_ms"`
	Members     int     `json:"members"`
}

// MountStatus is the mount role; Path is "" without one.
type MountStatus struct {
	Path string `json:"path"`
	Live bool   `json:"live"`
}

// ContentStatus is the content on this node and what it owes the object store.
type ContentStatus struct {
	Object      string `json:"object"` // the store, without parameters
	CacheBytes  int64  `json:"cache_bytes"`
	CacheChunks int64  `json:"cache_chunks"`

	CacheMax      int64   `json:"cache_max_bytes"`  // 0: no bound but the disk
	CacheFree     int64   `json:"cache_free_bytes"` // of the disk
	CachePressure float64 `json:"cache_pressure"`   // part of the room that may not be dropped, 0 to 1; known once room was looked for
	Evicted       uint64  `json:"cache_evicted"`    // chunks dropped to make room since the start
	Corrupt       uint64  `json:"cache_corrupt"`    // chunk files that failed their hash since the start
	Replicas      int     `json:"replicas"`         // nodes that are to have new content
	Durability    string  `json:"durability"`       // quorum, or s3: close waits for the object store

	ObjectSuspended bool   `json:"object_suspended"`         // it failed again and again, and is only probed
	WritesSlowed    bool   `json:"writes_slowed"`            // the backlog or the cache is more than half full
	WritesRefused   string `json:"writes_refused,omitempty"` // why writes get ENOSPC here

	UploadChunks int64      `json:"upload_chunks"` // of the whole cluster: cited and not in the object store
	UploadBytes  int64      `json:"upload_bytes"`
	UploadAgeS   float64    `json:"upload_age_s"`           // of the oldest of these
	ObjectError  string     `json:"object_error,omitempty"` // while the object store fails: why
	AtRisk       RiskStatus `json:"at_risk"`
}

// RiskStatus is content that is not in the object store and on fewer live nodes
// than cluster.replicas.
type RiskStatus struct {
	Chunks int         `json:"chunks"`          // of the whole cluster
	Files  []RiskyFile `json:"files,omitempty"` // that have them, at most 1000
	Away   []string    `json:"away,omitempty"`  // nodes that have some of it and do not seem alive
}

// RiskyFile is a file that losing nodes may lose a part of.
type RiskyFile struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"` // at risk
}

// GarbageStatus is what this node has collected since it started. Only a leader
// collects.
type GarbageStatus struct {
	Condemned uint64        `json:"condemned"` // chunks
	Deleted   uint64        `json:"deleted"`   // objects
	Moved     uint64        `json:"moved"`     // chunks, out of packs that were mostly dead
	Failed    uint64        `json:"failed"`    // rounds that ended early
	Last      *cache.Report `json:"last,omitempty"`
}

// ScrubStatus tells how far the reading of the whole cache has come, or how the
// last one went.
type ScrubStatus struct {
	Running    bool       `json:"running"`
	Asked      bool       `json:"asked"` // by wpfs scrub
	StartedAt  *time.Time `json:"started_at,omitempty"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	Chunks     int64      `json:"chunks"` // read
	Bytes      int64      `json:"bytes"`
	TotalBytes int64      `json:"total_bytes"` // on the disk
	Damaged    int64      `json:"damaged"`
	Mended     int64      `json:"mended"`          // of the damaged: fetched again, or needed by nobody
	Unread     int64      `json:"unread"`          // files that could not be read; the next pass tries again
	Names      []string   `json:"names,omitempty"` // of damaged chunks, the first ones
}

// ArchiveStatus is the copy of the metadata in the bucket, from which wpfs restore
// makes a new cluster.
type ArchiveStatus struct {
	Epoch    uint64  `json:"epoch"`         // of the cluster in the bucket; 0 until known
	Shipping bool    `json:"shipping"`      // by this node: the leader
	Shipped  uint64  `json:"shipped_index"` // the bucket has the log up to here; of other nodes: a few seconds ago
	Snapshot uint64  `json:"snapshot_index,omitempty"`
	Oldest   uint64  `json:"oldest_index"`     // no state before it can be restored
	LagS     float64 `json:"lag_s"`            // what was visible so long ago is in the bucket; 0 unless this node ships
	Fenced   string  `json:"fenced,omitempty"` // ALARM: the bucket was taken over by another cluster
	Error    string  `json:"error,omitempty"`  // while shipping fails: why
}

// Member is one node of the cluster as this node knows it.
type Member struct {
	ID    string `json:"id"`
	Addr  string `json:"addr"`
	Role  string `json:"role"`  // leader, voter or learner
	Lease string `json:"lease"` // held, none, or unknown (only the leader knows)
	Lag   int64  `json:"lag_entries"`
	Alive bool   `json:"alive"` // by gossip: a hint, never a decision
	Local bool   `json:"local"`
}

// judge decides whether the node is fit to serve: a live mount (if it has that
// role), a valid lease, not draining. It fills Healthy and Reasons.
func (s *Status) judge() {
	s.Reasons = []string{}
	no := func(format string, a ...any) { s.Reasons = append(s.Reasons, fmt.Sprintf(format, a...)) }
	if s.Draining {
		no("draining: the agent is stopping")
	}
	if s.Mount.Path != "" && !s.Mount.Live {
		no("no mount: %s is not served", s.Mount.Path)
	}
	switch {
	case s.Mount.Path == "" && s.Cluster.Leader == "": // a witness: it takes no lease
		no("no leader is known; are more than half of the voters running?")
	case s.Mount.Path != "" && !s.Cluster.LeaseValid:
		if s.Cluster.Leader == "" {
			no("no lease: no leader is known; are more than half of the voters running?")
		} else {
			no("no lease: the leader %s has not granted one", s.Cluster.Leader)
		}
	}
	s.Healthy = len(s.Reasons) == 0
}

// When content that the object store does not have yet is worth an alarm (rule
// R35).
const (
	uploadAgeAlarm   = 60.0 // seconds
	uploadBytesAlarm = 1 << 30
)

// uploadAlarm tells whether the upload lags too far behind.
func (c ContentStatus) uploadAlarm() bool {
	return c.UploadAgeS > uploadAgeAlarm || c.UploadBytes > uploadBytesAlarm
}

// warn fills Warnings: what the cluster cannot promise as it is, and what needs a
// look. None of it makes the node unfit to serve.
func (s *Status) warn() {
	s.Warnings = []string{}
	say := func(format string, a ...any) { s.Warnings = append(s.Warnings, fmt.Sprintf(format, a...)) }
	c := s.Content
	switch s3 := c.Durability == durabilityS3; {
	case s.Cluster.Members == 1 && s3:
		say("one node: losing it stops everything")
	case s.Cluster.Members == 1:
		say("one node: what close() has stored is on one disk until the object store has it, and losing this node stops everything")
	case c.Replicas == 1 && !s3:
		say("cluster.replicas is 1: what close() has stored is on one disk until the object store has it")
	case s.Cluster.Members == 2:
		say("two nodes: losing either stops writes; a third one, even without a mount, would keep them going")
	}
	if c.uploadAlarm() {
		say("%s wait for the object store, the oldest for %s", humanBytes(c.UploadBytes), humanDuration(c.UploadAgeS))
	}
	if c.ObjectSuspended {
		say("the object store has failed again and again and is only probed; content stays on the nodes' disks")
	}
	if c.WritesRefused != "" {
		say("writes are refused: %s", c.WritesRefused)
	} else if c.WritesSlowed {
		say("writes are slowed down: more than half of the room for content that the object store lacks is taken")
	}
	if s.Scrub.Damaged > s.Scrub.Mended {
		say("%d damaged files of the cache could not be fetched again: wpfs scrub tries once more", s.Scrub.Damaged-s.Scrub.Mended)
	}
	if s.Scrub.Unread > 0 {
		say("%d files of the cache could not be read by the scrub; the log names them. Check the disk", s.Scrub.Unread)
	}
	if c.Corrupt > 0 {
		say("%d files of the cache were damaged and replaced since the start; the log names them. Check the disk", c.Corrupt)
	}
}
