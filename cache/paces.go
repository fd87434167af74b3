package cache

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// paceUnknown is how long a push to a node that nothing is known of usually
// takes, for each paceUnit bytes.
const (
	paceUnknown = 2 * time.Millisecond
	paceUnit    = 64 << 10
	paceSlow    = 4 // times as slow as the quickest is slow
)

// paces is how quickly nodes took copies lately.
type paces struct {
	mu   sync.Mutex
	each map[fs.NodeID]time.Duration // smoothed, for paceUnit bytes
}

func units(bytes int) time.Duration { return time.Duration(1 + bytes/paceUnit) }

// note learns from a push, as TCP learns a round-trip time (RFC 6298).
func (p *paces) note(node fs.NodeID, bytes int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.each == nil {
		p.each = make(map[fs.NodeID]time.Duration)
	}
	each := took / units(bytes)
	if old, ok := p.each[node]; ok {
		each = old + (each-old)/8
	}
	p.each[node] = each
}

// usual is how long a push of so many bytes to node should take.
func (p *paces) usual(node fs.NodeID, bytes int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	each, ok := p.each[node]
	if !ok {
		each = paceUnknown
	}
	return each * units(bytes)
}

// quickFirst moves nodes to the end that are known to be much slower than the
// quickest.
func (p *paces) quickFirst(nodes []fs.NodeID) []fs.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	best := time.Duration(math.MaxInt64)
	for _, n := range nodes {
		if each, ok := p.each[n]; ok {
			best = min(best, each)
		}
	}
	slow := func(n fs.NodeID) bool { return p.each[n]/paceSlow > best }
	out := slices.DeleteFunc(slices.Clone(nodes), slow)
	return append(out, slices.DeleteFunc(slices.Clone(nodes), func(n fs.NodeID) bool { return !slow(n) })...)
}
