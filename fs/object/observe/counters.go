package observe

import (
	"maps"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// Counters adds events up. The zero value is ready; pass its Observe to New.
type Counters struct {
	mu  sync.Mutex
	ops map[object.Op]*OpStats
}

// LatencyBuckets are the upper bounds of OpStats.Latency, ascending.
var LatencyBuckets = [...]time.Duration{
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
	100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// OpStats is what happened to one operation since the start. Everything only
// grows.
type OpStats struct {
	Calls  uint64                 // all, failed ones included
	Errors map[object.Kind]uint64 // failed ones by kind; NotExist and Exists are among them
	Bytes  uint64                 // of content sent or received
	Took   time.Duration          // sum over all calls
	// Latency counts calls that took at most LatencyBuckets[i] and longer than
	// the bucket before; the last element counts the rest.
	Latency [len(LatencyBuckets) + 1]uint64
}

// Observe adds one event.
func (c *Counters) Observe(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ops == nil {
		c.ops = make(map[object.Op]*OpStats)
	}
	s := c.ops[e.Op]
	if s == nil {
		s = &OpStats{Errors: make(map[object.Kind]uint64)}
		c.ops[e.Op] = s
	}
	s.Calls++
	s.Bytes += uint64(e.Bytes)
	s.Took += e.Took
	if e.Err != nil {
		s.Errors[object.KindOf(e.Err)]++
	}
	i := 0
	for i < len(LatencyBuckets) && e.Took > LatencyBuckets[i] {
		i++
	}
	s.Latency[i]++
}

// Snapshot copies the state; operations that never ran are absent.
func (c *Counters) Snapshot() map[object.Op]OpStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[object.Op]OpStats, len(c.ops))
	for op, s := range c.ops {
		copied := *s
		copied.Errors = maps.Clone(s.Errors)
		out[op] = copied
	}
	return out
}
