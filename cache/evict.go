package cache

import (
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Holdings tells what this node's copy of a chunk is for, as the metadata knows
// it. Package cluster implements it. It does not block on the network.
type Holdings interface {
	// CopyOf returns promised if the object store does not have the chunk and
	// this node was named as one that does, and backed if something cites it
	// and the object store or the metadata itself has it. Neither: nothing
	// cites it, or others answer for it; a copy that was put lately may be
	// about to be cited.
	CopyOf(h fs.Hash) (promised, backed bool)
}

const (
	evictSpares  = 64                     // chunks in use, or that cannot be removed, before a search gives up
	recheckBatch = 256                    // pinned chunks looked at when room is wanted and there is none
	recheckEvery = 100 * time.Millisecond // at most so often
	recheckIdle  = 1024                   // pinned chunks looked at each second anyway
	slackMax     = 256 << 20              // bytes kept free above the reserve, or a quarter of it
)

// makeRoom sees to it that what is being written fits, or fails with ErrNoSpace.
func (d *Disk) makeRoom() error {
	for range 3 { // another user of the disk may be faster
		need, err := d.lacking(0)
		if err != nil || need <= 0 {
			return err
		}
		d.evicting.Lock()
		// Whoever held the lock before may have made room for both.
		if need, err = d.lacking(0); err == nil && need > 0 && d.evictLocked(need) == 0 {
			err = d.noRoom()
		}
		d.evicting.Unlock()
		if err != nil {
			return err
		}
	}
	if need, err := d.lacking(0); err != nil || need <= 0 {
		return err
	}
	return d.noRoom()
}

// lacking is how many bytes must go for what is held and being written to fit,
// with slack bytes to spare; none if it is not positive.
func (d *Disk) lacking(slack int64) (int64, error) {
	free, err := d.o.files.Free(d.dir)
	if err != nil {
		return 0, err
	}
	writing := d.writing.Load()
	need := writing + int64(d.o.ReserveBytes) + slack - int64(min(free, 1<<62))
	if d.o.MaxBytes > 0 {
		need = max(need, d.index.Stats().Bytes+writing-d.o.MaxBytes)
	}
	return need, nil
}

func (d *Disk) noRoom() error {
	free, _ := d.o.files.Free(d.dir)
	x := d.index.Stats()
	return &fs.Error{Op: "make room", Name: d.dir, Kind: fs.ErrNoSpace, Err: fmt.Errorf(
		"%d bytes are free, %d are kept in reserve; of %d bytes in the cache %d may not be dropped, and nothing else is left",
		free, d.o.ReserveBytes, x.Bytes, x.PinnedBytes)}
}

// evict drops chunks of at least need bytes together, as far as there are any
// that may go, and returns how many bytes went.
func (d *Disk) evict(need int64) int64 {
	d.evicting.Lock()
	defer d.evicting.Unlock()
	return d.evictLocked(need)
}

func (d *Disk) evictLocked(need int64) (gone int64) {
	if d.o.Holdings == nil {
		return 0
	}
	spared := 0
	for gone < need && spared < evictSpares {
		h, size, ok := d.index.Victim()
		switch {
		case !ok:
			if !d.recheckDue() || d.recheck(recheckBatch) == 0 {
				return gone
			}
		case d.relied(h):
			d.index.Pin(h)
		case d.open.inUse(h):
			d.index.Spare(h)
			spared++
		case d.drop(h):
			gone += size
			d.evicted.Add(1)
			d.evictedSize.Add(uint64(size))
		default:
			spared++
		}
	}
	return gone
}

// relied tells whether somebody relies on this node's copy, or may be about to.
func (d *Disk) relied(h fs.Hash) bool {
	promised, backed := d.o.Holdings.CopyOf(h)
	fresh, uncited := d.index.Fresh(h)
	return promised || uncited || !backed && fresh
}

// Cited tells that the metadata has just cited the chunk. Until then a chunk that
// was put is kept whatever the metadata says: what it knows may be an older chunk
// of the same bytes, which goes while the new citation is on its way.
func (d *Disk) Cited(h fs.Hash) { d.index.Cited(h) }

// drop removes a victim, unless it was put or used since it was proposed.
func (d *Disk) drop(h fs.Hash) bool {
	s := d.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	size, _ := d.index.Size(h)
	if !d.index.Drop(h) {
		return false
	}
	if err := d.removeLocked(h); err != nil {
		d.o.Log.Warn("a chunk that is not needed here cannot be removed", "chunk", h, "error", err)
		d.index.Add(h, size, false) // at the hot end: out of the way of the next search
		return false
	}
	return true
}

// recheckDue tells whether pinned chunks may be looked at again, and counts as
// the look.
func (d *Disk) recheckDue() bool {
	now, last := time.Now().UnixNano(), d.checked.Load()
	return time.Duration(now-last) >= recheckEvery && d.checked.CompareAndSwap(last, now)
}

// recheck looks at n pinned chunks and returns how many need not be pinned any
// more.
func (d *Disk) recheck(n int) (released int) {
	for range min(n, d.index.Stats().PinnedChunks) {
		h, ok := d.index.NextPinned()
		if !ok {
			break
		}
		if !d.relied(h) {
			d.index.Release(h)
			released++
		}
	}
	return released
}

// Pressure is how much of the room for chunks is taken by those that may not be
// dropped, from 0 to 1; 1 as well if others have left no room at all. It is known
// only as far as room was looked for: a cache that is not full has none.
func (d *Disk) Pressure() float64 {
	x := d.index.Stats()
	free, err := d.o.files.Free(d.dir)
	if err != nil {
		return 0
	}
	room := max(0, int64(min(free, 1<<62))-int64(d.o.ReserveBytes))
	if d.o.MaxBytes > 0 {
		room = min(room, max(0, d.o.MaxBytes-x.Bytes))
	}
	room += x.Bytes - x.PinnedBytes
	if x.PinnedBytes+room <= 0 {
		return 1
	}
	return float64(x.PinnedBytes) / float64(x.PinnedBytes+room)
}

// keepRoom drops what may go before somebody has to wait for that.
func (d *Disk) keepRoom() {
	if d.o.Holdings == nil {
		return
	}
	d.recheck(recheckIdle)
	need, err := d.lacking(min(slackMax, int64(d.o.ReserveBytes/4)))
	if err == nil && need > 0 {
		d.evict(need)
	}
}
