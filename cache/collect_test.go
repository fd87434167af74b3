package cache

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
)

// collecting runs f on fake time with a world in which nothing runs, and a
// collector.
func collecting(t *testing.T, f func(t *testing.T, w *world, c *Collector)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c, err := NewCollector(CollectorOptions{Store: w.faults, Ledger: w, Chunks: w, Grace: worldGrace, Pinned: func() (fs.Index, error) {
			if w.pinned == 0 {
				return 0, errors.New("nobody knows")
			}
			return w.pinned, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		f(t, w, c)
	})
}

// fill writes n files of 1000 bytes that do not compress and packs them. It
// returns the pack.
func (w *world) fill(n int) fs.PackID {
	w.t.Helper()
	var b pack.Builder
	op := fs.StorePack{Pack: pack.NewID()}
	for i := range n {
		p := content(i, 1000)
		cut := uint64(0)
		w.must(fs.Publish{Ino: w.files[i], Cut: &cut, Pieces: []fs.Piece{{Len: 1000, Data: p}}})
		w.want[w.files[i]] = p
		info, _ := w.cited(w.files[i])
		b.Add(info.ID, p)
		e := b.Entries()[i]
		op.Chunks = append(op.Chunks, fs.Placed{Chunk: e.ID, Off: e.Off, Len: e.Len})
	}
	obj := b.Finish(op.Pack)
	op.Size = uint32(len(obj))
	if err := w.bucket.Put(w.t.Context(), pack.Key(op.Pack), obj, object.PutOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.must(op)
	return op.Pack
}

func (w *world) empty(files ...fs.Ino) {
	for _, ino := range files {
		w.must(fs.SetAttr{Ino: ino, Mask: fs.SetSize})
		delete(w.want, ino)
	}
}

func (w *world) round(c *Collector, dry bool) Report {
	w.t.Helper()
	r, err := c.Round(w.t.Context(), dry)
	if err != nil {
		w.t.Fatal(err)
	}
	w.check()
	w.sound()
	return r
}

// TestRounds follows a pack of eight chunks: six die, the others move, all of
// it goes when its time has come. A dry run before each round says the same and
// changes nothing.
func TestRounds(t *testing.T) {
	collecting(t, func(t *testing.T, w *world, c *Collector) {
		id := w.fill(8)
		both := func() Report {
			t.Helper()
			before, hash := w.objects(), w.state.StateHash()
			dry := w.round(c, true)
			if w.objects() != before || w.state.StateHash() != hash || !dry.DryRun {
				t.Error("a dry run changed something")
			}
			r := w.round(c, false)
			dry.DryRun, dry.Began, dry.TookS = false, r.Began, r.TookS
			// What it condemns makes packs compactable.
			dry.LiveBytes, dry.Compactable, dry.Moved = r.LiveBytes, r.Compactable, r.Moved
			if dry != r {
				t.Errorf("the dry run said\n%+v, the round\n%+v", dry, r)
			}
			return r
		}
		r := both()
		if r.Chunks != 8 || r.Packs.Count != 1 || r.Dead.Count != 0 || r.Compactable.Count != 0 || r.LiveBytes < 8000 {
			t.Errorf("all is alive: %+v", r)
		}
		w.empty(w.files[:6]...)
		if r := both(); r.Dead.Count != 6 || r.Dead.Bytes < 6000 || r.Deletable.Count != 0 || r.Compactable.Count != 1 || r.Compactable.Bytes < 6000 || r.Moved.Count != 2 {
			t.Errorf("six are dead, two move: %+v", r)
		}
		if r := both(); r.Condemned.Count != 6 || r.Waiting.Count != 1 || r.Packs.Count != 2 || r.Compactable.Count != 0 || r.Moved.Count != 0 {
			t.Errorf("the old pack waits: %+v", r)
		}
		w.pinned = 1
		time.Sleep(worldGrace)
		if r := both(); r.Deletable.Count != 0 || r.Waiting.Count != 1 {
			t.Errorf("a kept state may need it: %+v", r)
		}
		w.pinned = 0
		if _, err := c.Round(t.Context(), false); err == nil || w.objects() != 2 {
			t.Errorf("nobody knows what is kept: %v, %d objects", err, w.objects())
		}
		w.pinned = ^fs.Index(0)
		r = both()
		if r.Deletable.Count != 1 || r.Condemned.Count != 6 || w.objects() != 1 {
			t.Errorf("its time has come: %+v", r)
		}
		if _, known, _ := w.state.Pack(id); known {
			t.Error("the old pack is still known")
		}
		if r := both(); r.Condemned.Count+r.Dead.Count+r.Waiting.Count+r.Deletable.Count+r.Orphaned.Count != 0 || r.Packs.Count != 1 {
			t.Errorf("afterwards: %+v", r)
		}
		if n := c.Totals(); n.Condemned != 6 || n.Forgotten != 6 || n.Deleted != 1 || n.Moved != 2 || n.Failed != 1 {
			t.Errorf("%+v", n)
		}
		if c.Last().Began.IsZero() || c.Last().DryRun {
			t.Errorf("%+v", c.Last())
		}
	})
}

// TestObjectsOfTheFirstReleases: a chunk with an object of its own.
func TestObjectsOfTheFirstReleases(t *testing.T) {
	collecting(t, func(t *testing.T, w *world, c *Collector) {
		b := content(1, 1000)
		w.must(fs.Publish{Ino: w.files[0], Pieces: []fs.Piece{{Len: 1000, Data: b}}})
		info, _ := w.cited(w.files[0])
		upload(t, w.bucket, info, b)
		w.must(fs.MarkDurable{Chunks: []fs.ChunkID{info.ID}})
		w.empty(w.files[0])
		w.round(c, false)
		if r := w.round(c, false); r.Waiting.Count != 1 || r.Waiting.Bytes != 1000 || w.objects() != 1 {
			t.Errorf("%+v", r)
		}
		time.Sleep(worldGrace)
		w.faults.Inject(faulty.Fault{Op: object.OpDelete, Do: faulty.LoseAnswer, Times: 1})
		if _, err := c.Round(t.Context(), false); err == nil {
			t.Error("a lost answer is no failure")
		}
		if _, known, _ := w.Chunk(info.ID); !known {
			t.Error("forgotten before it was sure that the object is gone")
		}
		if r := w.round(c, false); r.Deletable.Count != 1 || w.objects() != 0 {
			t.Errorf("%+v", r)
		}
		if _, known, _ := w.Chunk(info.ID); known {
			t.Error("still known")
		}
	})
}

// TestChunksThatWereNeverUploaded are condemned and forgotten all the same.
func TestChunksThatWereNeverUploaded(t *testing.T) {
	collecting(t, func(t *testing.T, w *world, c *Collector) {
		b := content(1, 1000)
		w.must(fs.Publish{Ino: w.files[0], Pieces: []fs.Piece{{Len: 1000, Hash: hashOf(b), ChunkLen: 1000, Holders: []fs.NodeID{"a"}}}})
		w.empty(w.files[0])
		if r := w.round(c, false); r.Dead.Count != 1 || r.Dead.Bytes != 0 {
			t.Errorf("%+v", r)
		}
		time.Sleep(worldGrace)
		w.round(c, false)
		if r := w.round(c, false); r.Chunks != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestOrphans: an object that nobody recorded stays for the grace, is condemned
// by name, and stays for the grace again.
func TestOrphans(t *testing.T) {
	collecting(t, func(t *testing.T, w *world, c *Collector) {
		id := pack.NewID()
		for _, key := range []string{pack.Key(id), "p/00/notours", "q/other"} {
			if err := w.bucket.Put(t.Context(), key, []byte("x"), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if r := w.round(c, false); r.Orphaned.Count != 0 {
			t.Errorf("at once: %+v", r)
		}
		time.Sleep(worldGrace)
		if r := w.round(c, true); r.Orphaned.Count != 1 || r.Orphaned.Bytes != 1 {
			t.Errorf("dry: %+v", r)
		}
		if r := w.round(c, false); r.Orphaned.Count != 1 || w.objects() != 3 {
			t.Errorf("old enough: %+v", r)
		}
		time.Sleep(worldGrace)
		if r := w.round(c, false); r.Deletable.Count != 1 || w.objects() != 2 {
			t.Errorf("condemned: %+v", r)
		}
	})
}

// TestDamageIsNotMoved: what cannot be read stays where it is.
func TestDamageIsNotMoved(t *testing.T) {
	for name, at := range map[string]int{"index": -10, "chunk": 7*1064 + 500} {
		t.Run(name, func(t *testing.T) {
			collecting(t, func(t *testing.T, w *world, c *Collector) {
				key := pack.Key(w.fill(8))
				w.empty(w.files[:7]...)
				b, err := w.bucket.Get(t.Context(), key, 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				b[(at+len(b))%len(b)] ^= 1
				if err := w.bucket.Put(t.Context(), key, b, object.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				r, err := c.Round(t.Context(), false)
				if err != nil || r.Compactable.Count != 1 || r.Moved.Count != 0 || w.objects() != 1 {
					t.Errorf("%+v, %v, %d objects", r, err, w.objects())
				}
			})
		})
	}
}

// TestCollectorRuns: only while its node leads, and through failures.
func TestCollectorRuns(t *testing.T) {
	collecting(t, func(t *testing.T, w *world, c *Collector) {
		w.fill(8)
		w.empty(w.files[:8]...)
		lead := &follower{world: w}
		c.o.Ledger = lead
		w.faults.Inject(faulty.Fault{Op: object.OpList, Kind: object.Unreachable})
		stop := running(t, c.Run)
		time.Sleep(time.Hour)
		if w.objects() != 1 || !c.Last().Began.IsZero() {
			t.Errorf("a node that does not lead collects: %+v", c.Last())
		}
		lead.leads.Store(true)
		time.Sleep(time.Hour)
		if w.objects() != 0 || !strings.Contains(c.Last().Error, "list packs") || c.Totals().Failed < 5 {
			t.Errorf("%d objects, %+v, %+v", w.objects(), c.Last(), c.Totals())
		}
		stop()
	})
}

// follower is a world whose node leads or does not.
type follower struct {
	*world
	leads atomic.Bool
}

func (f *follower) Leads() bool { return f.leads.Load() }

func TestNewCollectorRefuses(t *testing.T) {
	if _, err := NewCollector(CollectorOptions{}); err == nil {
		t.Error("a collector without anything is made")
	}
}
