package archive

import (
	"context"
	"errors"
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
