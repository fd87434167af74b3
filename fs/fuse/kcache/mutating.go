package kcache

import (
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

// mutations is the local calls under way that change names: what they hold
// locked in the kernel, and what may not be kept until they are decided.
type mutations struct {
	any atomic.Int32 // names: spares the others the lock

	mu    sync.Mutex
	locks map[fs.Ino]int
	names map[nameKey]int
}

func (m *mutations) lock(dir fs.Ino, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks == nil {
		m.locks = map[fs.Ino]int{}
	}
	if m.locks[dir] += n; m.locks[dir] == 0 {
		delete(m.locks, dir)
	}
}

func (m *mutations) name(key nameKey, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		m.names = map[nameKey]int{}
	}
	if m.names[key] += n; m.names[key] == 0 {
		delete(m.names, key)
	}
	m.any.Add(int32(n))
}

// locked tells whether a local call holds dir's lock.
func (m *mutations) locked(dir fs.Ino) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locks[dir] > 0
}

// of tells whether a local call changes name in dir.
func (m *mutations) of(dir fs.Ino, name string) bool {
	if m.any.Load() == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names[nameKey{dir, name}] > 0
}

// Locks tells that a local call has begun that holds ino's lock in the kernel
// until it is answered; Unlocks ends that.
func (c *Cache) Locks(ino fs.Ino) { c.mutating.lock(ino, 1) }

// Unlocks ends Locks.
func (c *Cache) Unlocks(ino fs.Ino) { c.mutating.lock(ino, -1) }

// Mutating tells that a local call has begun that changes name in dir, before it
// is proposed; Mutated, that it is decided.
//
// The kernel changes its own idea of the name only when the call is answered. By
// then another node may have shown the change, and no program here may see the
// name as it was after that. It cannot be dropped, because the call holds the
// directory's lock. So if the kernel may have it, all names are made to be asked
// for again, and nothing is kept of this one until the call is decided. For it to
// be rare, names in a directory that this was needed for are not kept for a while.
//
// A kernel without epochs goes on answering as before until the call is answered.
func (c *Cache) Mutating(dir fs.Ino, name string) {
	c.mutating.name(nameKey{dir, name}, 1)
	now := c.now()
	c.busy.mark(now+busyFor, dir)
	if c.epoch && c.known.has(now, dir, name) {
		c.hot.mark(now+ownHotFor, dir)
		c.count.own.Add(1)
		_ = c.incEpoch() // logged; nothing else could be done
	}
}

// Mutated ends Mutating.
func (c *Cache) Mutated(dir fs.Ino, name string) { c.mutating.name(nameKey{dir, name}, -1) }
