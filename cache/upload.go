package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Backlog is what the object store does not have yet, as the replicated metadata
// knows it. Package cluster implements it. Because it is there that the state
// is, an Uploader needs none that survives a restart.
type Backlog interface {
	// Undurable returns up to n chunks behind after that are not durable, the
	// oldest first. Fewer than n: that is all.
	Undurable(after fs.ChunkID, n int) ([]fs.ChunkInfo, error)
	// Mine tells whether it is this node's turn to upload the chunk. Two nodes
	// may both think so: the second upload is wasted, nothing else.
	Mine(info fs.ChunkInfo) bool
	// StorePack records that the object store has a pack.
	StorePack(ctx context.Context, op fs.StorePack) error
}

// Limits of an Uploader.
const (
	backlogPage   = 512             // chunks read from the backlog at once
	jobBytes      = 16 << 20        // of small chunks that one worker takes, not compressed
	uploadTimeout = 2 * time.Minute // for one pack, all retries included
	readTimeout   = time.Minute     // for the content of one chunk
	recordMax     = 128             // chunks in one StorePack: applying one holds all other changes up, by about 0.1 ms per chunk
	packTries     = 10              // then a pack is given up and its chunks are packed anew
	laterMax      = 4096            // chunks put off because they cannot be read
	laterFor      = 10 * time.Second
)

// UploaderOptions for NewUploader. Store, Backlog and Chunks are required.
type UploaderOptions struct {
	Store   object.Store
	Backlog Backlog
	// Chunks is where content comes from: the Tier.
	Chunks fs.Chunks
	// Parallel packs in hand; default 4. Each takes up to 12 MiB of memory.
	Parallel int
	// Idle is the time between two looks at the backlog; default 500 ms.
	Idle time.Duration
	// AgeMin is how long a chunk must have existed: the tail of a file that is
	// being appended to is replaced at once. Default 1 s.
	AgeMin time.Duration
	// Linger is how much longer a small chunk waits for company; default 2 s.
	// What travelled in the log is in the bucket sooner: in the log's own copy.
	Linger time.Duration
	// Life is how long an uploaded pack may wait to be recorded. Then it is left
	// to the collector, which must wait longer than this before it takes an
	// object for an orphan. Default 12 h.
	Life time.Duration
	// BackoffMin and BackoffMax bound the pause while the store fails; defaults
	// 1 s and 30 s.
	BackoffMin, BackoffMax time.Duration
	Log                    *slog.Logger // default: discarded
}

func (o *UploaderOptions) setDefaults() {
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Idle <= 0 {
		o.Idle = 500 * time.Millisecond
	}
	if o.AgeMin <= 0 {
		o.AgeMin = time.Second
	}
	if o.Linger <= 0 {
		o.Linger = 2 * time.Second
	}
	if o.Life <= 0 {
		o.Life = 12 * time.Hour
	}
	if o.BackoffMin <= 0 {
		o.BackoffMin = time.Second
	}
	if o.BackoffMax <= 0 {
		o.BackoffMax = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Uploader puts chunks into the object store, small ones together in packs, and
// records where they are. Nothing is recorded that is not there. Whatever is
// interrupted leaves at most an object that nobody recorded; its chunks are
// still in the backlog, for the next process or the next holder.
type Uploader struct {
	o UploaderOptions

	mu        sync.Mutex
	busy      map[fs.ChunkID]bool      // being uploaded or recorded
	done      []fs.ChunkInfo           // of these: recorded; free with the next pass, which does not list them any more
	uploading int                      // jobs that workers have
	trying    int                      // requests to the store under way
	later     map[fs.ChunkID]time.Time // not before; see laterFor
	ages      ages
	streak    int       // failures of the store in a row
	notBefore time.Time // of the next upload
	status    UploadStatus
}

// UploadStatus is for metrics and status pages.
type UploadStatus struct {
	Chunks    int           // of the whole cluster that are cited and not durable
	Bytes     uint64        // of these
	OldestAge time.Duration // of the oldest of these, as long as this process knows it
	InFlight  int           // chunks this node is working on

	Uploaded      uint64 // chunks that this node has put into packs since the start
	UploadedBytes uint64 // of these, before compression
	Packs         uint64 // recorded by this node since the start
	PackBytes     uint64 // of these
	Unreadable    uint64 // attempts to upload a chunk whose content cannot be had

	LastError    error     // of the store, the backlog or the content; stays
	LastErrorAt  time.Time // zero: none yet
	FailingSince time.Time // zero: the store works, as far as is known
}

// NewUploader makes an Uploader. It starts nothing; see Run.
func NewUploader(o UploaderOptions) (*Uploader, error) {
	if o.Store == nil || o.Backlog == nil || o.Chunks == nil {
		return nil, errors.New("cache: an uploader needs a store, a backlog and chunks")
	}
	o.setDefaults()
	return &Uploader{o: o, busy: make(map[fs.ChunkID]bool), later: make(map[fs.ChunkID]time.Time)}, nil
}

// Run uploads until ctx ends, through every failure, and returns nil then.
func (u *Uploader) Run(ctx context.Context) error {
	work := make(chan job)
	var wg sync.WaitGroup
	for range u.o.Parallel {
		wg.Go(func() {
			for j := range work {
				u.do(ctx, j)
			}
		})
	}
	wg.Go(func() { u.survey(ctx) })
	for sleep(ctx, u.o.Idle) {
		u.pass(ctx, work)
	}
	close(work)
	wg.Wait()
	return nil
}

// sleep reports whether ctx still runs afterwards.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// job is chunks that a worker is to put into packs, in this order.
type job struct {
	chunks []fs.ChunkInfo
	bytes  int
	oldest fs.Index // generation
}

func (j *job) add(info fs.ChunkInfo) {
	if len(j.chunks) == 0 || info.ID.Gen < j.oldest {
		j.oldest = info.ID.Gen
	}
	j.chunks = append(j.chunks, info)
	j.bytes += int(info.Size)
}

func (j *job) full() bool { return j.bytes >= jobBytes || len(j.chunks) == pack.ChunksMax }

// pass hands the backlog to the workers, once from its start to its end or to
// the first failure of the store: after a pause the beginning may look different.
// Small chunks are gathered; the last few wait for company until the oldest of
// them has lingered long enough. Because they wait in the backlog, nothing is
// lost when this process or this node ends meanwhile.
func (u *Uploader) pass(ctx context.Context, work chan<- job) {
	u.mu.Lock()
	done := u.done
	u.done = nil
	u.mu.Unlock()
	u.unclaim(done)
	var after fs.ChunkID
	var small job
	for {
		page, err := u.o.Backlog.Undurable(after, backlogPage)
		if err != nil {
			u.note(fmt.Errorf("read the upload backlog: %w", err))
			return
		}
		for _, info := range page {
			if u.paused() {
				return
			}
			if !u.wants(info) {
				continue
			}
			if info.Size >= pack.Alone {
				u.hand(ctx, work, job{chunks: []fs.ChunkInfo{info}})
				continue
			}
			if small.add(info); small.full() {
				u.hand(ctx, work, small)
				small = job{}
			}
		}
		if len(page) < backlogPage {
			break
		}
		after = page[len(page)-1].ID
	}
	if len(small.chunks) > 0 && u.age(small.oldest) >= u.o.AgeMin+u.o.Linger {
		u.hand(ctx, work, small)
	}
}

// wants decides whether the chunk is to be uploaded now, by this node.
func (u *Uploader) wants(info fs.ChunkInfo) bool {
	if info.Refs == 0 || info.Durable || !u.o.Backlog.Mine(info) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	return !u.busy[info.ID] && u.ages.of(info.ID.Gen, now) >= u.o.AgeMin && !now.Before(u.later[info.ID])
}

// age of a chunk of that generation, as long as this process knows it.
func (u *Uploader) age(gen fs.Index) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ages.of(gen, time.Now())
}

// hand gives a job to a worker as soon as one is free.
func (u *Uploader) hand(ctx context.Context, work chan<- job, j job) {
	u.mu.Lock()
	for _, info := range j.chunks {
		u.busy[info.ID] = true
	}
	u.uploading++
	u.mu.Unlock()
	select {
	case work <- j:
	case <-ctx.Done():
		u.unclaim(j.chunks)
		u.jobEnds()
	}
}

func (u *Uploader) jobEnds() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.uploading--
}

func (u *Uploader) unclaim(chunks []fs.ChunkInfo) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, info := range chunks {
		delete(u.busy, info.ID)
	}
}
