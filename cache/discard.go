package cache

import (
	"context"

	"github.com/wpfs/wpfs/fs"
)

// discardsMax bounds the chunks that wait to be removed; the rest is left to
// eviction, which meets them when they are cold.
const discardsMax = 8192

// Discard tells that the metadata has forgotten a chunk. Run removes this node's
// copy in the background, unless somebody relies on these bytes all the same.
// Discard returns at once.
func (t *Tier) Discard(h fs.Hash) {
	select {
	case t.discards <- h:
	default:
	}
}

// runDiscards removes what Discard was told of until ctx ends.
func (t *Tier) runDiscards(ctx context.Context) {
	for {
		select {
		case h := <-t.discards:
			if t.disk.Discard(h) {
				t.count.discarded.Add(1)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Discard removes a chunk that the metadata does not know any more, and reports
// whether it did: not if it is here no longer, or in use, or put lately, or cited
// again under another generation.
func (d *Disk) Discard(h fs.Hash) bool {
	if d.o.Holdings == nil || !d.index.Doom(h) {
		return false
	}
	_, backed := d.o.Holdings.CopyOf(h)
	switch { // a put or a use from now on saves it: drop asks
	case d.relied(h):
		d.index.Pin(h)
	case backed || d.open.inUse(h):
		d.index.Spare(h)
	default:
		return d.drop(h)
	}
	return false
}
