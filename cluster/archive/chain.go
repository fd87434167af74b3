package archive

import (
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// chain is where the bucket's log ends: what the next segment has to say of
// itself. The zero value is a chain that has not begun.
type chain struct {
	next fs.Index // First of the next segment; 0: only a snapshot can begin it
	prev string
	base fs.Index // of the run
}

func (c *chain) known() bool { return c.next > 0 }

// begin starts a run behind a state.
func (c *chain) begin(cluster string, epoch uint64, at fs.Index, state uint64) {
	*c = chain{next: at + 1, prev: linkHash(cluster, epoch, at, state), base: at + 1}
}

// resume goes on where a snapshot says.
func (c *chain) resume(m *Manifest) { *c = chain{next: m.Next, prev: m.Prev, base: m.Next} }

// follow goes on behind a segment, whose object's hash is sum.
func (c *chain) follow(h *Head, sum string) { *c = chain{next: h.Last + 1, prev: sum, base: h.Base} }

// check tells whether a segment is the next one of a cluster's chain.
func (c *chain) check(cluster string, epoch uint64, h *Head) error {
	switch {
	case h.Cluster != cluster || h.Epoch != epoch:
		return damaged("it is of cluster %s in epoch %d, not of %s in %d", h.Cluster, h.Epoch, cluster, epoch)
	case h.First != c.next:
		return damaged("it starts at entry %d, not at %d", h.First, c.next)
	case h.Prev != c.prev:
		return damaged("it does not follow the segment before it")
	}
	return nil
}

// anchored tells whether one of the snapshots lies in the chain's present run, so
// that a restore reaches the chain's end.
func (c *chain) anchored(snaps []*Manifest) bool {
	for _, m := range snaps {
		if m.Next >= c.base && m.Next <= c.next {
			return true
		}
	}
	return false
}

func (c *chain) String() string { return fmt.Sprintf("next %d, run from %d", c.next, c.base) }
