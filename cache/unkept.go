package cache

import (
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// unkeptMax is how many chunks stay in memory because the disk had no room for
// them: a reader asks for one in many pieces, and should not fetch it for each.
const unkeptMax = 4

// unkept are the last of these.
type unkept struct {
	mu   sync.Mutex
	ring [unkeptMax]struct {
		hash fs.Hash
		b    []byte
	}
	next int
}

// add takes b over; it must not be changed any more.
func (u *unkept) add(h fs.Hash, b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.ring {
		if u.ring[i].hash == h {
			return
		}
	}
	u.ring[u.next].hash, u.ring[u.next].b = h, b
	u.next = (u.next + 1) % unkeptMax
}

// get returns the content of a chunk, which must not be changed, or nil.
func (u *unkept) get(h fs.Hash) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.ring {
		if u.ring[i].hash == h {
			return u.ring[i].b
		}
	}
	return nil
}
