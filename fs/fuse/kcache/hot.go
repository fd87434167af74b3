package kcache

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	// hotFor is how long no file of a directory is kept after another node's change
	// had to wait for the directory's lock; ownHotFor after a program here changed
	// one that the kernel kept.
	hotFor    = 5 * time.Second
	ownHotFor = time.Second
	// busyFor is how long a directory in which a program here has changed a name
	// counts as one in which it will change more.
	busyFor = time.Minute
)

// dirSet is a set of directories, each for a while.
type dirSet struct {
	any atomic.Bool // there may be some: spares the others the lock

	mu    sync.Mutex
	until map[fs.Ino]time.Duration
}

func (h *dirSet) mark(until time.Duration, dir fs.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = map[fs.Ino]time.Duration{}
	}
	h.until[dir] = max(h.until[dir], until)
	h.any.Store(true)
}

func (h *dirSet) is(now time.Duration, dir fs.Ino) bool {
	if !h.any.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return now < h.until[dir]
}

// sweep forgets what has run out and tells how many are left.
func (h *dirSet) sweep(now time.Duration) int {
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
