package kcache

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	// nameShards spreads the known names over several locks.
	nameShards = 64
	// keptMax is longer than the kernel keeps anything (KernelMax of package
	// protocol), by more than it takes to write a reply.
	keptMax = 3 * time.Second
)

// nameSet is a set of names. It holds hashes, so it may have a name that was never
// added. A name is forgotten between one and two generations after it was added
// last, which bounds the set by what is asked for in that time.
type nameSet struct {
	generation time.Duration
	seed       maphash.Seed
	shards     [nameShards]struct {
		mu        sync.Mutex
		cur, prev map[uint64]struct{}
		turned    time.Duration // when cur was begun
	}
}

func newNameSet(generation time.Duration) *nameSet {
	return &nameSet{generation: generation, seed: maphash.MakeSeed()}
}

func (k *nameSet) hash(dir fs.Ino, name string) uint64 {
	const odd = 0x9e3779b97f4a7c15
	return maphash.String(k.seed, name) ^ uint64(dir)*odd
}

// add remembers a name and tells whether it was there already.
func (k *nameSet) add(now time.Duration, dir fs.Ino, name string) (had bool) {
	h := k.hash(dir, name)
	s := &k.shards[h%nameShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	k.turn(h%nameShards, now)
	if _, had = s.cur[h]; !had {
		_, had = s.prev[h]
		s.cur[h] = struct{}{}
	}
	return had
}

// take forgets a name and tells whether it was there.
func (k *nameSet) take(now time.Duration, dir fs.Ino, name string) bool {
	h := k.hash(dir, name)
	s := &k.shards[h%nameShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	k.turn(h%nameShards, now)
	_, cur := s.cur[h]
	_, prev := s.prev[h]
	delete(s.cur, h)
	delete(s.prev, h)
	return cur || prev
}

// turn begins a new generation if it is time. The caller holds the shard's lock.
func (k *nameSet) turn(shard uint64, now time.Duration) {
	s := &k.shards[shard]
	switch age := now - s.turned; {
	case s.cur != nil && age < k.generation:
		return
	case s.cur == nil || age >= 2*k.generation: // what is in cur was added in its first generation
		s.prev = nil
	default:
		s.prev = s.cur
	}
	s.cur, s.turned = map[uint64]struct{}{}, now
}

// clear forgets everything.
func (k *nameSet) clear() {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		clear(s.cur)
		s.prev = nil
		s.mu.Unlock()
	}
}

// len tells how many names are remembered.
func (k *nameSet) len() int {
	n := 0
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		n += len(s.cur) + len(s.prev)
		s.mu.Unlock()
	}
	return n
}
