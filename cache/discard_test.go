package cache

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// TestDiscard: what the metadata has forgotten goes from the disk, whatever room
// there is, unless somebody may rely on it.
func TestDiscard(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(d *Disk, h *holdings, c fs.Hash)
		gone bool
	}{
		{"forgotten", func(d *Disk, h *holdings, c fs.Hash) {}, true},
		{"cited again, and in the object store", func(d *Disk, h *holdings, c fs.Hash) { h.set(c, false, true) }, false},
		{"cited again, and promised", func(d *Disk, h *holdings, c fs.Hash) { h.set(c, true, false) }, false},
		{"put again, not cited yet", func(d *Disk, h *holdings, c fs.Hash) { mustPut(t, d, content(1, 1000), false) }, false},
		{"pinned once", func(d *Disk, h *holdings, c fs.Hash) { d.index.Pin(c) }, true},
		{"not here", func(d *Disk, h *holdings, c fs.Hash) {
			if err := d.Remove(c); err != nil {
				t.Error(err)
			}
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHoldings()
			d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{Holdings: h})
			c := mustPut(t, d, content(1, 1000), false)
			other := mustPut(t, d, content(2, 1000), false)
			h.commit(d, c, true, false)
			h.commit(d, other, true, false)
			for range 4 {
				d.index.Age()
			}
			h.set(c, false, false)
			row.do(d, h, c)
			had := d.Has(c)
			if got := d.Discard(c); got != row.gone || d.Has(c) != (had && !row.gone) || !d.Has(other) {
				t.Errorf("discarded %t, it is there: %t", got, d.Has(c))
			}
		})
	}
	d := newDisk(t)
	c := mustPut(t, d, content(1, 1000), false)
	if d.Discard(c) || !d.Has(c) {
		t.Error("a disk that cannot ask what is needed discards")
	}
}

// TestTierDiscards in the background.
func TestTierDiscards(t *testing.T) {
	h := newHoldings()
	cl := newCluster(t, "a")
	cl.disks["a"] = openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{Holdings: h})
	tier := tierOf(t, cl, "a", nil)
	c := mustPut(t, cl.disks["a"], content(1, 1000), false)
	h.commit(cl.disks["a"], c, false, false)
	for range 4 {
		cl.disks["a"].index.Age()
	}
	stop := running(t, tier.Run)
	tier.Discard(c)
	for end := time.Now().Add(10 * time.Second); cl.disks["a"].Has(c); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it stays")
		}
	}
	stop()
	if n := tier.Stats().Discarded; n != 1 {
		t.Errorf("%d were discarded", n)
	}
}
