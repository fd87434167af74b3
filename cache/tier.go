package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Limits of a Tier.
const (
	fillsMax         = 16                     // chunks fetched at the same time
	fetchTimeout     = 5 * time.Second        // for one chunk from one node
	storeTimeout     = 60 * time.Second       // for one chunk from the object store, retries included
	pushTimeoutMax   = 5 * time.Second        // for one chunk to one node, unless TierOptions say otherwise
	suspectPush      = time.Second            // the same for a node that failed lately
	pushHedge        = 150 * time.Millisecond // longer than usual, and another node is tried as well
	pushHedgeMax     = 2                      // nodes tried in addition
	hedgeAfter       = 300 * time.Millisecond // then the next source is asked as well
	hedgeMax         = 3                      // sources asked at the same time
	peersBeforeStore = 8                      // nodes asked for a chunk that the object store has
)

// TierOptions for NewTier.
type TierOptions struct {
	Disk  *Disk
	Peers Peers
	Store object.Store // nil: there is none
	// Chunks lists what cites a chunk's bytes; nil: nothing is known. Package
	// cluster implements it.
	Chunks func(h fs.Hash) ([]fs.ChunkInfo, error)
	// Replicas is on how many nodes' disks Put wants a chunk, this one
	// included; default 2. With fewer live nodes it makes do.
	Replicas int
	// PushTimeout is how long one node may take for a copy when there is no
	// other to ask, not counting half a second per MiB. Default 5 s.
	PushTimeout time.Duration
	// PrefetchBytesPerSecond bounds what Offer fetches; 0 is no bound.
	PrefetchBytesPerSecond int64
	Log                    *slog.Logger // default: discarded
}

// Tier is the content behind the metadata: what is inline, on this node's disk,
// on other nodes, or in the object store. It implements [fs.Chunks].
type Tier struct {
	disk     *Disk
	peers    Peers
	store    object.Store
	replicas int
	log      *slog.Logger

	pushTimeout time.Duration
	chunks      func(h fs.Hash) ([]fs.ChunkInfo, error)

	suspects suspects
	full     suspects // had no room lately
	paces    paces
	keep     keeper
	unkept   unkept
	offers   *offers
	discards chan fs.Hash
	fills    chan struct{} // a token for each fetch under way
	ranges   rangeSet

	mu      sync.Mutex
	flights map[fs.Hash]*flight

	count    counters
	lonely   atomic.Bool // the last Put found too few nodes
	keepFail atomic.Bool // the last fill could not be kept
}

var _ fs.Chunks = (*Tier)(nil)

// NewTier puts the parts together. It starts nothing; see Run.
func NewTier(o TierOptions) (*Tier, error) {
	if o.Disk == nil || o.Peers == nil {
		return nil, errors.New("cache: a tier needs a disk and peers")
	}
	if o.Replicas == 0 {
		o.Replicas = 2
	}
	if o.Replicas < 0 {
		return nil, fmt.Errorf("cache: replicas %d: want at least 1", o.Replicas)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PushTimeout <= 0 {
		o.PushTimeout = pushTimeoutMax
	}
	if o.Chunks == nil {
		o.Chunks = func(fs.Hash) ([]fs.ChunkInfo, error) { return nil, nil }
	}
	return &Tier{
		chunks:      o.Chunks,
		pushTimeout: o.PushTimeout, full: suspects{span: fullFor},
		disk: o.Disk, peers: o.Peers, store: o.Store, replicas: o.Replicas, log: o.Log,
		fills: make(chan struct{}, fillsMax), flights: make(map[fs.Hash]*flight),
		keep: keeper{wake: make(chan struct{}, 1)}, offers: newOffers(o.PrefetchBytesPerSecond), discards: make(chan fs.Hash, discardsMax),
	}, nil
}

// Run does what need not be waited for: it stores what KeepInline was given,
// fetches what Offer was told of, and runs the disk. It returns nil when ctx ends.
func (t *Tier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { _ = t.disk.Run(ctx) }) // nil: it goes on through every failure
	for range prefetchers {
		wg.Go(func() { t.prefetch(ctx) })
	}
	wg.Go(func() { t.runDiscards(ctx) })
	t.runKeeper(ctx)
	wg.Wait()
	return nil
}

// ReadAt implements [fs.Chunks].
func (t *Tier) ReadAt(ctx context.Context, chunk fs.ChunkInfo, p []byte, off int64) (int, error) {
	h := chunk.ID.Hash
	if off < 0 || chunk.Size == 0 || chunk.Size > fs.ChunkMax {
		return 0, fail("read chunk", h, fs.ErrInvalid)
	}
	if off >= int64(chunk.Size) {
		return 0, nil
	}
	p = p[:min(int64(len(p)), int64(chunk.Size)-off)]
	if len(p) == 0 {
		return 0, nil
	}
	if len(chunk.Inline) == int(chunk.Size) {
		t.count.readsInline.Add(1)
		return copy(p, chunk.Inline[off:]), nil
	}
	if b := t.keep.get(h); len(b) == int(chunk.Size) {
		t.count.readsInline.Add(1)
		return copy(p, b[off:]), nil
	}
	if b := t.unkept.get(h); len(b) == int(chunk.Size) {
		t.count.readsFilled.Add(1)
		return copy(p, b[off:]), nil
	}
	n, err := t.disk.ReadAt(h, chunk.Size, p, off)
	if err == nil {
		t.count.readsDisk.Add(1)
		return n, nil
	}
	b, err := t.fill(ctx, chunk, err)
	if err != nil {
		return 0, err
	}
	t.count.readsFilled.Add(1)
	return copy(p, b[off:]), nil
}

// counters are the numbers behind TierStats.
type counters struct {
	readsInline, readsDisk, readsFilled  atomic.Uint64
	fillsPeer, fillsStore, fillsFailed   atomic.Uint64
	fillBytes, fetchErrors, wrongBytes   atomic.Uint64
	puts, pushes, pushErrors, underCount atomic.Uint64
	keepErrors, elsewhere                atomic.Uint64
	prefetched, offersDropped            atomic.Uint64
	discarded                            atomic.Uint64
}

// TierStats only grow, except KeepQueue.
type TierStats struct {
	ReadsInline, ReadsDisk, ReadsFilled uint64 // ReadAt calls by where the bytes were
	FillsPeer, FillsStore, FillsFailed  uint64 // chunks that were not on the disk
	FillBytes                           uint64
	FetchErrors                         uint64 // sources that failed, absent chunks not included
	WrongBytes                          uint64 // answers that did not match their hash
	Puts                                uint64
	Pushes, PushErrors                  uint64 // to other nodes
	Elsewhere                           uint64 // puts that found no room here, and enough on other nodes
	UnderReplicated                     uint64 // puts that found fewer nodes than asked for
	KeepErrors                          uint64 // filled or inline chunks that could not be stored
	KeepDropped                         uint64 // inline chunks that the queue had no room for
	KeepQueue                           int    // inline chunks waiting to be stored
	Prefetched                          uint64 // chunks fetched before anybody asked for them
	OffersDropped                       uint64 // chunks that were not, because too many waited
	Discarded                           uint64 // copies that went because the metadata has forgotten the chunk
}

// Stats reads the counters.
func (t *Tier) Stats() TierStats {
	c := &t.count
	queue, dropped := t.keep.stats()
	return TierStats{
		ReadsInline: c.readsInline.Load(), ReadsDisk: c.readsDisk.Load(), ReadsFilled: c.readsFilled.Load(),
		FillsPeer: c.fillsPeer.Load(), FillsStore: c.fillsStore.Load(), FillsFailed: c.fillsFailed.Load(),
		FillBytes: c.fillBytes.Load(), FetchErrors: c.fetchErrors.Load(), WrongBytes: c.wrongBytes.Load(),
		Puts: c.puts.Load(), Pushes: c.pushes.Load(), PushErrors: c.pushErrors.Load(),
		Elsewhere: c.elsewhere.Load(), UnderReplicated: c.underCount.Load(), KeepErrors: c.keepErrors.Load(),
		KeepDropped: dropped, KeepQueue: queue,
		Prefetched: c.prefetched.Load(), OffersDropped: c.offersDropped.Load(), Discarded: c.discarded.Load(),
	}
}
