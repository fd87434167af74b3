package kcache

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// hotFor is how long a directory hands out nothing after a conflict.
const hotFor = 5 * time.Second

// hotDirs is the directories in which dropping a name had to wait for a lock.
type hotDirs struct {
	any atomic.Bool // there may be some: spares the others the lock

	mu    sync.Mutex
	until map[fs.Ino]time.Duration
}

func (h *hotDirs) mark(now time.Duration, dir fs.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = map[fs.Ino]time.Duration{}
	}
	h.until[dir] = now + hotFor
	h.any.Store(true)
}

func (h *hotDirs) is(now time.Duration, dir fs.Ino) bool {
	if !h.any.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return now < h.until[dir]
}

// sweep forgets what has cooled down and tells how many are hot.
func (h *hotDirs) sweep(now time.Duration) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for dir, until := range h.until {
		if now >= until {
			delete(h.until, dir)
		}
	}
	h.any.Store(len(h.until) > 0)
	return len(h.until)
}
