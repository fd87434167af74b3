package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// world is a cluster's log, with whoever leads it now. Its state at an index is
// the entries up to there, as records.
type world struct {
	mu     sync.Mutex
	uuid   string
	log    []Entry // entry i has Index i+1; Data nil: no command
	start  fs.Index
	stable fs.Index
	term   uint64

	shipped, oldest fs.Index // as recorded
	exports, reads  int      // calls of Export and Entries
}

func newWorld(uuid string) *world { return &world{uuid: uuid, start: 1, term: 1} }

// write appends entries and makes them stable.
func (w *world) write(data ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range data {
		e := Entry{Index: fs.Index(len(w.log) + 1), Term: w.term, Data: []byte(d), Idle: d == "idle"}
		if d == "" {
			e.Data = nil
		}
		w.log = append(w.log, e)
	}
	w.stable = fs.Index(len(w.log))
}

// compact drops entries below at from the log, not from the state.
func (w *world) compact(at fs.Index) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.start = max(w.start, at)
}

func (w *world) elect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.term++
}

func (w *world) end() fs.Index {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fs.Index(len(w.log))
}

// node is a member that believes to lead in a term.
type node struct {
	*world
	term uint64
}

func (n *node) Leading() (uint64, bool) { return n.term, n.term > 0 }
func (n *node) UUID() string            { return n.uuid }
func (n *node) Applied() fs.Index       { return n.end() }
func (n *node) Stable() fs.Index {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stable
}

func (n *node) Entries(from, to fs.Index, limit int) (log []Entry, last fs.Index, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reads++
	if from < n.start {
		return nil, 0, ErrCompacted
	}
	size := 0
	for last = from - 1; last < to && int(last) < len(n.log) && size < limit; last++ {
		if e := n.log[last]; e.Data != nil {
			log, size = append(log, e), size+len(e.Data)
		}
	}
	return log, last, nil
}

func (n *node) Export(begin func(fs.Index, uint64) error, f func(k, v []byte) error) error {
	n.mu.Lock()
	log := n.log
	n.exports++
	n.mu.Unlock()
	if err := begin(fs.Index(len(log)), stateHash(log)); err != nil {
		return err
	}
	for _, e := range log {
		if e.Data == nil {
			continue
		}
		if err := f(binary.BigEndian.AppendUint64(nil, uint64(e.Index)), e.Data); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) RecordShipped(index, oldest fs.Index) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shipped, n.oldest = max(n.shipped, index), max(n.oldest, oldest)
}

func stateHash(log []Entry) uint64 {
	h := fnv.New64a()
	for _, e := range log {
		fmt.Fprintf(h, "%d %q\n", e.Index, e.Data)
	}
	return h.Sum64()
}

// leader is a shipper with what it knows, stepped by hand.
type leader struct {
	*Shipper
	n *node
	l *lead
}

// lead makes a leader of w's present term that ships into st.
func (w *world) lead(t testing.TB, st object.Store, change ...func(*Options)) *leader {
	t.Helper()
	n := &node{world: w, term: w.term}
	o := Options{
		Store: st, Source: n, SpoolDir: t.TempDir(), Name: "shop", Node: fmt.Sprintf("web%d", n.term),
		SegmentBytes: 64, SnapshotBytes: 200, Keep: 2, Backoff: time.Nanosecond,
		Owner: NewOwnership(OwnershipOptions{Store: st, UUID: n.UUID, Leads: func() bool { return true }, Name: "shop", Node: "web1"}),
	}
	for _, f := range change {
		f(&o)
	}
	le := &leader{Shipper: New(o), n: n}
	t.Cleanup(func() { le.l.end() })
	return le
}

// tick is one step, and the end of a snapshot that it began.
func (le *leader) tick(ctx context.Context) {
	if le.o.Owner.Epoch() == 0 {
		le.o.Owner.Confirm(ctx)
	}
	le.l = le.step(ctx, le.l)
	if le.l != nil && le.l.job != nil {
		<-le.l.job.done
		le.l.reap()
		le.l.publish(ctx)
	}
}

// restored is a Target that keeps what it is given.
type restored struct {
	records map[fs.Index][]byte
	states  int
	stop    fs.Index // Apply says ErrEnough from here on
}

func (r *restored) Begin(*Manifest) error {
	r.records = map[fs.Index][]byte{}
	return nil
}

func (r *restored) Record(k, v []byte) error {
	r.records[fs.Index(binary.BigEndian.Uint64(k))] = bytes.Clone(v)
	return nil
}

func (r *restored) StateDone(*Manifest) error { r.states++; return nil }

func (r *restored) Apply(e Entry) error {
	if r.stop > 0 && e.Index >= r.stop {
		return ErrEnough
	}
	r.records[e.Index] = bytes.Clone(e.Data)
	return nil
}

// load restores and compares: what comes out must be w's state at an index.
func (w *world) load(t testing.TB, st object.Store) *Loaded {
	t.Helper()
	r, _ := w.loadInto(t, st, &restored{}, LoadOptions{})
	return r
}

func (w *world) loadInto(t testing.TB, st object.Store, to *restored, o LoadOptions) (*Loaded, *restored) {
	t.Helper()
	b, err := Open(t.Context(), st)
	if err != nil {
		t.Fatalf("open the bucket: %v", err)
	}
	r, err := b.Load(t.Context(), to, o)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	want := 0
	for _, e := range w.log {
		if e.Index > r.Index || e.Data == nil {
			continue
		}
		want++
		if got, ok := to.records[e.Index]; !ok || !bytes.Equal(got, e.Data) {
			t.Fatalf("restored up to %d, but entry %d is %q instead of %q", r.Index, e.Index, got, e.Data)
		}
	}
	if want != len(to.records) {
		t.Fatalf("restored %d entries up to %d, want %d", len(to.records), r.Index, want)
	}
	return r, to
}

// wantAll fails unless a restore gives everything that was written, without a complaint.
func (w *world) wantAll(t testing.TB, st object.Store) {
	t.Helper()
	r := w.load(t, st)
	if end := w.end(); r.Index < end || len(r.Problems) > 0 {
		t.Fatalf("restored up to %d of %d; problems: %q", r.Index, end, r.Problems)
	}
}
