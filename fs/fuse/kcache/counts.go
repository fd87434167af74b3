package kcache

import (
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// countShards spreads the lookup counts over several locks.
const countShards = 64

// counts holds how many references the kernel has to each inode: one for each
// reply that named it, until FORGET takes them back. The kernel bounds the size
// of the table by the inodes it keeps.
type counts struct {
	shards [countShards]struct {
		mu sync.Mutex
		n  map[fs.Ino]refs
	}
}

// refs is the count of one inode.
type refs struct {
	n          uint64
	dir        bool
	generation uint64
}

// add counts one reply that names an inode.
func (c *counts) add(a fs.Attr) {
	ino := a.Ino
	s := &c.shards[ino%countShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[fs.Ino]refs{}
	}
	s.n[ino] = refs{s.n[ino].n + 1, a.IsDir(), a.Generation}
}

// sub takes n references back and tells whether none is left. A count that is
// not known is no fault: after a reply that the kernel never got, counts are
// estimates.
func (c *counts) sub(ino fs.Ino, n uint64) (gone bool) {
	s := &c.shards[ino%countShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.n[ino]; have.n > n {
		have.n -= n
		s.n[ino] = have
		return false
	}
	delete(s.n, ino)
	return true
}

// get tells what the kernel may know of ino.
func (c *counts) get(ino fs.Ino) refs {
	s := &c.shards[ino%countShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.n[ino]
	if ino == fs.RootIno { // known without having been looked up
		return refs{r.n + 1, true, 0}
	}
	return r
}

// all lists the inodes that the kernel may know.
func (c *counts) all() []fs.Ino {
	list := []fs.Ino{fs.RootIno}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for ino := range s.n {
			if ino != fs.RootIno {
				list = append(list, ino)
			}
		}
		s.mu.Unlock()
	}
	return list
}

// len tells how many inodes the kernel may know.
func (c *counts) len() int {
	sum := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		sum += len(s.n)
		s.mu.Unlock()
	}
	return sum
}
