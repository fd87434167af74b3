package protocol

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// LeaderOptions tell a new Leader what it has won.
type LeaderOptions struct {
	Self    ID
	Term    uint64
	Conf    fs.Index // index of the latest configuration in the log, committed or not
	Servers []Server // that configuration
}

// Leader is the leading side of one won term: evidence, grants, holders and S.
// A new term needs a new Leader. A Leader that lost its term without knowing is
// harmless.
type Leader struct{}

// Holder is one lease that may still be in use.
type Holder struct {
	ID      ID
	Joining bool // no lease yet; S is held for it
	Revoked bool
	Ack     fs.Index
	Left    time.Duration // until it is struck
}

// NewLeader returns the leading side of a term that was won at or before now.
func NewLeader(cfg Config, opt LeaderOptions, now Instant) (*Leader, []Message) { panic("unwritten") }

// Barrier tells that the first entry of this term was committed at index, and
// so everything before it. Until then nothing is granted (R9).
func (l *Leader) Barrier(now Instant, index fs.Index) []Message { panic("unwritten") }

// Committed tells that entries up to index are committed; bytes is the size of
// those that are new since the last call (R15).
func (l *Leader) Committed(now Instant, index fs.Index, bytes int) []Message { panic("unwritten") }

// SetServers tells the latest configuration in the log, committed or not, that
// was appended at index.
func (l *Leader) SetServers(now Instant, index fs.Index, servers []Server) []Message {
	panic("unwritten")
}

// Receive handles a message for which ForLeader is true.
func (l *Leader) Receive(now Instant, msg Message) []Message { panic("unwritten") }

// Tick strikes whose lease has run out and sends what is due.
func (l *Leader) Tick(now Instant) []Message { panic("unwritten") }

// Next tells how long after now Tick is wanted; 0 is at once.
func (l *Leader) Next(now Instant) time.Duration { panic("unwritten") }

// Stable is S: every lease holder has applied the entries up to it, and writers
// up to it may be answered. It may have grown after any call that takes a time.
func (l *Leader) Stable() fs.Index { panic("unwritten") }

// Wait is how long writers still have to wait for leases of former leaders
// (R10); 0 when that is over.
func (l *Leader) Wait(now Instant) time.Duration { panic("unwritten") }

// Holders lists the leases that may still be in use, ordered by node and session.
func (l *Leader) Holders(now Instant) []Holder { panic("unwritten") }

// Evict ends a node's lease for good, before it is removed from the
// configuration (R14): it is told to release and granted nothing more.
func (l *Leader) Evict(now Instant, node fs.NodeID) []Message { panic("unwritten") }

// Drained reports whether no lease of node can be in use, so that an evicted
// node may be removed from the configuration (R14).
func (l *Leader) Drained(now Instant, node fs.NodeID) bool { panic("unwritten") }

// BadClocks lists the nodes that are refused leases because their clock's rate
// differs too much from this node's (R3), sorted. Raise an alarm.
func (l *Leader) BadClocks() []fs.NodeID { panic("unwritten") }
