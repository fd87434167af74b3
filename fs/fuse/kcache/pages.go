package kcache

import (
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

// dropWorkers is how many inodes' pages are dropped at a time when all are.
const dropWorkers = 16

// pageJobs is the files and directories whose pages are not what they should be.
type pageJobs struct {
	any atomic.Int32 // how many there are: spares the others the lock

	mu      sync.Mutex
	of      map[fs.Ino]*pages
	closing []fs.Ino // since the last Invalidate
}

// pages of one file.
type pages struct {
	// closing: the state is about to change. A READ or READDIR that begins now is
	// answered from the old state, and may be after the pages were dropped.
	closing bool
	// tainted: there was such a READ.
	tainted bool
	jobs    int           // droppings under way
	gone    chan struct{} // closed when there is none; nil without jobs
}

// get returns the entry of ino. The caller holds mu, and calls settle when it
// has changed it.
func (p *pageJobs) get(ino fs.Ino) *pages {
	x := p.of[ino]
	if x == nil {
		if p.of == nil {
			p.of = map[fs.Ino]*pages{}
		}
		x = &pages{}
		p.of[ino] = x
		p.any.Add(1)
	}
	return x
}

// settle forgets what needs no more care. The caller holds mu.
func (p *pageJobs) settle(ino fs.Ino, x *pages) {
	if x.jobs == 0 && !x.closing {
		delete(p.of, ino)
		p.any.Add(-1)
	}
}

// start runs drop on a goroutine of its own, which ends when the kernel lets go
// of the pages. The caller holds mu.
func (p *pageJobs) start(ino fs.Ino, x *pages, drop func(fs.Ino)) *job {
	j := &job{dir: ino, done: make(chan struct{})}
	p.begin(x)
	go func() {
		drop(ino)
		close(j.done)
		p.end(ino)
	}()
	return j
}

func (p *pageJobs) begin(x *pages) {
	if x.jobs == 0 {
		x.gone = make(chan struct{})
	}
	x.jobs++
}

func (p *pageJobs) end(ino fs.Ino) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.of[ino]
	if x.jobs--; x.jobs == 0 {
		close(x.gone)
		x.gone = nil
	}
	p.settle(ino, x)
}

// close marks ino as about to change, and drops its pages if known says that the
// kernel may have some.
func (p *pageJobs) close(ino fs.Ino, known bool, drop func(fs.Ino)) (j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.get(ino)
	x.closing = true
	p.closing = append(p.closing, ino)
	if known {
		j = p.start(ino, x, drop)
	}
	return j
}

// open ends what close began: the state has changed. What was read from the old
// one in between is dropped again.
func (p *pageJobs) open(drop func(fs.Ino)) {
	if p.any.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ino := range p.closing {
		x := p.of[ino]
		if x == nil {
			continue // named twice
		}
		x.closing = false
		if x.tainted {
			x.tainted = false
			p.start(ino, x, drop)
		}
		p.settle(ino, x)
	}
	p.closing = p.closing[:0]
}

// startAll drops the pages of all inos, a few at a time, in the background.
func (p *pageJobs) startAll(inos []fs.Ino, drop func(fs.Ino)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ino := range inos {
		p.begin(p.get(ino))
	}
	var next atomic.Int64
	for range min(dropWorkers, len(inos)) {
		go func() { // ends with the list
			for i := next.Add(1) - 1; i < int64(len(inos)); i = next.Add(1) - 1 {
				drop(inos[i])
				p.end(inos[i])
			}
		}()
	}
}

// read notes that a READ or READDIR of ino begins.
func (p *pageJobs) read(ino fs.Ino) {
	if p.any.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.of[ino]; x != nil && x.closing {
		x.tainted = true
	}
}

// await waits until the droppings of ino that are under way now have ended.
func (p *pageJobs) await(ino fs.Ino) {
	if p.any.Load() == 0 {
		return
	}
	p.mu.Lock()
	var gone <-chan struct{}
	if x := p.of[ino]; x != nil {
		gone = x.gone
	}
	p.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// clean tells whether nothing of ino is being dropped.
func (p *pageJobs) clean(ino fs.Ino) bool {
	if p.any.Load() == 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.of[ino]
	return x == nil || x.jobs == 0
}

// drop begins to drop what the kernel has of ino.
func (p *pageJobs) drop(ino fs.Ino, drop func(fs.Ino)) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.start(ino, p.get(ino), drop)
}

// dropPages begins to drop a file's pages or a directory's listing. For a listing
// it would nearly be enough that it has the mtime from before the change; but the
// kernel ignores the answer that brings the new one when the next change comes in
// that moment (attr_version), and goes by the old.
func (c *Cache) dropPages(ino fs.Ino) *job {
	return c.pages.close(ino, c.counts.get(ino).n > 0, c.repeatInode)
}

// Lost tells that programs here have written something to ino that will never be
// published: the kernel's pages have it, and nothing else will take it away.
func (c *Cache) Lost(ino fs.Ino) { c.pages.drop(ino, c.repeatInode) }
