package cache

import (
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// knownMax bounds one generation of a knownSet; two of them take about 10 MiB.
const knownMax = 64 << 10

// known is what this process has learned about a chunk's file.
type known struct {
	ino    uint64 // the file that was verified; another one of the name was not
	synced bool   // its bytes and its name are on the disk
}

// knownSet remembers which files this process has verified: in bounded memory,
// so it may forget, and a forgotten file is verified once more. It keeps two
// generations and drops the older one when the younger is full, which costs
// nothing per entry and forgets what was not asked for lately.
type knownSet struct {
	mu         sync.Mutex
	young, old map[fs.Hash]known
	max        int
}

func newKnownSet(limit int) *knownSet {
	return &knownSet{young: make(map[fs.Hash]known), max: limit}
}

func (s *knownSet) get(h fs.Hash) (known, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.young[h]; ok {
		return k, true
	}
	k, ok := s.old[h]
	if ok {
		s.put(h, k)
	}
	return k, ok
}

// verified records that file ino of chunk h has the right bytes.
func (s *knownSet) verified(h fs.Hash, ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.young[h]; ok && k.ino == ino {
		return
	}
	if k, ok := s.old[h]; ok && k.ino == ino {
		s.put(h, k)
		return
	}
	s.put(h, known{ino: ino})
}

// synced records that file ino is durable, if it is still the one known.
func (s *knownSet) synced(h fs.Hash, ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(h, known{ino: ino, synced: true})
}

func (s *knownSet) forget(h fs.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.young, h)
	delete(s.old, h)
}

// put is called with mu held.
func (s *knownSet) put(h fs.Hash, k known) {
	if len(s.young) >= s.max {
		s.old, s.young = s.young, make(map[fs.Hash]known)
	}
	s.young[h] = k
}
