package fuse

import "sync"

// countShards spreads the lookup counts over several locks.
const countShards = 16

// counts holds how many references the kernel has to each inode: one for each
// reply that named it, until FORGET takes them back. The kernel bounds the size
// of the table by the inodes it keeps.
type counts struct {
	shards [countShards]struct {
		mu sync.Mutex
		n  map[uint64]uint64
	}
}

func (c *counts) add(node uint64) {
	s := &c.shards[node%countShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[uint64]uint64{}
	}
	s.n[node]++
}

// sub takes n references back. A count that is not known is no fault: after a
// reply that the kernel never got, or a takeover, counts are estimates.
func (c *counts) sub(node, n uint64) {
	s := &c.shards[node%countShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.n[node]; have > n {
		s.n[node] = have - n
	} else {
		delete(s.n, node)
	}
}

// get tells how many references the kernel may have to node.
func (c *counts) get(node uint64) uint64 {
	s := &c.shards[node%countShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[node]
}

// inodes tells how many inodes the kernel may know.
func (c *counts) inodes() int {
	sum := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		sum += len(s.n)
		s.mu.Unlock()
	}
	return sum
}
