package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/retry"
)

func keys(t testing.TB, st object.Store, prefix string) (out []string) {
	t.Helper()
	for info, err := range st.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, info.Key)
	}
	return out
}

func TestShipAndLoad(t *testing.T) {
	w, st := newWorld("c1"), mem.New()
	le := w.lead(t, st)
	w.write("first")
	le.tick(t.Context())
	w.wantAll(t, st)
	for i := range 50 {
		w.write(fmt.Sprintf("entry %d", i), "", strings.Repeat("x", i))
		le.tick(t.Context())
		w.wantAll(t, st)
	}
	s := le.Status()
	if s.Shipped != w.end() || s.Segments == 0 || s.Snapshots < 3 || s.Oldest == 0 || s.Snapshot < s.Oldest || !s.FailingSince.IsZero() {
		t.Errorf("status %+v at the end of a log of %d", s, w.end())
	}
}

// TestNothingChanged: neither a segment nor a snapshot while only the archive's
// own records are written.
func TestNothingChanged(t *testing.T) {
	w, st := newWorld("c1"), mem.New()
	le := w.lead(t, st, func(o *Options) { o.SnapshotEvery = time.Nanosecond })
	w.write("something")
	for range 3 {
		le.tick(t.Context())
	}
	before := keys(t, st, "")
	for range 5 {
		w.write("idle", "")
		le.tick(t.Context())
	}
	reads := w.reads
	le.tick(t.Context())
	if w.reads != reads {
		t.Error("the log is read although nothing was added")
	}
	if after := keys(t, st, ""); !slices.Equal(before, after) {
		t.Errorf("the bucket had %q and has %q", before, after)
	}
	w.write("something else")
	le.tick(t.Context())
	w.wantAll(t, st)
}

// TestLargeState: a snapshot of several parts.
func TestLargeState(t *testing.T) {
	w, st := newWorld("c1"), mem.New()
	chunk := make([]byte, 1<<20)
	for i := range 2*partBytes/len(chunk) + 3 {
		rand.NewChaCha8([32]byte{byte(i)}).Read(chunk)
		w.write(string(chunk))
	}
	w.lead(t, st).tick(t.Context())
	parts := len(keys(t, st, snapPrefix)) - 1
	if parts < 3 {
		t.Errorf("%d parts", parts)
	}
	for _, key := range keys(t, st, snapPrefix) {
		if info, err := st.Stat(t.Context(), key); err != nil || info.Size > 2*partBytes {
			t.Errorf("%s: %+v, %v", key, info, err)
		}
	}
	w.wantAll(t, st)
}

// TestCompactedLog: the store was away until the log did not reach back any more.
func TestCompactedLog(t *testing.T) {
	w, real := newWorld("c1"), mem.New()
	st := faulty.New(real)
	le := w.lead(t, st)
	w.write("a", "b")
	le.tick(t.Context())
	st.Inject(faulty.Fault{Kind: object.Unreachable})
	w.write("c", "d")
	le.tick(t.Context())
	if s := le.Status(); s.FailingSince.IsZero() || s.Shipped != 2 {
		t.Errorf("status while the store is away: %+v", s)
	}
	w.compact(w.end())
	exports := w.exports
	for range 3 {
		le.tick(t.Context())
	}
	if w.exports != exports {
		t.Errorf("the state was read %d times for a store that does not answer", w.exports-exports)
	}
	st.Heal()
	w.write("e")
	for range 3 {
		le.tick(t.Context())
	}
	w.wantAll(t, real)
	w.write("f")
	le.tick(t.Context())
	w.wantAll(t, real)
	if s := le.Status(); !s.FailingSince.IsZero() || s.Shipped != w.end() {
		t.Errorf("status afterwards: %+v", s)
	}
}

// scenario is a life with a bit of everything.
func scenario(t testing.TB, w *world, le *leader, ticks int) {
	t.Helper()
	for i := range ticks {
		w.write(fmt.Sprintf("entry %d of term %d with some content", i, w.term), "", "more")
		le.tick(t.Context())
	}
}

// TestEveryOperationFails: one call fails, whichever; afterwards all is well.
func TestEveryOperationFails(t *testing.T) {
	for _, do := range []struct {
		name string
		f    faulty.Fault
	}{
		{"busy", faulty.Fault{Do: faulty.Fail, Kind: object.Busy}},
		{"unreachable", faulty.Fault{Do: faulty.Fail, Kind: object.Unreachable}},
		{"denied", faulty.Fault{Do: faulty.Fail, Kind: object.Credentials}},
		{"answer lost", faulty.Fault{Do: faulty.LoseAnswer}},
	} {
		t.Run(do.name, func(t *testing.T) {
			for n := 0; ; n++ {
				w, real := newWorld("c1"), mem.New()
				st := faulty.New(real)
				f := do.f
				f.Skip, f.Times = n, 1
				st.Inject(f)
				le := w.lead(t, st)
				scenario(t, w, le, 12)
				for range 3 {
					le.tick(t.Context())
				}
				w.wantAll(t, real)
				if s := le.Status(); s.Shipped != w.end() || !s.FailingSince.IsZero() {
					t.Fatalf("operation %d: status %+v, want %d", n, s, w.end())
				}
				if len(st.Calls()) <= n {
					if n < 30 {
						t.Errorf("the scenario makes %d calls only", n)
					}
					return
				}
			}
		})
	}
}

// TestLeaderDiesAtEveryOperation: what it had promised can be restored as it
// lies there, and the next leader goes on.
func TestLeaderDiesAtEveryOperation(t *testing.T) {
	for _, lost := range []bool{false, true} { // the last call did, or did not, get through
		for n := 0; ; n++ {
			w, real := newWorld("c1"), mem.New()
			st := faulty.New(real)
			if lost {
				st.Inject(faulty.Fault{Skip: n, Times: 1, Do: faulty.LoseAnswer})
				n++
			}
			st.Inject(faulty.Fault{Skip: n, Kind: object.Unreachable})
			le := w.lead(t, st)
			scenario(t, w, le, 10)
			promised := le.Status().Shipped
			le.l.end()
			if promised > 0 {
				if r := w.load(t, real); r.Index < promised || len(r.Problems) > 0 {
					t.Fatalf("dead at call %d: restored up to %d of the promised %d; problems %q", n, r.Index, promised, r.Problems)
				}
			}
			w.elect()
			next := w.lead(t, real)
			scenario(t, w, next, 3)
			w.wantAll(t, real)
			if len(st.Calls()) <= n {
				break
			}
		}
	}
}

// TestTwoLeaders ship at the same time, as a deposed one does that has not noticed.
func TestTwoLeaders(t *testing.T) {
	w, st := newWorld("c1"), mem.New()
	a := w.lead(t, st, func(o *Options) { o.SegmentBytes = 20 })
	w.write("begin")
	a.tick(t.Context())
	w.elect()
	b := w.lead(t, st, func(o *Options) { o.SegmentBytes = 90 })
	for i := range 60 {
		w.write(fmt.Sprintf("entry %d", i))
		for _, le := range []*leader{a, b, a}[i%2 : i%2+2] {
			le.tick(t.Context())
			w.wantAll(t, st)
		}
	}
	for _, le := range []*leader{a, b} {
		if s := le.Status(); s.Shipped != w.end() || !s.FailingSince.IsZero() {
			t.Errorf("%s: %+v, the log ends at %d", le.o.Node, s, w.end())
		}
	}
}

// TestRetention: the bucket does not grow, and what it says it can restore it can.
func TestRetention(t *testing.T) {
	w, st := newWorld("c1"), mem.New()
	le := w.lead(t, st)
	most := 0
	for i := range 60 {
		w.write(fmt.Sprintf("entry %d: %s", i, strings.Repeat("x", 40)))
		le.tick(t.Context())
		most = max(most, len(keys(t, st, "")))
		snaps, objects := 0, 0
		for _, key := range keys(t, st, snapPrefix) {
			if p, ok := parseKey(key); ok && p.manifest {
				m, err := decodeManifest(read(t, st, key))
				if err != nil {
					t.Fatal(err)
				}
				snaps, objects = snaps+1, objects+1+len(m.Parts)
			}
		}
		if have := len(keys(t, st, snapPrefix)); snaps > le.o.Keep || have != objects {
			t.Fatalf("%d snapshots of %d objects in all, but there are %d", snaps, objects, have)
		}
		r, _ := w.loadInto(t, st, &restored{stop: le.Status().Oldest + 1}, LoadOptions{Index: le.Status().Oldest})
		if r.Index != le.Status().Oldest {
			t.Fatalf("the oldest state is said to be %d and is %d", le.Status().Oldest, r.Index)
		}
	}
	if most > 40 {
		t.Errorf("the bucket had up to %d objects", most)
	}
}

// TestOldEpochGoes when the new cluster can be restored twice over.
func TestOldEpochGoes(t *testing.T) {
	w, st := newWorld("c1"), mem.New()
	w.write("a")
	w.lead(t, st).tick(t.Context())
	o, version, err := ReadOwner(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	o.Cluster, o.Epoch, o.Restored = "c2", o.Epoch+1, true
	if err := TakeOver(t.Context(), st, o, version); err != nil {
		t.Fatal(err)
	}
	w.wantAll(t, st) // the new cluster has shipped nothing: what it was made from counts
	w.uuid = "c2"
	le := w.lead(t, st)
	w.write("b")
	le.tick(t.Context())
	if old := keys(t, st, epochDir(snapPrefix, 1)); len(old) == 0 {
		t.Error("the old epoch went with the first snapshot of the new one")
	}
	scenario(t, w, le, 10)
	w.wantAll(t, st)
	if old := append(keys(t, st, epochDir(snapPrefix, 1)), keys(t, st, epochDir(logPrefix, 1))...); len(old) > 0 {
		t.Errorf("left of the old epoch: %q", old)
	}
	if o, _, err := ReadOwner(t.Context(), st); err != nil || o.Restored || o.Epoch != 2 {
		t.Errorf("owner %+v, %v", o, err)
	}
}

// TestOldEpochIsPinned: while a state of an older epoch can be restored, nobody says
// from which one of the new epoch on nothing else can; not after a failure to delete
// it either, nor under the next leader.
func TestOldEpochIsPinned(t *testing.T) {
	w, st := newWorld("c1"), faulty.New(mem.New())
	w.write("a")
	w.lead(t, st).tick(t.Context())
	o, version, err := ReadOwner(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	o.Cluster, o.Epoch, o.Restored = "c2", o.Epoch+1, true
	if err := TakeOver(t.Context(), st, o, version); err != nil {
		t.Fatal(err)
	}
	w.uuid, w.oldest = "c2", 0
	le := w.lead(t, st)
	st.Inject(faulty.Fault{Op: object.OpDelete, Times: 2, Kind: object.Busy})
	pinned := 0
	for i := range 60 {
		w.write(fmt.Sprintf("entry %d of the new epoch, long enough", i))
		if i%7 == 6 {
			w.elect()
			le.l.end()
			le = w.lead(t, st)
		}
		le.tick(t.Context())
		old := append(keys(t, st, epochDir(snapPrefix, 1)), keys(t, st, epochDir(logPrefix, 1))...)
		if len(old) == 0 {
			break
		}
		pinned++
		if s := le.Status(); s.Oldest != 0 || w.oldest != 0 {
			t.Fatalf("the oldest state is said to be %d, recorded as %d, with %d objects of the old epoch", s.Oldest, w.oldest, len(old))
		}
	}
	if s := le.Status(); pinned < 3 || s.Oldest == 0 || w.oldest != s.Oldest {
		t.Errorf("pinned for %d steps; then %d is said to be the oldest, and recorded as %d", pinned, s.Oldest, w.oldest)
	}
}

// TestRolledBack: all nodes are back at an older state; the bucket keeps what it has.
func TestRolledBack(t *testing.T) {
	for _, row := range []struct {
		name string
		log  []string
	}{
		{"shorter", []string{"a"}},
		{"another one", []string{"a", "B", "C", "D"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w, st := newWorld("c1"), mem.New()
			w.write("a")
			le := w.lead(t, st)
			le.tick(t.Context())
			w.write("b", "c")
			le.tick(t.Context())
			before := keys(t, st, "")
			back := newWorld("c1")
			back.write(row.log...)
			le = back.lead(t, st)
			le.tick(t.Context())
			if s := le.Status(); !errors.Is(s.LastError, ErrDiverged) {
				t.Errorf("status %+v", s)
			}
			if after := keys(t, st, ""); !slices.Equal(before, after) {
				t.Errorf("the bucket had %q and has %q", before, after)
			}
		})
	}
}

// TestKeyIsTaken by another segment when a leader puts its own.
func TestKeyIsTaken(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Segment)
		want   error // nil: the leader goes on behind it
	}{
		{"of the same entries", func(*Segment) {}, nil},
		{"shorter", func(s *Segment) { s.Log, s.Last = s.Log[:1], s.Log[0].Index }, nil},
		{"linked to what this leader has not seen", func(s *Segment) { s.Prev = hashOf(nil) }, nil},
		{"of other entries", func(s *Segment) { s.Log[1].Data = []byte("other") }, ErrDiverged},
		{"of another term", func(s *Segment) { s.Log[1].Term++ }, ErrDiverged},
		{"without one of them", func(s *Segment) { s.Log = s.Log[1:] }, ErrDiverged},
		{"of another cluster", func(s *Segment) { s.Cluster = "c2" }, ErrDamaged},
	} {
		t.Run(row.name, func(t *testing.T) {
			w, st := newWorld("c1"), mem.New()
			le := w.lead(t, st)
			w.write("a")
			le.tick(t.Context())
			w.write("b", "c", "d")
			log, last, err := le.n.Entries(2, 4, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			seg := &Segment{Log: log, Head: Head{Cluster: "c1", Epoch: 1, First: 2, Last: last, Prev: le.l.chain.prev, Base: le.l.chain.base}}
			row.change(seg)
			b, err := seg.encode()
			if err != nil {
				t.Fatal(err)
			}
			put(t, st, segmentKey(1, 2), b)
			le.tick(t.Context())
			if row.want != nil {
				if s := le.Status(); !errors.Is(s.LastError, row.want) || s.FailingSince.IsZero() || s.Shipped >= last {
					t.Errorf("status %+v", s)
				}
				return
			}
			le.tick(t.Context())
			if s := le.Status(); s.Shipped != w.end() || !s.FailingSince.IsZero() {
				t.Errorf("status %+v, the log ends at %d", s, w.end())
			}
			if r := w.load(t, st); r.Index != w.end() {
				t.Errorf("restored up to %d of %d; problems %q", r.Index, w.end(), r.Problems)
			}
		})
	}
}

// aged is a bucket whose objects are two hours old.
type aged struct{ *mem.Store }

func (a aged) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		for info, err := range a.Store.List(ctx, prefix, after) {
			info.Modified = info.Modified.Add(-2 * garbageAge)
			if !yield(info, err) {
				return
			}
		}
	}
}

// TestGarbage of a leader that died while it made a snapshot goes, but not what a
// living one is making.
func TestGarbage(t *testing.T) {
	for _, old := range []bool{false, true} {
		st := mem.New()
		var bucket object.Store = st
		if old {
			bucket = aged{st}
		}
		w := newWorld("c1")
		w.write("a")
		le := w.lead(t, bucket)
		le.tick(t.Context())
		garbage := partKey(1, 1, "deadbeef0000", 0)
		put(t, st, garbage, []byte("part"))
		put(t, st, "snap/README", []byte("not ours"))
		w.write(strings.Repeat("b", 500))
		le.tick(t.Context())
		le.tick(t.Context())
		_, err := st.Stat(t.Context(), garbage)
		if gone := errors.Is(err, object.NotExist); gone != old {
			t.Errorf("old: %t, gone: %t", old, gone)
		}
		read(t, st, "snap/README")
		w.wantAll(t, bucket)
	}
}

// TestRandom: leaders come, overlap and die; the store fails; the log is
// compacted. At no time may a restore give less than was promised, or anything
// but a state that was.
func TestRandom(t *testing.T) {
	steps := 1500
	if testing.Short() {
		steps = 400
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w, real := newWorld("c1"), mem.New()
			st := faulty.New(real)
			retried := retry.New(st, retry.Options{Attempts: 2, BackoffMin: time.Nanosecond, BackoffMax: time.Nanosecond})
			small := func(o *Options) { o.SegmentBytes, o.SnapshotBytes = 1+r.IntN(100), int64(50+r.IntN(500)) }
			leaders := []*leader{w.lead(t, retried, small)}
			w.write("begin")
			var promised fs.Index
			for step := range steps {
				switch r.IntN(12) {
				case 0:
					w.elect() // the one before may not have noticed yet
					if leaders = append(leaders, w.lead(t, retried, small)); len(leaders) > 2 {
						leaders[0].l.end()
						leaders = leaders[1:]
					}
				case 1:
					if len(leaders) > 1 {
						leaders[0].l.end()
						leaders = leaders[1:]
					}
				case 2:
					f := faulty.Fault{Skip: r.IntN(3), Times: 1 + r.IntN(6), Do: []faulty.Action{faulty.Fail, faulty.LoseAnswer}[r.IntN(2)]}
					st.Inject(f)
				case 3:
					st.Heal()
				case 4:
					w.compact(w.end() - fs.Index(r.IntN(10)))
				case 5:
					w.write("idle", "")
				default:
					w.write(fmt.Sprintf("%d", step), strings.Repeat("y", r.IntN(50)))
				}
				le := leaders[r.IntN(len(leaders))]
				le.tick(t.Context())
				promised = max(promised, le.Status().Shipped)
				if promised > 0 && step%5 == 0 {
					if got := w.load(t, real); got.Index < promised {
						t.Fatalf("step %d: restored up to %d of the promised %d; problems %q", step, got.Index, promised, got.Problems)
					}
				}
			}
			st.Heal()
			for range 3 {
				leaders[len(leaders)-1].tick(t.Context())
			}
			if got := w.load(t, real); got.Index < w.stable-2 { // idle ones may be left
				t.Errorf("in the end restored up to %d of %d; problems %q", got.Index, w.stable, got.Problems)
			}
		})
	}
}
