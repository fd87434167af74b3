package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// TestOfferFetchesAhead: what is offered is on this node's disk before anybody
// reads it, once, and no faster than allowed.
func TestOfferFetchesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		tier := tierOf(t, c, "a", nil)
		tier.offers = newOffers(fs.ChunkMax) // one full chunk at once, then as much each second
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range prefetchers {
			go tier.prefetch(ctx)
		}
		var infos []fs.ChunkInfo
		for i := range 3 {
			b := content(i, fs.ChunkMax)
			mustPut(t, c.disks["b"], b, false)
			infos = append(infos, infoOf(b, 1, "b"))
			tier.Offer(infos[i])
			tier.Offer(infos[i]) // said twice
		}
		for i, after := range []time.Duration{0, 1010 * time.Millisecond, time.Second} {
			time.Sleep(after)
			synctest.Wait()
			if n := c.fetched(); n != i+1 {
				t.Fatalf("%d chunks fetched in second %d, want %d", n, i, i+1)
			}
		}
		for _, info := range infos {
			if !tier.disk.Has(info.ID.Hash) {
				t.Error("an offered chunk is not on the disk")
			}
			tier.Offer(info) // it is here already
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := tier.Stats(); s.Prefetched != 3 || c.fetched() != 3 || len(tier.offers.waiting) != 0 {
			t.Errorf("prefetched %d, fetched %d, %d wait; want 3, 3, 0", s.Prefetched, c.fetched(), len(tier.offers.waiting))
		}
	})
}

// TestOffersAreBounded: what there is no room for is left to the first reader.
func TestOffersAreBounded(t *testing.T) {
	tier := tierOf(t, newCluster(t, "a", "b"), "a", nil)
	for i := range offersMax + 5 {
		tier.Offer(fs.ChunkInfo{ID: fs.ChunkID{Hash: fs.Hash{byte(i), byte(i >> 8), 1}}, Size: 1})
	}
	if s := tier.Stats(); s.OffersDropped != 5 {
		t.Errorf("%d offers dropped, want 5", s.OffersDropped)
	}
}
