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
	// generation is how long a name is remembered at least: longer than the
	// kernel keeps any (KernelMax of package protocol), by more than it takes to
	// write a reply.
	generation = 3 * time.Second
)

// knownNames is the set of names that the kernel may answer about by itself. It
// holds hashes, so it may take a name for known that is not; that costs one
// notification. A name is forgotten between one and two generations after it was
// added last, which bounds the set by what is asked for in that time.
type knownNames struct {
	seed   maphash.Seed
	shards [nameShards]struct {
		mu        sync.Mutex
		cur, prev map[uint64]struct{}
		turned    time.Duration // when cur was begun
	}
}

func newKnownNames() *knownNames { return &knownNames{seed: maphash.MakeSeed()} }

func (k *knownNames) hash(dir fs.Ino, name string) uint64 {
	const odd = 0x9e3779b97f4a7c15
	return maphash.String(k.seed, name) ^ uint64(dir)*odd
}

// add remembers a name. It is called before the answer that may be kept.
func (k *knownNames) add(now time.Duration, dir fs.Ino, name string) {
	h := k.hash(dir, name)
	s := &k.shards[h%nameShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	k.turn(h%nameShards, now)
	s.cur[h] = struct{}{}
}

// take forgets a name and tells whether it was known.
func (k *knownNames) take(now time.Duration, dir fs.Ino, name string) bool {
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
func (k *knownNames) turn(shard uint64, now time.Duration) {
	s := &k.shards[shard]
	switch age := now - s.turned; {
	case s.cur != nil && age < generation:
		return
	case s.cur == nil || age >= 2*generation: // what is in cur was added in its first generation
		s.prev = nil
	default:
		s.prev = s.cur
	}
	s.cur, s.turned = map[uint64]struct{}{}, now
}

// clear forgets everything.
func (k *knownNames) clear() {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		clear(s.cur)
		s.prev = nil
		s.mu.Unlock()
	}
}

// len tells how many names are remembered.
func (k *knownNames) len() int {
	n := 0
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		n += len(s.cur) + len(s.prev)
		s.mu.Unlock()
	}
	return n
}
