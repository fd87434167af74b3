package cache

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
)

// TestReadersShareOneFetch: a hundred readers, one fetch.
func TestReadersShareOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.gate = make(chan struct{})
		b := content(1, 100_000)
		mustPut(t, c.disks["b"], b, false)
		tier := tierOf(t, c, "a", nil)
		info := infoOf(b, 1, "b")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				p := make([]byte, 1000)
				n, err := tier.ReadAt(t.Context(), info, p, int64(i)*1000)
				wantBytes(t, "read", p[:n], err, b[i*1000:(i+1)*1000])
			})
		}
		synctest.Wait() // all wait for the one
		close(c.gate)
		wg.Wait()
		if n := c.fetched(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		if s := tier.Stats(); s.FillsPeer != 1 || s.ReadsFilled != 100 || s.FillBytes != 100_000 {
			t.Errorf("stats %+v", s)
		}
		if len(tier.flights) != 0 {
			t.Error("a flight never lands")
		}
	})
}

// TestFlightThatComesTooLate: a reader that looked at the disk just before
// another reader's fetch was stored there does not fetch again.
func TestFlightThatComesTooLate(t *testing.T) {
	c := newCluster(t, "a", "b")
	tier := tierOf(t, c, "a", nil)
	b := content(1, 1000)
	mustPut(t, c.disks["a"], b, false)
	got, err := tier.fill(t.Context(), infoOf(b, 1, "b"), fs.ErrNotFound)
	wantBytes(t, "fill", got, err, b)
	if n := c.fetched(); n != 0 {
		t.Errorf("%d fetches", n)
	}
}

// TestChunkMovesWhileItIsRead: the reader's plan is older than the upload of the chunk,
// or its move to another pack, and the copies that it knows of are gone.
func TestChunkMovesWhileItIsRead(t *testing.T) {
	b := content(1, 1000)
	var old, now pack.Builder
	was := infoOf(b, 1, "b")
	now.Add(infoOf(content(2, 500), 2).ID, content(2, 500))
	for _, p := range []*pack.Builder{&old, &now} {
		if !p.Add(was.ID, b) {
			t.Fatal("no room")
		}
	}
	place := func(id fs.PackID, p *pack.Builder) fs.Place {
		e := p.Entries()[len(p.Entries())-1]
		return fs.Place{Pack: id, Off: e.Off, Len: e.Len}
	}
	gone, there := pack.NewID(), pack.NewID()
	is, packed := was, was
	is.Durable, is.Place = true, place(there, &now)
	packed.Durable, packed.Place = true, place(gone, &old)
	st := mem.New()
	if err := st.Put(t.Context(), pack.Key(there), now.Finish(there), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		plan  fs.ChunkInfo
		known []fs.ChunkInfo
		asks  int // of the metadata
		ok    bool
	}{
		{"uploaded", was, []fs.ChunkInfo{is}, 1, true},
		{"moved", packed, []fs.ChunkInfo{is}, 1, true},
		{"as it was", packed, []fs.ChunkInfo{packed}, 1, false},
		{"not uploaded", was, []fs.ChunkInfo{was}, 1, false},
		{"not cited any more", packed, nil, 1, false},
		{"found at once", is, []fs.ChunkInfo{is}, 0, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			asks := 0
			tier := tierOf(t, newCluster(t, "a", "b"), "a", func(o *TierOptions) {
				o.Store = st
				o.Chunks = func(fs.Hash) ([]fs.ChunkInfo, error) { asks++; return row.known, nil }
			})
			got, err := read(t.Context(), tier, row.plan)
			if row.ok {
				wantBytes(t, "read", got, err, b)
			} else {
				wantKind(t, "read", err, fs.ErrIO)
			}
			if failed := tier.Stats().FillsFailed; asks != row.asks || (failed == 0) != row.ok {
				t.Errorf("%d questions, want %d; %d failures", asks, row.asks, failed)
			}
		})
	}
}

// TestInterruptedReader: the reader that does the work for all is interrupted;
// the others are not.
func TestInterruptedReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		b := content(1, 1000)
		mustPut(t, c.disks["b"], b, false)
		c.set("b", hangs)
		tier := tierOf(t, c, "a", nil)
		info := infoOf(b, 1, "b")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := read(ctx, tier, info)
			wantKind(t, "the interrupted reader", err, fs.ErrInterrupted)
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				got, err := read(t.Context(), tier, info)
				wantBytes(t, "another reader", got, err, b)
			})
		}
		wg.Go(func() {
			_, err := read(ctx, tier, info)
			wantKind(t, "a waiting reader that is interrupted", err, fs.ErrInterrupted)
		})
		synctest.Wait()
		c.set("b", 0)
		cancel()
		wg.Wait()
		if n := c.fetched(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// TestSlowNodeIsNotWaitedFor: a node that hangs costs the first reader the hedge
// and the next ones nothing.
func TestSlowNodeIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		c.set("b", hangs)
		tier := tierOf(t, c, "a", nil)
		for i, want := range []time.Duration{hedgeAfter, 0} {
			b := content(i, 1000)
			mustPut(t, c.disks["c"], b, false)
			start := time.Now()
			got, err := read(t.Context(), tier, infoOf(b, 1, "b"))
			wantBytes(t, "read", got, err, b)
			if took := time.Since(start); took != want {
				t.Errorf("read %d took %v, want %v", i, took, want)
			}
		}
		time.Sleep(suspectFor)
		if tier.suspects.has("b") {
			t.Error("a suspicion never ends")
		}
	})
}

// TestReadEndsWhileEverythingHangs: by the limits of its parts, with an error
// that says so.
func TestReadEndsWhileEverythingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		c.set("b", hangs)
		c.set("c", hangs)
		st := faulty.New(mem.New())
		st.Inject(faulty.Fault{Do: faulty.Hang})
		tier := tierOf(t, c, "a", func(o *TierOptions) { o.Store = st })
		start := time.Now()
		_, err := read(t.Context(), tier, infoOf(content(1, 10), 1, "b"))
		wantKind(t, "read", err, fs.ErrIO)
		if took := time.Since(start); took > storeTimeout+hedgeAfter*3 {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = read(ctx, tier, infoOf(content(1, 10), 1, "b"))
		wantKind(t, "read with a deadline", err, fs.ErrIO)
	})
}
