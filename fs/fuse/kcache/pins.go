package kcache

import (
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// pinMax is how long a removed directory counts as used on a kernel that cannot
// be asked to forget what nobody uses.
const pinMax = time.Minute

// pins is the removed directories that were asked about.
type pins struct {
	mu    sync.Mutex
	since map[fs.Ino]time.Duration
}

// Pinned tells whether a directory without a name may still be in use here: as
// somebody's working directory, or open (the kernel says nothing of opendir). It
// asks the kernel to forget it if nobody does, so that the next answer is right.
func (c *Cache) Pinned(ino fs.Ino) bool {
	r := c.counts.get(ino)
	if r.n == 0 || !r.dir {
		c.pins.forget(ino)
		return false
	}
	if c.notify.prune(ino) == nil {
		return true
	}
	return c.pins.age(ino, c.now()) < pinMax
}

func (p *pins) age(ino fs.Ino, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since == nil {
		p.since = map[fs.Ino]time.Duration{}
	}
	if _, ok := p.since[ino]; !ok {
		p.since[ino] = now
	}
	return now - p.since[ino]
}

// sweep forgets directories that nobody asks about any more.
func (p *pins) sweep(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ino, since := range p.since {
		if now-since > 10*pinMax {
			delete(p.since, ino)
		}
	}
}

func (p *pins) forget(ino fs.Ino) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.since, ino)
}
