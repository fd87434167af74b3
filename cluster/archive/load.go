package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Backup is what a bucket holds of a cluster.
type Backup struct {
	Owner   Owner
	Version string // of OWNER, for TakeOver
	// Alive is when the cluster gave its last sign in the bucket, by the store's
	// clock; zero: never.
	Alive time.Time

	store  object.Store
	epochs []uint64 // with snapshots or log, ascending
}

// ErrEmpty means that there is nothing in the bucket to restore from.
var ErrEmpty = errors.New("there is no snapshot of a cluster's metadata in the bucket")

// Open looks what is in the bucket. ErrEmpty if it has no owner.
func Open(ctx context.Context, st object.Store) (*Backup, error) {
	o, version, err := ReadOwner(ctx, st)
	if err != nil {
		return nil, err
	}
	if version == "" {
		return nil, fmt.Errorf("%w, and no %s either", ErrEmpty, OwnerKey)
	}
	b := &Backup{Owner: o, Version: version, store: st}
	sign := func(at time.Time) {
		if at.After(b.Alive) {
			b.Alive = at
		}
	}
	if !o.Restored {
		info, err := st.Stat(ctx, OwnerKey)
		if err != nil {
			return nil, err
		}
		sign(info.Modified)
	}
	for _, prefix := range []string{snapPrefix, logPrefix} {
		for info, err := range st.List(ctx, prefix, "") {
			if err != nil {
				return nil, err
			}
			p, ok := parseKey(info.Key)
			if !ok {
				continue
			}
			sign(info.Modified)
			if !slices.Contains(b.epochs, p.epoch) {
				b.epochs = append(b.epochs, p.epoch)
			}
		}
	}
	slices.Sort(b.epochs)
	return b, nil
}

// Target takes what Load reads. An error of its methods ends Load, but for
// ErrDamaged of StateDone and Apply, which say that the bytes cannot be used, and
// ErrEnough of Apply.
type Target interface {
	// Begin makes an empty state, in place of one that was begun before.
	Begin(m *Manifest) error
	// Record takes the next record of the state; k and v are the callee's.
	Record(k, v []byte) error
	// StateDone tells that the state is whole. It is compared with m.
	StateDone(m *Manifest) error
	// Apply takes the next entry of the log.
	Apply(e Entry) error
}

// ErrEnough is Apply's answer if the entry is beyond what shall be restored.
var ErrEnough = errors.New("the entry is later than what is wanted")

// LoadOptions for Load; the zero value restores the newest state.
type LoadOptions struct {
	// Index and Time bound the snapshots that are considered; Target.Apply bounds
	// the log.
	Index fs.Index
	Time  time.Time
	// Progress is told of every object read: what it is, its number from 1, of how many.
	Progress func(what string, n, of int)
}

// Loaded is what was restored.
type Loaded struct {
	Cluster  string // whose state it is
	Epoch    uint64
	Snapshot fs.Index
	Index    fs.Index // of the last entry covered
	Term     uint64
	Written  time.Time // when the last piece of it was put into the bucket
	Segments int
	// Problems are what was found damaged or missing on the way, each a sentence.
	Problems []string
}

// Load gives target the newest state that is whole: the newest sound snapshot, and
// behind it the log as far as it is linked without a gap. What it could not use is
// in Problems. ErrEmpty if there is no sound snapshot.
func (b *Backup) Load(ctx context.Context, target Target, o LoadOptions) (*Loaded, error) {
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	r := &Loaded{}
	problem := func(format string, a ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, a...)) }
	for _, epoch := range slices.Backward(b.epochs) {
		if epoch > b.Owner.Epoch {
			continue // of a restore that was given up
		}
		snaps, err := manifests(ctx, b.store, "", epoch, func(key string, err error) { problem("snapshot %s: %v", key, err) })
		if err != nil {
			return nil, err
		}
		for _, m := range slices.Backward(snaps) {
			if o.Index > 0 && m.Index > o.Index || !o.Time.IsZero() && m.Time.After(o.Time) {
				continue
			}
			err := b.loadState(ctx, target, m, o)
			if errors.Is(err, ErrDamaged) || errors.Is(err, object.NotExist) {
				problem("snapshot %s: %v; an older one is used", manifestKey(m.Epoch, m.Index), err)
				continue
			}
			if err != nil {
				return nil, err
			}
			r.Cluster, r.Epoch, r.Snapshot, r.Index, r.Term, r.Written = m.Cluster, m.Epoch, m.Index, m.Index, m.Term, m.Time
			return r, b.loadLog(ctx, target, m, o, r, problem)
		}
		if len(snaps) == 0 {
			problem("epoch %d has no sound snapshot; the epoch before it is used", epoch)
		}
	}
	if len(r.Problems) > 0 {
		return nil, fmt.Errorf("%w that can be used: %v", ErrEmpty, r.Problems)
	}
	return nil, ErrEmpty
}

// loadState gives target a snapshot.
func (b *Backup) loadState(ctx context.Context, target Target, m *Manifest, o LoadOptions) error {
	if err := target.Begin(m); err != nil {
		return err
	}
	keys := make([]string, len(m.Parts))
	for i, p := range m.Parts {
		keys[i] = p.Key
	}
	err := b.fetch(ctx, keys, func(i int, got []byte, err error) error {
		if err != nil {
			return fmt.Errorf("part %s: %w", keys[i], err)
		}
		if hashOf(got) != m.Parts[i].Sum {
			return fmt.Errorf("part %s: %w", keys[i], ErrDamaged)
		}
		h, err := readPart(got, target.Record)
		if err == nil && (h.Cluster != m.Cluster || h.Epoch != m.Epoch || h.Index != m.Index || h.Part != i) {
			err = damaged("it is part %d of the state at %d", h.Part, h.Index)
		}
		if err != nil {
			return fmt.Errorf("part %s: %w", keys[i], err)
		}
		o.Progress("snapshot", i+1, len(keys))
		return nil
	})
	if err != nil {
		return err
	}
	return target.StateDone(m)
}

// walk is the log behind a snapshot on its way to a target.
type walk struct {
	b      *Backup
	target Target
	m      *Manifest
	o      LoadOptions
	r      *Loaded
}

// loadLog gives target the log behind a snapshot.
func (b *Backup) loadLog(ctx context.Context, target Target, m *Manifest, o LoadOptions, r *Loaded, problem func(string, ...any)) error {
	w := &walk{b: b, target: target, m: m, o: o, r: r}
	trouble, err := w.follow(ctx)
	if err == nil && trouble != "" {
		trouble, err = w.salvage(ctx, trouble)
	}
	if errors.Is(err, ErrEnough) {
		return nil
	}
	if trouble != "" {
		problem("%s", trouble)
	}
	return err
}

// segments lists the segments of the epoch from an index on.
func (w *walk) segments(ctx context.Context, from fs.Index) (keys []string, firsts []fs.Index, err error) {
	after := ""
	if from > 0 {
		after = segmentKey(w.m.Epoch, from-1)
	}
	for info, err := range w.b.store.List(ctx, epochDir(logPrefix, w.m.Epoch), after) {
		if err != nil {
			return nil, nil, err
		}
		if p, ok := parseKey(info.Key); ok && p.segment {
			keys, firsts = append(keys, info.Key), append(firsts, p.index)
		}
	}
	return keys, firsts, nil
}

// errTrouble ends a walk; what it met is told beside it.
var errTrouble = errors.New("the log cannot be followed further")

// follow goes along the chain that the snapshot names. trouble says why it ended
// before the last segment; "" if it did not.
func (w *walk) follow(ctx context.Context) (trouble string, err error) {
	var c chain
	c.resume(w.m)
	keys, firsts, err := w.segments(ctx, c.next)
	if err != nil {
		return "", err
	}
	err = w.b.fetch(ctx, keys, func(i int, got []byte, err error) error {
		if firsts[i] < c.next {
			return nil // of a leader that came too late
		}
		seg, err := w.open(got, err)
		if err == nil {
			err = c.check(w.m.Cluster, w.m.Epoch, &seg.Head)
		}
		if err == nil {
			err = w.apply(seg)
		}
		switch {
		case firsts[i] > c.next:
			trouble = fmt.Sprintf("the log has a gap: entries from %d are missing; segment %s and what follows cannot be used", c.next, keys[i])
			return errTrouble
		case errors.Is(err, ErrDamaged), errors.Is(err, object.NotExist):
			trouble = fmt.Sprintf("segment %s: %v; it and the %d behind it cannot be used", keys[i], err, len(keys)-1-i)
			return errTrouble
		case err != nil:
			return fmt.Errorf("segment %s: %w", keys[i], err)
		}
		c.follow(&seg.Head, hashOf(got))
		w.o.Progress("log", i+1, len(keys))
		return nil
	})
	if errors.Is(err, errTrouble) {
		return trouble, nil
	}
	if err != nil {
		return "", err
	}
	return w.overlap(ctx, c.next)
}

// overlap looks whether one of the last segments reaches beyond what was restored,
// although it begins before the chain's end: another leader's, of the same moment.
func (w *walk) overlap(ctx context.Context, next fs.Index) (trouble string, err error) {
	keys, firsts, err := w.segments(ctx, 0)
	if err != nil {
		return "", err
	}
	from := max(0, len(keys)-fetchAtOnce)
	err = w.b.fetch(ctx, keys[from:], func(i int, got []byte, err error) error {
		if seg, err := w.open(got, err); err == nil && firsts[from+i] < next && seg.Last > w.r.Index {
			trouble = fmt.Sprintf("segment %s does not fit the others and cannot be used", keys[from+i])
		}
		return nil
	})
	return trouble, err
}

func (w *walk) open(got []byte, err error) (*Segment, error) {
	if err != nil {
		return nil, err
	}
	return decodeSegment(got)
}

// apply gives target what a segment has beyond what it was given.
func (w *walk) apply(seg *Segment) error {
	for _, e := range seg.Log {
		if e.Index <= w.r.Index {
			continue
		}
		if e.Term < w.r.Term {
			return damaged("entry %d is of term %d, the one before of %d", e.Index, e.Term, w.r.Term)
		}
		if err := w.target.Apply(e); err != nil {
			return err
		}
		w.r.Index, w.r.Term = e.Index, e.Term
	}
	w.r.Index, w.r.Written = max(w.r.Index, seg.Last), seg.Time
	w.r.Segments++
	return nil
}

// salvage goes through all segments of the epoch when the snapshot's own chain has
// ended in trouble. Two leaders at the same time may have begun two runs of
// segments, and either's touch what was restored so far; each is whole in itself
// and of this cluster's log, so it goes on. It returns the trouble, if anything
// remains of it, or says that a segment was used that no other vouches for.
func (w *walk) salvage(ctx context.Context, trouble string) (string, error) {
	keys, firsts, err := w.segments(ctx, 0)
	if err != nil {
		return "", err
	}
	var beyond []fs.Index                             // segments that could not be used
	linked := map[string]fs.Index{w.m.Prev: w.m.Next} // by hash of a segment: where the next one begins
	stray := ""
	err = w.b.fetch(ctx, keys, func(i int, got []byte, err error) error {
		seg, err := w.open(got, err)
		if err == nil && (seg.First != firsts[i] || seg.Cluster != w.m.Cluster || seg.Epoch != w.m.Epoch) {
			err = ErrDamaged
		}
		switch {
		case errors.Is(err, ErrDamaged), errors.Is(err, object.NotExist):
			beyond = append(beyond, firsts[i])
			return nil
		case err != nil:
			return fmt.Errorf("segment %s: %w", keys[i], err)
		}
		isLinked := seg.First == seg.Base || linked[seg.Prev] == seg.First
		if isLinked {
			linked[hashOf(got)] = seg.Last + 1
		}
		if seg.Last <= w.r.Index {
			return nil
		}
		if seg.First > w.r.Index+1 {
			beyond = append(beyond, seg.First)
			return nil
		}
		if !isLinked && stray == "" {
			stray = fmt.Sprintf("segment %s was used although it does not name the one before it as it is", keys[i])
		}
		err = w.apply(seg)
		if errors.Is(err, ErrDamaged) {
			beyond = append(beyond, w.r.Index+1)
			return errTrouble
		}
		return err
	})
	if errors.Is(err, errTrouble) {
		err = nil
	}
	if !slices.ContainsFunc(beyond, func(first fs.Index) bool { return first > w.r.Index }) {
		trouble = stray
	}
	return trouble, err
}

// fetchAtOnce is how many objects are read at the same time; each has a few MiB.
const fetchAtOnce = 8

// fetch reads objects, several at once, and calls f for each in order, with the
// error of its reading, until f fails.
func (b *Backup) fetch(ctx context.Context, keys []string, f func(i int, got []byte, err error) error) error {
	for from := 0; from < len(keys); from += fetchAtOnce {
		some := keys[from:min(from+fetchAtOnce, len(keys))]
		got, errs := make([][]byte, len(some)), make([]error, len(some))
		var g errgroup.Group
		for i, key := range some {
			g.Go(func() error {
				got[i], errs[i] = get(ctx, b.store, key)
				return nil
			})
		}
		g.Wait() // it has no error: they are in errs, each for its object
		for i := range some {
			if err := f(from+i, got[i], errs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
