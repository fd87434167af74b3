package kcache

import (
	"hash/maphash"
	"slices"
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
		retired   []retired
	}
}

// retired is what a shard held when an epoch was about to begin. It counts until
// the epoch has begun.
type retired struct {
	by        *retirement
	cur, prev map[uint64]struct{}
}

// retirement is one epoch about to begin.
type retirement struct{ _ byte } // not empty: each has an address of its own

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

// has tells whether a name is there.
func (k *nameSet) has(now time.Duration, dir fs.Ino, name string) bool {
	return k.find(now, dir, name, false)
}

// take forgets a name and tells whether it was there.
func (k *nameSet) take(now time.Duration, dir fs.Ino, name string) bool {
	return k.find(now, dir, name, true)
}

func (k *nameSet) find(now time.Duration, dir fs.Ino, name string, forget bool) (found bool) {
	h := k.hash(dir, name)
	s := &k.shards[h%nameShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	k.turn(h%nameShards, now)
	look := func(set map[uint64]struct{}) {
		if _, ok := set[h]; ok {
			found = true
			if forget {
				delete(set, h)
			}
		}
	}
	look(s.cur)
	look(s.prev)
	for _, r := range s.retired {
		look(r.cur)
		look(r.prev)
	}
	return found
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

// retire sets everything aside, to be forgotten by forget when the kernel has
// nothing of it any more. Until then it is found as before.
func (k *nameSet) retire() *retirement {
	by := &retirement{}
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		if len(s.cur)+len(s.prev) > 0 {
			s.retired = append(s.retired, retired{by, s.cur, s.prev})
			s.cur, s.prev = map[uint64]struct{}{}, nil
		}
		s.mu.Unlock()
	}
	return by
}

// forget ends what retire began.
func (k *nameSet) forget(by *retirement) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		s.retired = slices.DeleteFunc(s.retired, func(r retired) bool { return r.by == by })
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
