package main

import (
	"fmt"
	"time"
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
	Reasons   []string      `json:"reasons"` // why it is not; empty when it is
	Draining  bool          `json:"draining"`
	Cluster   ClusterStatus `json:"cluster"`
	Mount     MountStatus   `json:"mount"`
	Content   ContentStatus `json:"content"`
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
	Object       string  `json:"object"` // the store, without parameters
	CacheBytes   int64   `json:"cache_bytes"`
	CacheChunks  int64   `json:"cache_chunks"`
	UploadChunks int64   `json:"upload_chunks"` // of the whole cluster: cited and not in the object store
	UploadBytes  int64   `json:"upload_bytes"`
	UploadAgeS   float64 `json:"upload_age_s"`           // of the oldest of these
	ObjectError  string  `json:"object_error,omitempty"` // while the object store fails: why
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
