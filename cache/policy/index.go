package policy

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	// smallShare is the part of the droppable bytes that newcomers may fill:
	// one in ten, as in the paper.
	smallShare = 10
	// mainUses is how often a newcomer must be used to stay.
	mainUses = 2
	// apart is how many seconds make two uses of one chunk more than one.
	apart = 10
	// ghostsMax bounds one generation of the names of dropped chunks that are
	// remembered; two of them take about 5 MiB.
	ghostsMax = 128 << 10
)

// Options for New.
type Options struct {
	// Now is a clock in seconds; default: seconds since the call of New.
	Now func() uint32
}

// Index is the names, sizes and order of the chunks of one cache. All methods
// may be called at the same time; none blocks for more than microseconds, but
// for Age, Save and Doubtful, which look at every chunk.
type Index struct {
	now func() uint32

	mu         sync.Mutex
	slab       slab
	ends       [lists]ends
	ghosts, og map[uint64]struct{} // young and old generation
}

// ends is one list.
type ends struct {
	hot, cold uint32
	chunks    int
	bytes     int64
}

// New makes an empty Index.
func New(o Options) *Index {
	if o.Now == nil {
		start := time.Now()
		o.Now = func() uint32 { return uint32(time.Since(start) / time.Second) }
	}
	x := &Index{now: o.Now, slab: newSlab(), ghosts: map[uint64]struct{}{}}
	for l := range x.ends {
		x.ends[l] = ends{hot: none, cold: none}
	}
	return x
}

// Stats are the sums over all chunks.
type Stats struct {
	Chunks       int
	Bytes        int64
	PinnedChunks int // of these, what Pin was called for
	PinnedBytes  int64
}

// Stats adds up.
func (x *Index) Stats() Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Stats{Chunks: x.slab.count, PinnedChunks: x.ends[pinned].chunks, PinnedBytes: x.ends[pinned].bytes}
	for _, e := range x.ends {
		s.Bytes += e.bytes
	}
	return s
}

// Add tells of a chunk that was just stored, and is no use of it. A fresh one
// was put because somebody is about to rely on it: see Fresh.
func (x *Index) Add(h fs.Hash, size int64, fresh bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.slab.find(h); e != nil {
		x.renew(e, fresh)
		return
	}
	l := small
	if x.isGhost(h) {
		l = main
	}
	x.insert(h, size, fresh, l, true)
}

// AddCold is Add for a chunk whose history is not known: it goes to the cold end
// of the main queue. It reports whether the chunk is new here.
func (x *Index) AddCold(h fs.Hash, size int64, fresh bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.slab.find(h) != nil {
		return false
	}
	x.insert(h, size, fresh, main, false)
	return true
}

func (x *Index) insert(h fs.Hash, size int64, fresh bool, l list, hot bool) {
	i := x.slab.make(h)
	e := x.slab.at(i)
	e.bits = uint32(size) & sizeMask
	e.used = x.now()
	if fresh {
		e.setFresh(freshMax)
	}
	if fresh && hot {
		e.bits |= uncitedBit
	}
	if hot {
		x.pushHot(l, i)
	} else {
		x.pushCold(l, i)
	}
}

func (x *Index) renew(e *entry, fresh bool) {
	e.bits &^= victimBit | doubtBit
	if fresh {
		e.setFresh(freshMax)
		e.bits |= uncitedBit
	}
}

// Use tells that the chunk was read.
func (x *Index) Use(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.slab.find(h)
	if e == nil {
		return
	}
	e.bits &^= victimBit
	if now := x.now(); now-e.used >= apart {
		e.used = now
		e.setUses(min(e.uses()+1, usesMax))
	}
}

// Renew makes the chunk fresh, if it is here.
func (x *Index) Renew(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.slab.find(h); e != nil {
		x.renew(e, true)
	}
}

// Fresh tells whether the chunk was put lately: less than one or two calls of
// Age ago. Whoever put it may not have told the metadata yet; uncited says that
// nobody has since.
func (x *Index) Fresh(h fs.Hash) (fresh, uncited bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.slab.find(h)
	if e == nil {
		return false, false
	}
	return e.fresh() > 0, e.bits&uncitedBit != 0
}

// Cited tells that the metadata cites the chunk now: from here on it knows what
// the copy is for.
func (x *Index) Cited(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.slab.find(h); e != nil {
		e.bits &^= uncitedBit
	}
}

// Size is the chunk's size, if it is here.
func (x *Index) Size(h fs.Hash) (int64, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.slab.find(h)
	if e == nil {
		return 0, false
	}
	return e.size(), true
}

// Age makes all chunks older by one.
func (x *Index) Age() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range x.slab.blocks {
		for i := range b {
			if e := &b[i]; e.list() != free && e.fresh() > 0 {
				e.setFresh(e.fresh() - 1)
				if e.fresh() == 0 {
					e.bits &^= uncitedBit
				}
			}
		}
	}
}

// Remove tells that the chunk is gone.
func (x *Index) Remove(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(h)
}

func (x *Index) remove(h fs.Hash) {
	if _, i := x.slab.slot(&h); i != none {
		x.unlink(i)
		x.slab.drop(h)
	}
}

// Victim proposes the chunk that goes next: ok is false if there is none. It is
// out of the way of the next call, so whoever does not Drop it calls Pin or
// Spare.
func (x *Index) Victim() (h fs.Hash, size int64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		s, m := &x.ends[small], &x.ends[main]
		if s.chunks == 0 && m.chunks == 0 {
			return h, 0, false
		}
		l := main
		if m.chunks == 0 || s.chunks > 0 && s.bytes > (s.bytes+m.bytes)/smallShare {
			l = small
		}
		i := x.ends[l].cold
		e := x.slab.at(i)
		x.unlink(i)
		switch {
		case l == small && e.uses() >= mainUses:
			e.setUses(0)
			x.pushHot(main, i)
		case l == main && e.uses() > 0:
			e.setUses(e.uses() - 1)
			x.pushHot(main, i)
		default:
			e.bits |= victimBit
			x.pushHot(l, i)
			return e.hash, e.size(), true
		}
	}
}

// Doom makes a chunk the next victim, wherever it is, and reports whether it is
// here. As for Victim, whoever does not Drop it calls Pin or Spare.
func (x *Index) Doom(h fs.Hash) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, i := x.slab.slot(&h)
	if i == none {
		return false
	}
	e := x.slab.at(i)
	if e.list() == pinned {
		x.unlink(i)
		x.pushCold(small, i)
	}
	e.bits |= victimBit
	return true
}

// Drop removes the chunk if it is a victim still: nobody has used or put it since.
func (x *Index) Drop(h fs.Hash) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.slab.find(h)
	if e == nil || e.bits&victimBit == 0 {
		return false
	}
	x.haunt(h)
	x.remove(h)
	return true
}

// Spare ends the chunk's part as a victim. It stays where Victim has put it.
func (x *Index) Spare(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.slab.find(h); e != nil {
		e.bits &^= victimBit
	}
}

// Pin takes the chunk out of the order until Release.
func (x *Index) Pin(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, i := x.slab.slot(&h); i != none {
		x.unlink(i)
		x.slab.at(i).bits &^= victimBit
		x.pushHot(pinned, i)
	}
}

// Chill puts a chunk of the main queue that was not used since AddCold to its
// cold end.
func (x *Index) Chill(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, i := x.slab.slot(&h); i != none {
		if e := x.slab.at(i); e.list() == main && e.uses() == 0 && e.bits&victimBit == 0 {
			x.unlink(i)
			x.pushCold(main, i)
		}
	}
}

// Release puts a pinned chunk where the next victims come from.
func (x *Index) Release(h fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, i := x.slab.slot(&h); i != none && x.slab.at(i).list() == pinned {
		x.unlink(i)
		x.pushCold(small, i)
	}
}

// NextPinned goes round the pinned chunks, from the one pinned first.
func (x *Index) NextPinned() (h fs.Hash, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.ends[pinned].cold
	if i == none {
		return h, false
	}
	x.unlink(i)
	x.pushHot(pinned, i)
	return x.slab.at(i).hash, true
}

func (x *Index) pushHot(l list, i uint32) {
	e, q := x.slab.at(i), &x.ends[l]
	e.prev, e.next = none, q.hot
	if q.hot != none {
		x.slab.at(q.hot).prev = i
	} else {
		q.cold = i
	}
	q.hot = i
	x.joined(e, l)
}

func (x *Index) pushCold(l list, i uint32) {
	e, q := x.slab.at(i), &x.ends[l]
	e.prev, e.next = q.cold, none
	if q.cold != none {
		x.slab.at(q.cold).next = i
	} else {
		q.hot = i
	}
	q.cold = i
	x.joined(e, l)
}

func (x *Index) joined(e *entry, l list) {
	e.setList(l)
	x.ends[l].chunks++
	x.ends[l].bytes += e.size()
}

func (x *Index) unlink(i uint32) {
	e := x.slab.at(i)
	q := &x.ends[e.list()]
	if e.prev != none {
		x.slab.at(e.prev).next = e.next
	} else {
		q.hot = e.next
	}
	if e.next != none {
		x.slab.at(e.next).prev = e.prev
	} else {
		q.cold = e.prev
	}
	q.chunks--
	q.bytes -= e.size()
}

// haunt remembers that h was dropped. A ghost is 8 bytes of the hash: one that
// is taken for another costs a place in the wrong queue.
func (x *Index) haunt(h fs.Hash) {
	if len(x.ghosts) >= min(ghostsMax, max(64, x.slab.count/2)) {
		x.og, x.ghosts = x.ghosts, make(map[uint64]struct{})
	}
	x.ghosts[ghost(h)] = struct{}{}
}

func (x *Index) isGhost(h fs.Hash) bool {
	_, young := x.ghosts[ghost(h)]
	_, old := x.og[ghost(h)]
	return young || old
}

func ghost(h fs.Hash) uint64 { return binary.LittleEndian.Uint64(h[8:16]) }
