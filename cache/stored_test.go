package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
)

// packed is a node with an empty disk and a bucket with one pack of n chunks.
type packed struct {
	tier     *Tier
	st       *faulty.Store
	infos    []*fs.ChunkInfo
	contents [][]byte
}

func newPacked(t *testing.T, n, size int) *packed {
	t.Helper()
	c := newCluster(t, "a")
	p := &packed{st: faulty.New(mem.New())}
	p.tier = tierOf(t, c, "a", func(o *TierOptions) { o.Store = p.st })
	for i := range n {
		b := content(i, size)
		info := infoOf(b, fs.Index(i+1))
		p.infos, p.contents = append(p.infos, &info), append(p.contents, b)
	}
	packUp(t, p.st, p.infos, p.contents...)
	return p
}

func (p *packed) want(t *testing.T, i int) {
	t.Helper()
	got, err := read(t.Context(), p.tier, *p.infos[i])
	wantBytes(t, fmt.Sprint("chunk ", i), got, err, p.contents[i])
}

// gets counts the reads of the store so far.
func (p *packed) gets() (n int) {
	for _, c := range p.st.Calls() {
		if c.Op == object.OpGet {
			n++
		}
	}
	return n
}

// TestOneChunkOfAPack costs one request of its own length.
func TestOneChunkOfAPack(t *testing.T) {
	p := newPacked(t, 100, 10_000)
	p.want(t, 70)
	if n := p.gets(); n != 1 {
		t.Errorf("%d requests", n)
	}
	if p.tier.ranges.bytes != 0 || len(p.tier.ranges.ranges) != 0 {
		t.Errorf("%d bytes of one chunk are kept", p.tier.ranges.bytes)
	}
}

// TestManyChunksOfAPack: in any order, by one reader or by many at a time, they
// cost a few requests for windows.
func TestManyChunksOfAPack(t *testing.T) {
	for _, readers := range []int{1, 8} {
		t.Run(fmt.Sprint(readers), func(t *testing.T) {
			p := newPacked(t, 400, 10_000) // 4 MB
			var wg sync.WaitGroup
			next := make(chan int)
			for range readers {
				wg.Go(func() {
					for i := range next {
						p.want(t, i)
					}
				})
			}
			for _, i := range rand.Perm(400) {
				next <- i
			}
			close(next)
			wg.Wait()
			// The first of each reader may be alone; then four windows, and one
			// each for the three chunks that lie across their borders.
			if n := p.gets(); n > readers+4+3 {
				t.Errorf("%d requests", n)
			}
			if got := p.tier.ranges.bytes; got > 5<<20 {
				t.Errorf("%d bytes are kept of a pack of 4 MB", got)
			}
		})
	}
}

// TestWindowsAreBoundedInSizeAndTime.
func TestWindowsAreBoundedInSizeAndTime(t *testing.T) {
	var s rangeSet
	now := time.Now()
	at := func(pack, off int) fs.Place { return fs.Place{Pack: fs.PackID{byte(pack)}, Off: uint32(off), Len: 100} }
	load := func(pack, off int) *rangeRead {
		r, mine := s.join(at(pack, off), now)
		if mine {
			s.read(r, make([]byte, r.end-r.off), nil, false)
		}
		return r
	}
	for pack := range 10 {
		if load(pack, 0).window {
			t.Error("the first chunk of a pack makes a window")
		}
		for i := range 4 {
			if !load(pack, i<<20).window {
				t.Error("the second one does not")
			}
		}
	}
	if s.bytes > aheadMax || s.bytes < aheadMax/2 || len(s.ranges) != s.bytes>>20 {
		t.Errorf("%d bytes in %d windows are kept", s.bytes, len(s.ranges))
	}
	if r := load(9, 3<<20+500); !r.window || r.off != 3<<20 {
		t.Errorf("%+v", r)
	}
	now = now.Add(aheadFor)
	if load(9, 0).window || s.bytes != 0 || len(s.last) != 1 {
		t.Errorf("later: %d bytes, %d packs", s.bytes, len(s.last))
	}
}

// TestDamagedWindow: damage on the way to a window costs its chunks one request
// more each, no error.
func TestDamagedWindow(t *testing.T) {
	p := newPacked(t, 50, 10_000)
	p.want(t, 0)
	p.st.Inject(faulty.Fault{Op: object.OpGet, Times: 1, Do: faulty.FlipBit}) // in the middle: chunk 25
	p.want(t, 25)
	p.want(t, 26)
}

// TestInterruptedWindow: the reader that does the work gives up; those who wait
// for it do not.
func TestInterruptedWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacked(t, 50, 10_000)
		p.want(t, 0)
		p.st.Inject(faulty.Fault{Op: object.OpGet, Times: 1, Do: faulty.Hang})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := read(ctx, p.tier, *p.infos[1]); fs.KindOf(err) != fs.ErrInterrupted {
				t.Errorf("interrupted: %v", err)
			}
		})
		synctest.Wait()
		for i := 2; i < 6; i++ {
			wg.Go(func() { p.want(t, i) })
		}
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}
