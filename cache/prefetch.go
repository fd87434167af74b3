package cache

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"github.com/wpfs/wpfs/fs"
)

const (
	// offersMax bounds the chunks that wait to be fetched ahead of time.
	offersMax = 4096
	// prefetchers is how many are fetched at a time.
	prefetchers = 4
	// prefetchPressure is how full of what must stay a disk is that had no room
	// for the last chunk, when nothing is fetched ahead for it.
	prefetchPressure = 0.9
)

// offers is the queue of chunks that somebody published and this node does not
// have yet.
type offers struct {
	queue chan fs.ChunkInfo
	limit *rate.Limiter // bytes

	mu      sync.Mutex
	waiting map[fs.Hash]struct{} // in the queue
}

func newOffers(bytesPerSecond int64) *offers {
	limit := rate.Inf
	if bytesPerSecond > 0 {
		limit = rate.Limit(bytesPerSecond)
	}
	return &offers{queue: make(chan fs.ChunkInfo, offersMax), limit: rate.NewLimiter(limit, fs.ChunkMax), waiting: map[fs.Hash]struct{}{}}
}

// Offer tells of a chunk that was just published and is likely to be read here
// soon. Run fetches it in the background, as fast as PrefetchBytesPerSecond lets
// it; when too many are waiting it is left to the first reader. Offer returns at
// once.
func (t *Tier) Offer(chunk fs.ChunkInfo) {
	o := t.offers
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.waiting[chunk.ID.Hash]; ok {
		return
	}
	select {
	case o.queue <- chunk:
		o.waiting[chunk.ID.Hash] = struct{}{}
	default:
		t.count.offersDropped.Add(1)
	}
}

// prefetch fetches what is offered until ctx ends.
func (t *Tier) prefetch(ctx context.Context) {
	for {
		select {
		case c := <-t.offers.queue:
			t.prefetchOne(ctx, c)
		case <-ctx.Done():
			return
		}
	}
}

func (t *Tier) prefetchOne(ctx context.Context, c fs.ChunkInfo) {
	defer func() {
		t.offers.mu.Lock()
		delete(t.offers.waiting, c.ID.Hash)
		t.offers.mu.Unlock()
	}()
	if c.Size == 0 || c.Size > fs.ChunkMax || t.disk.Has(c.ID.Hash) {
		return
	}
	if t.keepFail.Load() && t.disk.Pressure() > prefetchPressure {
		return // it would be fetched, and not be here
	}
	if err := t.offers.limit.WaitN(ctx, int(c.Size)); err != nil {
		return // ending
	}
	// A failure is the first reader's to report: it asks again.
	if _, err := t.fill(ctx, c, fs.ErrNotFound); err == nil {
		t.count.prefetched.Add(1)
	}
}
