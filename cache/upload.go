package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Backlog is what the object store does not have yet, as the replicated metadata
// knows it. Package cluster implements it. Because it is there that the state
// is, an Uploader needs none that survives a restart.
type Backlog interface {
	// Undurable returns up to n chunks behind after that are not durable, in
	// the order of their hashes, then generations. Fewer than n: that is all.
	Undurable(after fs.ChunkID, n int) ([]fs.ChunkInfo, error)
	// Mine tells whether it is this node's turn to upload the chunk. Two nodes
	// may both think so: uploads are idempotent.
	Mine(info fs.ChunkInfo) bool
	// MarkDurable records that the object store has the chunks.
	MarkDurable(ctx context.Context, ids []fs.ChunkID) error
}

// Limits of an Uploader.
const (
	backlogPage   = 512                   // chunks read from the backlog at once
	markMax       = 256                   // chunks in one MarkDurable
	markLinger    = 20 * time.Millisecond // how long a batch waits for company
	uploadTimeout = 2 * time.Minute       // for one chunk, its reading and all retries included
	laterMax      = 4096                  // chunks put off because they cannot be read
	laterFor      = 10 * time.Second      // how long
)

// UploaderOptions for NewUploader. Store, Backlog and Chunks are required.
type UploaderOptions struct {
	Store   object.Store
	Backlog Backlog
	// Chunks is where content comes from: the Tier.
	Chunks fs.Chunks
	// Parallel uploads; default 8. Each takes up to 4 MiB of memory.
	Parallel int
	// Idle is the time between two looks at the backlog; default 500 ms.
	Idle time.Duration
	// AgeMin is how long a chunk must have existed: the tail of a file that is
	// being appended to is replaced at once. Default 1 s.
	AgeMin time.Duration
	// BackoffMin and BackoffMax bound the pause while the store fails; defaults
	// 1 s and 30 s.
	BackoffMin, BackoffMax time.Duration
	Log                    *slog.Logger // default: discarded
}

func (o *UploaderOptions) setDefaults() {
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	if o.Idle <= 0 {
		o.Idle = 500 * time.Millisecond
	}
	if o.AgeMin <= 0 {
		o.AgeMin = time.Second
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

// Uploader puts chunks into the object store, each as one object, and records
// that they are durable. Nothing is recorded that is not there, and whatever is
// interrupted at any point is found there again and recorded later.
type Uploader struct {
	o UploaderOptions

	mu        sync.Mutex
	busy      map[fs.ChunkID]bool      // being uploaded or recorded
	uploading int                      // of these
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

	Uploaded      uint64 // chunks recorded as durable by this node since the start
	UploadedBytes uint64
	Repaired      uint64 // objects that were there but damaged, and were replaced
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
	work := make(chan fs.ChunkInfo)
	done := make(chan fs.ChunkInfo)
	var workers, others sync.WaitGroup
	for range u.o.Parallel {
		workers.Go(func() {
			for info := range work {
				u.uploadOne(ctx, info, done)
			}
		})
	}
	others.Go(func() { u.mark(ctx, done) })
	others.Go(func() { u.survey(ctx) })
	for sleep(ctx, u.o.Idle) {
		u.pass(ctx, work)
	}
	close(work)
	workers.Wait()
	close(done)
	others.Wait()
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

// pass hands the backlog to the workers, once from its start to its end or to
// the first failure of the store: after a pause the beginning may look different.
func (u *Uploader) pass(ctx context.Context, work chan<- fs.ChunkInfo) {
	var after fs.ChunkID
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
			if !u.claim(info) {
				continue
			}
			select {
			case work <- info:
			case <-ctx.Done():
				u.uploadEnds()
				u.unclaim(info.ID)
				return
			}
		}
		if len(page) < backlogPage {
			return
		}
		after = page[len(page)-1].ID
	}
}

// claim decides whether the chunk is to be uploaded now, by this node.
func (u *Uploader) claim(info fs.ChunkInfo) bool {
	if info.Refs == 0 || info.Durable || !u.o.Backlog.Mine(info) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if u.busy[info.ID] || u.ages.of(info.ID.Gen, now) < u.o.AgeMin || now.Before(u.later[info.ID]) {
		return false
	}
	u.busy[info.ID] = true
	u.uploading++
	return true
}

// uploadEnds is called once for each claim.
func (u *Uploader) uploadEnds() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.uploading--
}

func (u *Uploader) unclaim(ids ...fs.ChunkID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range ids {
		delete(u.busy, id)
	}
}

// errContent marks a failure that has nothing to do with the object store.
var errContent = errors.New("the content cannot be had")

// uploadOne uploads a claimed chunk and hands it on to be recorded, still
// claimed.
func (u *Uploader) uploadOne(ctx context.Context, info fs.ChunkInfo, done chan<- fs.ChunkInfo) {
	attempt, cancel := context.WithTimeout(ctx, uploadTimeout)
	err := u.upload(attempt, info)
	cancel()
	u.uploadEnds()
	if err == nil {
		u.succeeded(info.ID)
		select {
		case done <- info:
			return
		case <-ctx.Done():
		}
	} else if ctx.Err() == nil {
		u.failed(info, err)
	}
	u.unclaim(info.ID)
}

// upload returns nil when the object store has the chunk, whoever put it there.
func (u *Uploader) upload(ctx context.Context, info fs.ChunkInfo) error {
	if info.Size == 0 || info.Size > fs.ChunkMax {
		return fmt.Errorf("%w: it has %d bytes", errContent, info.Size)
	}
	b := make([]byte, recordHeader+int(info.Size))
	n, err := u.o.Chunks.ReadAt(ctx, info, b[recordHeader:], 0)
	if err == nil && (n != int(info.Size) || sha256.Sum256(b[recordHeader:]) != info.ID.Hash) {
		err = fs.ErrCorrupt
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	sealRecord(b, info.ID)
	key := ObjectKey(info.ID)
	err = u.o.Store.Put(ctx, key, b, object.PutOptions{IfAbsent: true})
	if errors.Is(err, object.Exists) {
		return u.settle(ctx, info.ID, key, b)
	}
	return err
}

// settle deals with an object that is there already: put by an earlier run, by
// another node, or by an attempt whose answer was lost (rule R39). If it is the
// chunk, all is well. If it is damaged it is replaced, which cannot hurt anyone:
// the key names hash and generation, so whoever writes it writes these bytes.
func (u *Uploader) settle(ctx context.Context, id fs.ChunkID, key string, b []byte) error {
	got, err := u.o.Store.Get(ctx, key, 0, -1)
	if errors.Is(err, object.NotExist) {
		return &object.Error{Op: object.OpPut, Key: key, Kind: object.Busy, Err: errors.New("an object was there and is gone")}
	}
	if err != nil {
		return err
	}
	if _, err = openRecord(got, id); err == nil || errors.Is(err, fs.ErrNotSupported) {
		return err
	}
	u.o.Log.Error("an object in the bucket was damaged and is replaced", "key", key, "error", err)
	if err := u.o.Store.Put(ctx, key, b, object.PutOptions{}); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status.Repaired++
	return nil
}

// mark records chunks as durable, several at a time, until done is closed. It
// asks again until the answer is yes: the object is there, that will not change.
func (u *Uploader) mark(ctx context.Context, done <-chan fs.ChunkInfo) {
	for first := range done {
		batch := collect(first, done)
		ids := make([]fs.ChunkID, len(batch))
		bytes := uint64(0)
		for i, info := range batch {
			ids[i] = info.ID
			bytes += uint64(info.Size)
		}
		pause := u.o.BackoffMin
		for {
			err := u.o.Backlog.MarkDurable(ctx, ids)
			if err == nil {
				u.marked(len(ids), bytes)
				break
			}
			if ctx.Err() == nil {
				u.note(fmt.Errorf("record %d chunks as durable: %w", len(ids), err))
			}
			if !sleep(ctx, pause) {
				break
			}
			pause = min(2*pause, u.o.BackoffMax)
		}
		u.unclaim(ids...)
	}
}

// collect waits a little for company of first.
func collect(first fs.ChunkInfo, done <-chan fs.ChunkInfo) []fs.ChunkInfo {
	batch := []fs.ChunkInfo{first}
	linger := time.NewTimer(markLinger)
	defer linger.Stop()
	for len(batch) < markMax {
		select {
		case info, ok := <-done:
			if !ok {
				return batch
			}
			batch = append(batch, info)
		case <-linger.C:
			return batch
		}
	}
	return batch
}
