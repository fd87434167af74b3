package meta

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

// Figures of the cache of records.
const (
	// cacheBytesDefault holds some 240,000 inodes and names: all 3,000 files of each
	// of forty sites. It is half of what pebble's own cache takes.
	cacheBytesDefault = 64 << 20

	cacheShardBits = 6 // 64 shards: few readers meet in one
	cacheShards    = 1 << cacheShardBits

	// What an element takes beside its strings: slot, place in the map (which is
	// two thirds full on average) and in the ring. TestCacheBytesAreHonest
	// compares them with the heap.
	slotCost   = 80 + 80 + 12
	inodeCost  = 176
	absentCost = 80
)

// recordCache remembers decoded inodes and where names lead, also to nothing. It
// is always equal to the store, because it changes in the same two places:
//
//   - A reader that misses reads the store and fills, all while it holds
//     State.mu for reading. No commit happens in between, so what it inserts
//     cannot be older than the store.
//   - A commit takes its edits over while it holds State.mu for writing.
//
// What it returns is shared and never changed. Each shard evicts by second
// chance (CLOCK): a hit takes no lock for writing.
type recordCache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

// A record is known by the key that readers of it touch: KeyAttr for an inode,
// KeyName for a directory entry.
type cacheShard struct {
	limit        int
	hits, misses atomic.Uint64

	mu    sync.RWMutex // not held while the store is read
	slots map[fs.Key]*slot
	ring  []*slot
	hand  int
	bytes int
}

type slot struct {
	key  fs.Key
	val  cached
	at   int         // in the ring
	cost int         // bytes
	used atomic.Bool // since the hand was here
}

// cached is what one record of the store says; one of the fields.
type cached struct {
	inode  *inode    // of an inode
	ino    fs.Ino    // of a name that is there: where it leads
	absent *fs.Error // of a name that is not: what a look-up returns, so that it allocates nothing
}

// CacheStats says what the cache of inodes and names has done and has.
type CacheStats struct {
	Hits, Misses uint64
	Entries      int
	Bytes        int // an estimate that includes what maps need
}

// newRecordCache returns nil, which caches nothing, if limit is negative.
func newRecordCache(limit int) *recordCache {
	if limit < 0 {
		return nil
	}
	c := &recordCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = limit / cacheShards
		c.shards[i].slots = map[fs.Key]*slot{}
	}
	return c
}

// shard spreads the names of one directory too, which may be most of what is hot.
func (c *recordCache) shard(k fs.Key) *cacheShard {
	h := uint64(k.Ino) * 0x9e3779b97f4a7c15 // 2^64 / golden ratio: near numbers far apart
	if k.Name != "" {
		h ^= maphash.String(c.seed, k.Name)
	}
	return &c.shards[h>>(64-cacheShardBits)]
}

func (c *recordCache) get(k fs.Key) (cached, bool) {
	if c == nil {
		return cached{}, false
	}
	s := c.shard(k)
	s.mu.RLock()
	x := s.slots[k]
	if x == nil {
		s.mu.RUnlock()
		s.misses.Add(1)
		return cached{}, false
	}
	r := x.val
	if !x.used.Load() { // reads of one slot do not write to its memory
		x.used.Store(true)
	}
	s.mu.RUnlock()
	s.hits.Add(1)
	return r, true
}

// has is get for those who do not read: no statistics, no second chance.
func (c *recordCache) has(k fs.Key) bool {
	s := c.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.slots[k] != nil
}

// fill inserts what the store says of k. The caller has held State.mu since
// before it read the store. Another reader may have been faster, with the same.
func (c *recordCache) fill(k fs.Key, r cached) {
	if c == nil {
		return
	}
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots[k] == nil {
		s.insert(k, r)
	}
}

// set replaces what is remembered of k, and remembers nothing that was not.
func (c *recordCache) set(k fs.Key, r cached) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.slots[k]
	if x == nil {
		return
	}
	s.bytes -= x.cost
	x.val, x.cost = r, cost(k, r)
	s.bytes += x.cost
	for s.bytes > s.limit {
		s.evict()
	}
}

func (c *recordCache) drop(k fs.Key) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.slots[k]; x != nil {
		s.remove(x)
	}
}

func (c *recordCache) stats() (sum CacheStats) {
	if c == nil {
		return sum
	}
	for i := range c.shards {
		s := &c.shards[i]
		sum.Hits += s.hits.Load()
		sum.Misses += s.misses.Load()
		s.mu.RLock()
		sum.Entries += len(s.ring)
		sum.Bytes += s.bytes
		s.mu.RUnlock()
	}
	return sum
}

func cost(k fs.Key, r cached) int {
	n := slotCost + len(k.Name)
	if r.inode != nil {
		n += inodeCost + len(r.inode.target)
	}
	if r.absent != nil {
		n += absentCost
	}
	return n
}

// insert adds a slot that has not been used yet: a program that walks a whole
// tree once does not push out what is read again and again.
func (s *cacheShard) insert(k fs.Key, r cached) {
	x := &slot{key: k, val: r, cost: cost(k, r)}
	if x.cost > s.limit {
		return
	}
	for s.bytes+x.cost > s.limit {
		s.evict()
	}
	x.at = len(s.ring)
	s.ring = append(s.ring, x)
	s.slots[k] = x
	s.bytes += x.cost
}

// evict removes the next slot that was not used since the hand was there last.
// The shard must not be empty.
func (s *cacheShard) evict() {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		x := s.ring[s.hand]
		if !x.used.Load() {
			s.remove(x)
			s.hand++ // over the newest slot, which has just moved here
			return
		}
		x.used.Store(false)
		s.hand++
	}
}

// remove puts the ring's last slot into the place of x.
func (s *cacheShard) remove(x *slot) {
	last := s.ring[len(s.ring)-1]
	s.ring[x.at], last.at = last, x.at
	s.ring[len(s.ring)-1] = nil
	s.ring = s.ring[:len(s.ring)-1]
	delete(s.slots, x.key)
	s.bytes -= x.cost
}
