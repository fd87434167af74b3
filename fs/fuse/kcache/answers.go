package kcache

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Mark is the moment at which an answer was begun.
type Mark uint64

// Begin is called before the state is read that an answer comes from.
func (c *Cache) Begin() Mark { return Mark(c.seq.Load()) }

// since tells whether anything began to be taken away after m.
func (c *Cache) since(m Mark) bool { return Mark(c.seq.Load()) != m }

// Meaning is what a name stands for.
type Meaning uint8

// The meanings that matter here.
const (
	Nothing Meaning = iota // the name is absent
	File                   // anything but a directory
	Directory
)

// MeaningOf tells what an inode is.
func MeaningOf(a fs.Attr) Meaning {
	if a.IsDir() {
		return Directory
	}
	return File
}

// Named tells that an answer begun at m says what name means in dir. It returns
// how long the kernel may be told to keep that: keep, or 0. retry says that only a
// change that came between is in the way: asking again may help.
//
// That a name is absent is kept from the second time on that it is asked for, and
// so is a file in a directory that changes here: many names are made, renamed or
// removed right after the first, and to change a name that is kept costs an epoch
// (see Mutating).
func (c *Cache) Named(m Mark, dir fs.Ino, name string, what Meaning, keep time.Duration) (d time.Duration, retry bool) {
	now := c.now()
	if keep <= 0 || c.mutating.of(dir, name) || what != Directory && c.hot.is(now, dir) {
		return 0, false
	}
	if (what == Nothing || what == File && c.busy.is(now, dir)) && !c.asked.add(now, dir, name) {
		return 0, false
	}
	// Before the second look: whoever takes the name away from now on finds it.
	c.known.add(now, dir, name)
	if c.mutating.of(dir, name) {
		return 0, false
	}
	if c.since(m) {
		return 0, true
	}
	c.hand(now + keep)
	return keep, false
}

// Known tells that an answer begun at m brings attributes of ino, which Refer has
// counted. It returns how long the kernel may be told to keep them.
func (c *Cache) Known(m Mark, keep time.Duration) time.Duration {
	if keep <= 0 || c.since(m) {
		return 0
	}
	c.hand(c.now() + keep)
	return keep
}

// hand notes that something may be kept until t, give or take handGrain.
func (c *Cache) hand(t time.Duration) {
	const handGrain = int64(20 * time.Millisecond)
	for {
		old := c.handed.Load()
		if old >= int64(t) || c.handed.CompareAndSwap(old, int64(t)+handGrain) {
			return
		}
	}
}

// Refer counts a reply that names ino, found in dir under name ("" if it is not
// known where). It is called before the reply can reach the kernel.
func (c *Cache) Refer(ino fs.Ino, isDir bool, dir fs.Ino, name string) {
	c.counts.add(ino, isDir)
	if isDir && !c.epoch && name != "" {
		c.dirs.set(ino, dir, name)
	}
}

// Forget takes n counts back.
func (c *Cache) Forget(ino fs.Ino, n uint64) {
	if c.counts.sub(ino, n) && !c.epoch {
		c.dirs.forget(ino)
	}
}

// AwaitPages waits until the kernel holds no page of ino from before the state
// that an answer comes from: with the answer's attributes it would take them for
// new. It waits as long as a READ under way takes, hardly ever at all.
func (c *Cache) AwaitPages(ino fs.Ino) { c.pages.await(ino) }

// Reading tells that a READ of ino has begun, before the state is read.
func (c *Cache) Reading(ino fs.Ino) { c.pages.read(ino) }

// Doubt tells that a local change of a name is about to be answered with an
// unknown outcome: the kernel will not have updated it. It is dropped as soon as
// that is possible; the caller does not wait, because its answer comes first.
func (c *Cache) Doubt(dir fs.Ino, name string) {
	c.hot.mark(c.now()+hotFor, dir)
	c.submit(dir, name)
}

// Late tells that a reply reached the kernel later than what it says may be kept
// was counted from (rule R5): the kernel drops what the reply said. name is ""
// and ino 0 for what it did not speak of.
func (c *Cache) Late(dir fs.Ino, name string, ino fs.Ino) {
	c.count.late.Add(1)
	if ino != 0 {
		c.dropInode(ino, -1)
	}
	if name != "" {
		c.awaitNames([]*job{c.submit(dir, name)})
	}
}
