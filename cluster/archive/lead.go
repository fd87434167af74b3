package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

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
	older    bool        // states of older epochs may be in the bucket, too
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

// reach is what could be restored from the bucket now. Nothing is known of how far
// the states of older epochs go back.
func (l *lead) reach() (shipped, snapshot, oldest fs.Index) {
	if len(l.snaps) == 0 {
		return 0, 0, 0
	}
	newest := l.snaps[len(l.snaps)-1]
	shipped, snapshot, oldest = newest.Index, newest.Index, l.snaps[0].Index
	if l.chain.known() && l.chain.anchored(l.snaps) {
		shipped = max(shipped, l.chain.next-1)
	}
	if l.older {
		oldest = 0
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
	if l.older, err = hasOlder(ctx, st, l.epoch); err != nil {
		return err
	}
	if n := len(snaps); n > 0 {
		l.made = snaps[n-1].Time
		l.chain.resume(snaps[n-1])
	}
	last, err := lastSegment(ctx, st, l.epoch, l.chain.next)
	if err != nil || last == 0 || last < l.chain.next {
		return err
	}
	b, err := l.get(ctx, segmentKey(l.epoch, last))
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	var seg *Segment
	if err == nil {
		seg, err = decodeSegment(b)
	}
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
	return get(ctx, l.s.o.Store, key)
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
	var theirs *Segment
	b, err := l.get(ctx, key)
	if err == nil {
		theirs, err = decodeSegment(b)
	}
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
