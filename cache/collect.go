package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Ledger is what a Collector sees of the replicated metadata. Package cluster
// implements it.
type Ledger interface {
	// Leads tells whether this node leads. Two nodes that both think so do no
	// harm: whatever happens to an object, an entry of the log has decided.
	Leads() bool
	// UncitedChunks looks at up to n chunks behind after and returns those that
	// nothing cites, how many were looked at, and the last of these.
	UncitedChunks(after fs.ChunkID, n int) (list []fs.ChunkInfo, seen int, last fs.ChunkID, err error)
	// Packs lists up to n packs behind after.
	Packs(after fs.PackID, n int) ([]fs.PackInfo, error)
	// Pack and Chunk look one up; false if it is not known.
	Pack(id fs.PackID) (fs.PackInfo, bool, error)
	Chunk(id fs.ChunkID) (fs.ChunkInfo, bool, error)

	StorePack(ctx context.Context, op fs.StorePack) error
	Condemn(ctx context.Context, op fs.Condemn) error
	Forget(ctx context.Context, op fs.Forget) error
}

// Figures of a Collector.
const (
	sweepPage     = 1000                  // chunks or packs looked at in one go
	sweepPause    = 50 * time.Millisecond // after it
	garbageBatch  = 250                   // things in one command
	compactShare  = 3                     // a pack is worth compacting when less than a third of it is live
	compactMax    = 64 << 20              // bytes moved in one round
	deleteTimeout = time.Minute           // for one object, retries included
	listEvery     = time.Hour             // between two looks for orphans, which read the whole list of objects
)

// CollectorOptions for NewCollector. Store, Ledger and Chunks are required.
type CollectorOptions struct {
	Store  object.Store
	Ledger Ledger
	// Chunks is where content that moves is read: the Tier.
	Chunks fs.Chunks
	// Grace is how long condemned things stay, and how old an object must be
	// that nobody has recorded. Twice an Uploader's Life or more. Default 24 h.
	Grace time.Duration
	// Every is the time between two rounds; default 10 min.
	Every time.Duration
	// DeletesPerSecond bounds the requests that delete; default 50.
	DeletesPerSecond float64
	// Pinned tells the index of the oldest state that somebody could still go
	// back to. Nothing is deleted that it may cite, and nothing at all while
	// Pinned fails. Default: there is no such state.
	Pinned func() (fs.Index, error)
	Log    *slog.Logger // default: discarded
}

func (o *CollectorOptions) setDefaults() {
	if o.Grace <= 0 {
		o.Grace = 24 * time.Hour
	}
	if o.Every <= 0 {
		o.Every = 10 * time.Minute
	}
	if o.DeletesPerSecond <= 0 {
		o.DeletesPerSecond = 50
	}
	if o.Pinned == nil {
		o.Pinned = func() (fs.Index, error) { return ^fs.Index(0), nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Collector takes garbage out of the object store, in steps that may each be the
// last before a crash (rule R37):
//
//  1. chunks that nothing cites are condemned by an entry of the log: from then
//     on nothing can cite them, and a pack without a live chunk is condemned too;
//  2. after Grace, and when no state that could be restored is older than that
//     entry, objects of condemned packs are deleted;
//  3. then another entry forgets them.
//
// Objects that no entry knows of, because an uploader died, are condemned by name
// when they are old enough and go the same way. Packs that are mostly dead are
// compacted: their live chunks move to another pack, and the rest is garbage.
type Collector struct {
	o       CollectorOptions
	deletes *rate.Limiter

	running sync.Mutex // held during a round

	listed time.Time // under running: when orphans were looked for last

	mu     sync.Mutex
	last   Report // of the last round that was no dry run
	totals Totals
}

// Totals are what a Collector has done since the start.
type Totals struct {
	Condemned    uint64 // chunks
	Forgotten    uint64 // chunks
	Deleted      uint64 // objects
	DeletedBytes uint64 // of those whose size was known
	Moved        uint64 // chunks, by compaction
	Failed       uint64 // rounds that ended early
}

// Amount is how many of something there are, and their bytes in the store.
type Amount struct {
	Count uint64 `json:"count"`
	Bytes uint64 `json:"bytes"`
}

func (a *Amount) add(bytes uint64) {
	a.Count++
	a.Bytes += bytes
}

// Report is what a round found, and what it did about it.
type Report struct {
	Began time.Time `json:"began"`
	TookS float64   `json:"took_s"`
	// DryRun: nothing was changed, all that follows is what a round would find.
	DryRun bool `json:"dry_run"`

	Chunks    uint64 `json:"chunks"` // known to the metadata
	Packs     Amount `json:"packs"`  // known to the metadata
	LiveBytes uint64 `json:"live_bytes"`

	Dead        Amount `json:"dead"`        // chunks that nothing cites; condemned by this round
	Condemned   Amount `json:"condemned"`   // chunks that were condemned before
	Waiting     Amount `json:"waiting"`     // condemned objects whose time has not come
	Deletable   Amount `json:"deletable"`   // condemned objects whose time has come; deleted by this round
	Orphaned    Amount `json:"orphaned"`    // old objects that nobody recorded; condemned by this round
	Compactable Amount `json:"compactable"` // packs that are mostly dead; Bytes would be freed
	Moved       Amount `json:"moved"`       // chunks that this round has moved out of them

	Error string `json:"error,omitempty"` // why the round ended early
}

// NewCollector makes a Collector. It starts nothing; see Run.
func NewCollector(o CollectorOptions) (*Collector, error) {
	if o.Store == nil || o.Ledger == nil || o.Chunks == nil {
		return nil, errors.New("cache: a collector needs a store, a ledger and chunks")
	}
	o.setDefaults()
	return &Collector{o: o, deletes: rate.NewLimiter(rate.Limit(o.DeletesPerSecond), 1)}, nil
}

// Run makes a round in each Every while this node leads, until ctx ends, through
// every failure, and returns nil then.
func (c *Collector) Run(ctx context.Context) error {
	for sleep(ctx, c.o.Every) {
		if !c.o.Ledger.Leads() {
			continue
		}
		if _, err := c.round(ctx, false, false); err != nil && ctx.Err() == nil {
			c.o.Log.Warn("garbage could not be collected to the end; the next round goes on", "error", err)
		}
	}
	return nil
}

// Last is the report of the last round of this node that was no dry run; its
// Began is zero if there was none.
func (c *Collector) Last() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Totals reads the counters.
func (c *Collector) Totals() Totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.totals
}

var errNotLeader = errors.New("this node does not lead any more")

// Round looks at everything once and, unless it is a dry run, does what is due.
// It waits for a round that is under way. It takes seconds per 100,000 chunks,
// and more if much is deleted. After an error the report is as far as it came.
func (c *Collector) Round(ctx context.Context, dryRun bool) (Report, error) {
	return c.round(ctx, dryRun, true)
}

// round is Round; unless full it looks for orphans only now and then.
func (c *Collector) round(ctx context.Context, dryRun, full bool) (Report, error) {
	c.running.Lock()
	defer c.running.Unlock()
	list := full || time.Since(c.listed) >= min(listEvery, c.o.Grace/4)
	r := &round{c: c, dry: dryRun, list: list, now: time.Now(), report: Report{Began: time.Now(), DryRun: dryRun}}
	err := r.run(ctx)
	r.report.TookS = time.Since(r.report.Began).Seconds()
	if err != nil {
		r.report.Error = err.Error()
	}
	if dryRun {
		return r.report, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = r.report
	if err != nil {
		c.totals.Failed++
	}
	return r.report, err
}

// count changes the totals.
func (c *Collector) count(change func(*Totals)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.totals)
}
