package cache

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Peers are the other nodes as content sees them. Package cluster implements
// it over the network; the other end answers with Disk.Fetch and Disk.Keep.
// Calls return soon after their context ends.
type Peers interface {
	// Self is this node.
	Self() fs.NodeID
	// Others are the live members except this one, the best to talk to first.
	Others() []fs.NodeID
	// Fetch asks node for a chunk of size bytes. The answer is not trusted.
	Fetch(ctx context.Context, node fs.NodeID, h fs.Hash, size uint32) ([]byte, error)
	// Push stores a chunk at node, with sync on its disk: ErrNoSpace if that is
	// full. b must not be kept after it returns.
	Push(ctx context.Context, node fs.NodeID, h fs.Hash, b []byte, sync bool) error
}

// suspectFor is how long a node that failed comes last. Membership finds out
// that a node is gone within seconds; until then this keeps every call but the
// first from waiting for it.
const suspectFor = 5 * time.Second

// fullFor is how long a node that had no room comes after those.
const fullFor = 30 * time.Second

// suspects remembers nodes that failed lately.
type suspects struct {
	span  time.Duration // how long; 0: suspectFor
	mu    sync.Mutex
	until map[fs.NodeID]time.Time
}

func (s *suspects) add(node fs.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = make(map[fs.NodeID]time.Time)
	}
	span := s.span
	if span == 0 {
		span = suspectFor
	}
	s.until[node] = time.Now().Add(span)
}

func (s *suspects) clear(node fs.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, node)
}

func (s *suspects) has(node fs.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.until[node]
	if ok && !time.Now().Before(until) {
		delete(s.until, node)
		ok = false
	}
	return ok
}

// last moves suspects to the end and changes nothing else about the order.
func (s *suspects) last(nodes []fs.NodeID) []fs.NodeID {
	var good, bad []fs.NodeID
	for _, n := range nodes {
		if s.has(n) {
			bad = append(bad, n)
		} else {
			good = append(good, n)
		}
	}
	return append(good, bad...)
}

// askOrder says whom to ask for a chunk: live holders, other live nodes (they
// may have read it), then holders that seem to be away, in case they are not.
func askOrder(self fs.NodeID, holders, live []fs.NodeID) (present, away []fs.NodeID) {
	for _, n := range live {
		if n != self && slices.Contains(holders, n) {
			present = append(present, n)
		}
	}
	for _, n := range live {
		if n != self && !slices.Contains(holders, n) {
			present = append(present, n)
		}
	}
	for _, n := range holders {
		if n != self && !slices.Contains(live, n) {
			away = append(away, n)
		}
	}
	return present, away
}
