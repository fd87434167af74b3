package kcache

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// slowAnswer is how long an answer may take for it to be kept: what is left of
// the time that a reply may be late is for writing it.
const slowAnswer = 20 * time.Millisecond

// Mark is the moment at which an answer was begun.
type Mark struct {
	seq uint64
	at  time.Duration
}

// Begin is called before the state is read that an answer comes from.
func (c *Cache) Begin() Mark { return Mark{c.seq.Load(), c.now()} }

// since tells whether anything began to be taken away after m, or too much time
// has passed.
func (c *Cache) since(m Mark, now time.Duration) bool {
	return c.seq.Load() != m.seq || now-m.at > slowAnswer
}

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
	if keep <= 0 || c.ended.Load() || c.mutating.of(dir, name) || what != Directory && c.hot.is(now, dir) {
		return 0, false
	}
	if (what == Nothing || what == File && c.busy.is(now, dir)) && !c.asked.add(now, dir, name) {
		return 0, false
	}
	// Before the second look: whoever takes the name away from now on finds it.
	c.known.add(now, dir, name)
	c.hand(now + keep)
	if c.mutating.of(dir, name) {
		return 0, false
	}
	if c.since(m, now) {
		return 0, true
	}
	return keep, false
}

// Known tells that an answer begun at m brings attributes of ino, which Refer has
// counted. It returns how long the kernel may be told to keep them.
func (c *Cache) Known(m Mark, keep time.Duration) time.Duration {
	now := c.now()
	if keep <= 0 || c.ended.Load() {
		return 0
	}
	c.hand(now + keep)
	if c.since(m, now) {
		return 0
	}
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

// Refer counts a reply that names an inode, found in dir under name ("" if it is not
// known where). It is called before the reply can reach the kernel.
func (c *Cache) Refer(a fs.Attr, dir fs.Ino, name string) {
	c.counts.add(a)
	if a.IsDir() && !c.epoch && name != "" {
		c.dirs.set(a.Ino, dir, name)
	}
}

// Forget takes n counts back.
func (c *Cache) Forget(ino fs.Ino, n uint64) {
	if !c.counts.sub(ino, n) {
		return
	}
	c.forgetDoubt(ino)
	if !c.epoch {
		c.dirs.forget(ino)
	}
}

// AwaitPages waits until the kernel holds no page of ino from before the state
// that an answer comes from: with the answer's attributes it would take them for
// new. It waits as long as a READ under way takes, hardly ever at all. Only for
// answers to calls that hold no lock in the kernel.
func (c *Cache) AwaitPages(ino fs.Ino) { c.pages.await(ino) }

// Clean tells whether AwaitPages would not wait. If not, an answer must not let
// the kernel keep attributes.
func (c *Cache) Clean(ino fs.Ino) bool { return c.pages.clean(ino) }

// Reading tells that a READ or READDIR of ino has begun, before the state is read.
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
		c.dropAttr(ino, false)
	}
	if name != "" {
		c.awaitNames([]*job{c.submit(dir, name)})
	}
}
