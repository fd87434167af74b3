package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Source is the cluster's log and state on this node. Package cluster implements it.
type Source interface {
	// Leading tells the term in which this node leads, and whether it does.
	Leading() (term uint64, ok bool)
	// UUID is the cluster's.
	UUID() string
	// Applied is this node's state's index. A leader has applied all that was
	// committed before its term.
	Applied() fs.Index
	// Stable is the index up to which everything may be shown (S).
	Stable() fs.Index
	// Entries returns the command entries from from to to, not many more than max
	// bytes of them, and the index up to which they are all. ErrCompacted if the
	// log begins behind from.
	Entries(from, to fs.Index, max int) (log []Entry, last fs.Index, err error)
	// Export hands out a state: begin with its index and hash, then f for each
	// record. It ends with the first error.
	Export(begin func(at fs.Index, hash uint64) error, f func(k, v []byte) error) error
	// RecordShipped gets into the log how far the bucket is; best effort.
	RecordShipped(index, oldest fs.Index)
}

// ErrCompacted means that the log does not have these entries any more.
var ErrCompacted = errors.New("the log has been compacted beyond these entries")

// ErrDiverged means that the bucket has a log that is not this cluster's, under
// its name: its nodes were rolled back to an older state, all of them.
var ErrDiverged = errors.New("the bucket has entries that this cluster has not: its nodes were rolled back to an older state. Stop it and restore from the bucket, or give it another object.url")

// Options for New. Store, Source, Owner and SpoolDir are required.
type Options struct {
	Store  object.Store
	Source Source
	Owner  *Ownership
	// SpoolDir holds a snapshot between being read from the state, which must be
	// quick, and being put into the bucket. Run empties it; it is made when needed.
	SpoolDir string
	Name     string // of the cluster
	Node     string
	// Interval is the time between two segments; default 1 s.
	Interval time.Duration
	// SegmentBytes is the size at which a segment ends; default 4 MiB.
	SegmentBytes int
	// SnapshotEvery and SnapshotBytes are the time and the amount of log after
	// which a snapshot is made, if anything has changed; defaults 10 min, 64 MiB.
	SnapshotEvery time.Duration
	SnapshotBytes int64
	// Keep is how many snapshots stay in the bucket; default 4, at least 1.
	Keep int
	// Backoff is the pause after a failed snapshot; default 30 s.
	Backoff time.Duration
	Log     *slog.Logger
}

func (o *Options) setDefaults() {
	def := func(ok bool, set func()) {
		if !ok {
			set()
		}
	}
	def(o.Interval > 0, func() { o.Interval = time.Second })
	def(o.SegmentBytes > 0, func() { o.SegmentBytes = 4 << 20 })
	def(o.SnapshotEvery > 0, func() { o.SnapshotEvery = 10 * time.Minute })
	def(o.SnapshotBytes > 0, func() { o.SnapshotBytes = 64 << 20 })
	def(o.Keep > 0, func() { o.Keep = 4 })
	def(o.Backoff > 0, func() { o.Backoff = 30 * time.Second })
	def(o.Log != nil, func() { o.Log = slog.New(slog.DiscardHandler) })
}

// Times of a Shipper.
const (
	callMax     = time.Minute     // for one object, retries included
	recordEvery = 5 * time.Second // between two entries that say how far the bucket is
	attachOften = 10              // times as often as a snapshot the bucket is looked at again
)

// Shipper puts log and snapshots into the bucket while this node leads.
type Shipper struct {
	o Options

	mu     sync.Mutex
	status Status
}

// Status is for metrics and status pages.
type Status struct {
	Active   bool      // this node leads and knows where the bucket's log ends
	Shipped  fs.Index  // the bucket has the log up to here; 0: not known
	Snapshot fs.Index  // the newest one in the bucket; 0: none known
	Oldest   fs.Index  // the oldest one: no state before it can be restored
	CaughtUp time.Time // everything that could be shown then is in the bucket; zero: not known

	Segments, SegmentBytes   uint64 // shipped by this process
	Snapshots, SnapshotBytes uint64

	LastError    error // stays
	FailingSince time.Time
}

// New makes a Shipper. It starts nothing; see Run.
func New(o Options) *Shipper {
	o.setDefaults()
	return &Shipper{o: o}
}

// Status reads the numbers.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Shipper) update(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Run ships until ctx ends, through every failure.
func (s *Shipper) Run(ctx context.Context) error {
	if err := os.RemoveAll(s.o.SpoolDir); err != nil {
		s.o.Log.Warn("what an earlier run has left in the archive's spool cannot be removed", "err", err)
	}
	var l *lead
	defer func() { l.end() }()
	tick := time.NewTicker(s.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		l = s.step(ctx, l)
	}
}

// step does what is due now. l is what is known of the bucket from the steps
// before in this term; the result is what the next step gets.
func (s *Shipper) step(ctx context.Context, l *lead) *lead {
	term, leads := s.o.Source.Leading()
	epoch := s.o.Owner.Epoch()
	if !leads || epoch == 0 || s.o.Owner.Fenced() != nil {
		l.end()
		s.update(func(st *Status) { st.Active, st.FailingSince = false, time.Time{} })
		return nil
	}
	if l == nil || l.term != term || l.lost {
		l.end()
		l = newLead(s, term, epoch, s.o.Source.UUID())
	}
	err := l.step(ctx)
	if ctx.Err() != nil {
		return l
	}
	s.note(err)
	return l
}

// note keeps and reports the first failure of a row, and its end.
func (s *Shipper) note(err error) {
	var began, ended bool
	s.update(func(st *Status) {
		switch {
		case err != nil:
			st.LastError = err
			if began = st.FailingSince.IsZero(); began {
				st.FailingSince = time.Now()
			}
		case !st.FailingSince.IsZero():
			st.FailingSince, ended = time.Time{}, true
		}
	})
	switch {
	case began && errors.Is(err, ErrDiverged):
		s.o.Log.Error("ALARM: the log is not shipped", "err", err)
	case began:
		s.o.Log.Warn("the log cannot be shipped to the bucket; it is tried again", "err", err)
	case ended:
		s.o.Log.Info("the log is shipped to the bucket again")
	}
}

// lead is the shipper's work in one term: what it knows of the bucket.
type lead struct {
	s       *Shipper
	term    uint64
	epoch   uint64
	cluster string

	attached bool
	lost     bool // what is known is wrong: begin again
	chain    chain
	snaps    []*Manifest // in the bucket, oldest first
	sinceRaw int64       // bytes of log shipped since the newest
	changed  bool        // anything shipped since the newest
	made     time.Time   // of the newest

	idleAt    fs.Index // S when there was nothing worth a segment
	job       *job
	jobErr    error     // of the last job
	tryAt     time.Time // not before: attach
	notBefore time.Time // of the next snapshot
	recorded  time.Time // when RecordShipped was called last, and with what
	index     fs.Index
	oldest    fs.Index
}

func newLead(s *Shipper, term, epoch uint64, cluster string) *lead {
	return &lead{s: s, term: term, epoch: epoch, cluster: cluster}
}

// end stops the snapshot under way, and waits for that.
func (l *lead) end() {
	if l != nil && l.job != nil {
		l.job.stop()
		l.job = nil
	}
}

func (l *lead) step(ctx context.Context) error {
	if !l.attached {
		if time.Now().Before(l.tryAt) {
			return l.jobErr
		}
		if err := l.attach(ctx); err != nil {
			l.jobErr, l.tryAt = err, time.Now().Add(l.s.o.Backoff/attachOften)
			return err
		}
		l.jobErr = nil
		l.attached = true
		l.s.o.Log.Debug("shipping", "term", l.term, "epoch", l.epoch, "chain", l.chain.String(), "snapshots", len(l.snaps))
	}
	l.reap()
	if l.due() {
		l.startJob(ctx)
	}
	err := l.ship(ctx)
	l.publish(ctx)
	if err == nil {
		err = l.jobErr
	}
	return err
}

// publish tells how far the bucket is.
func (l *lead) publish(ctx context.Context) {
	shipped, snapshot, oldest := l.reach()
	l.s.update(func(st *Status) {
		st.Active, st.Shipped, st.Snapshot, st.Oldest = true, shipped, snapshot, oldest
	})
	fresh := shipped > l.index && time.Since(l.recorded) >= recordEvery
	if shipped > 0 && (fresh || oldest > l.oldest) && ctx.Err() == nil {
		l.recorded, l.index, l.oldest = time.Now(), shipped, oldest
		l.s.o.Source.RecordShipped(shipped, oldest)
	}
}

// reach is what could be restored from the bucket now.
func (l *lead) reach() (shipped, snapshot, oldest fs.Index) {
	if len(l.snaps) == 0 {
		return 0, 0, 0
	}
	newest := l.snaps[len(l.snaps)-1]
	shipped, snapshot, oldest = newest.Index, newest.Index, l.snaps[0].Index
	if l.chain.known() && l.chain.anchored(l.snaps) {
		shipped = max(shipped, l.chain.next-1)
	}
	return shipped, snapshot, oldest
}

// attach finds out what is in the bucket.
func (l *lead) attach(ctx context.Context) error {
	st := l.s.o.Store
	snaps, err := manifests(ctx, st, l.cluster, l.epoch, func(key string, err error) {
		l.s.o.Log.Error("a snapshot in the bucket cannot be used", "key", key, "err", err)
	})
	if err != nil {
		return err
	}
	l.snaps = snaps
	if n := len(snaps); n > 0 {
		l.made = snaps[n-1].Time
		l.chain.resume(snaps[n-1])
	}
	last, err := lastSegment(ctx, st, l.epoch, l.chain.next)
	if err != nil || last == 0 || last < l.chain.next {
		return err
	}
	b, err := l.get(ctx, segmentKey(l.epoch, last))
	if err != nil {
		return err
	}
	seg, err := decodeSegment(b)
	if err != nil || seg.First != last || seg.Cluster != l.cluster || seg.Epoch != l.epoch {
		l.s.o.Log.Error("the last segment of the log in the bucket cannot be used; a snapshot takes its place", "key", segmentKey(l.epoch, last), "err", err)
		l.chain = chain{}
		return nil
	}
	l.chain.follow(&seg.Head, hashOf(b))
	l.changed = true
	if l.chain.next-1 > l.s.o.Source.Applied() {
		return fmt.Errorf("%w (up to %d; applied here: %d)", ErrDiverged, l.chain.next-1, l.s.o.Source.Applied())
	}
	return l.compare(seg)
}

// compare finds out that this cluster's log is another one than the bucket's.
func (l *lead) compare(seg *Segment) error {
	log, last, err := l.s.o.Source.Entries(seg.First, seg.Last, bodyMax)
	if errors.Is(err, ErrCompacted) {
		return nil
	}
	if err != nil {
		return err
	}
	mine := &Segment{Head: Head{First: seg.First, Last: last}, Log: log}
	if !seg.agrees(mine) {
		return fmt.Errorf("%w (entries %d to %d)", ErrDiverged, seg.First, seg.Last)
	}
	return nil
}

func (l *lead) get(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return l.s.o.Store.Get(ctx, key, 0, -1)
}

// ship puts what is stable and not in the bucket yet into segments.
func (l *lead) ship(ctx context.Context) error {
	began := time.Now()
	stable := l.s.o.Source.Stable()
	for l.chain.known() && l.chain.next <= stable && stable != l.idleAt && !l.lost {
		log, last, err := l.s.o.Source.Entries(l.chain.next, stable, l.s.o.SegmentBytes)
		if errors.Is(err, ErrCompacted) {
			l.s.o.Log.Warn("the log was compacted before the bucket had it; a snapshot takes its place", "from", l.chain.next)
			l.chain = chain{}
			return nil
		}
		if err != nil {
			return err
		}
		if last >= stable && idle(log) {
			l.idleAt = stable
			break
		}
		if err := l.put(ctx, log, last); err != nil {
			return err
		}
	}
	if l.chain.known() && l.chain.anchored(l.snaps) {
		l.s.update(func(st *Status) { st.CaughtUp = began })
	}
	return nil
}

func idle(log []Entry) bool {
	for _, e := range log {
		if !e.Idle {
			return false
		}
	}
	return true
}

// put ships one segment.
func (l *lead) put(ctx context.Context, log []Entry, last fs.Index) error {
	seg := &Segment{Log: log, Head: Head{
		Cluster: l.cluster, Epoch: l.epoch, First: l.chain.next, Last: last, Prev: l.chain.prev, Base: l.chain.base,
		Node: l.s.o.Node, Time: time.Now().UTC(),
	}}
	b, err := seg.encode()
	if err != nil {
		return err
	}
	pctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	err = l.s.o.Store.Put(pctx, segmentKey(l.epoch, seg.First), b, object.PutOptions{IfAbsent: true})
	if errors.Is(err, object.Exists) {
		return l.settle(ctx, seg)
	}
	if err != nil {
		return err
	}
	l.advance(&seg.Head, hashOf(b))
	l.s.update(func(st *Status) { st.Segments++; st.SegmentBytes += uint64(len(b)) })
	return nil
}

func (l *lead) advance(h *Head, sum string) {
	l.chain.follow(h, sum)
	l.sinceRaw += int64(h.Raw)
	l.changed = true
}

// settle deals with a segment that is there already: of an attempt whose answer
// was lost, or of another leader (rule R39). If it is the same piece of the same
// log, the chain goes on behind it.
func (l *lead) settle(ctx context.Context, mine *Segment) error {
	key := segmentKey(l.epoch, mine.First)
	b, err := l.get(ctx, key)
	if err != nil {
		return err
	}
	theirs, err := decodeSegment(b)
	switch {
	case errors.Is(err, ErrDamaged):
		l.s.o.Log.Error("a segment of the log in the bucket is damaged; a snapshot takes its place", "key", key, "err", err)
		l.chain = chain{}
		return nil
	case err != nil:
		return err
	}
	if theirs.Cluster != l.cluster || theirs.Epoch != l.epoch {
		if err := l.s.o.Owner.Confirm(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w: it is of cluster %s in epoch %d", key, ErrDamaged, theirs.Cluster, theirs.Epoch)
	}
	if !theirs.agrees(mine) {
		return fmt.Errorf("%w (%s)", ErrDiverged, key)
	}
	if theirs.Prev != l.chain.prev { // it follows something that this node has not seen
		l.lost = true
		return nil
	}
	l.advance(&theirs.Head, hashOf(b))
	return nil
}
