package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/retry"
)

// Times of the world's garbage, all of them fake.
const (
	worldGrace = 20 * time.Second
	worldLife  = 10 * time.Second
	worldEvery = 3 * time.Second
)

// world is the real metadata, uploaders and collectors over a bucket in memory
// that can fail, a log that can lose answers, and disks that forget what they
// may. There are two of each kind at work, as after a change of the leader that
// the old one has not noticed.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	state  *meta.State
	bucket *mem.Store
	faults *faulty.Store
	reader *Tier // for what is in the bucket
	stop   []func()

	mu     sync.Mutex
	disk   map[fs.Hash][]byte
	lose   int // so many proposals fail after they were applied
	refuse int // so many are not even applied
	pinned fs.Index
	done   Totals // by collectors that have ended

	files []fs.Ino
	want  map[fs.Ino][]byte
	snaps []snapshot
}

// snapshot is a state that somebody may go back to: what the bucket had of it.
type snapshot struct {
	at     fs.Index
	chunks []fs.ChunkInfo
}

var (
	_ Backlog   = (*world)(nil)
	_ Ledger    = (*world)(nil)
	_ fs.Chunks = (*world)(nil)
)

func newWorld(t *testing.T, seed uint64) *world {
	s, err := meta.Open(meta.NewMemKV())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), state: s, bucket: mem.New(), disk: map[fs.Hash][]byte{}, want: map[fs.Ino][]byte{}, pinned: ^fs.Index(0)}
	w.faults = faulty.New(w.bucket)
	w.reader = &Tier{store: w.faults}
	for i := range 12 {
		r := w.must(fs.Create{Parent: 1, Name: fmt.Sprint("f", i), Mode: 0o644})
		w.files = append(w.files, r.Attr.Ino)
	}
	return w
}

// apply is the log: one entry per operation.
func (w *world) apply(op fs.Op) fs.Result {
	res, _, err := w.state.Apply(w.state.Applied()+1, []fs.Command{{Now: fs.TimeOf(time.Now()), Op: op}})
	if err != nil {
		w.t.Fatal(err)
	}
	return res[0]
}

func (w *world) must(op fs.Op) fs.Result {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.apply(op)
	if r.Kind != fs.OK {
		w.t.Fatalf("%s: %v", meta.OpName(op), r.Kind)
	}
	return r
}

// worldLate is the longest way to the log. A pack that took longer from its upload
// to its record than twice the grace could be gone: no session lives that long
// without a word.
const worldLate = 25 * time.Second

func (w *world) propose(ctx context.Context, op fs.Op) error {
	late := time.Duration(rand.IntN(500)) * time.Millisecond
	if rand.IntN(30) == 0 {
		late = worldLate - rand.N(worldLate)*time.Duration(rand.IntN(2))
	}
	if !sleep(ctx, late) {
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse > 0 {
		w.refuse--
		return errors.New("no leader")
	}
	r := w.apply(op)
	if w.lose > 0 {
		w.lose--
		return errors.New("no answer")
	}
	return meta.ResultError(op, r)
}

func (w *world) StorePack(ctx context.Context, op fs.StorePack) error { return w.propose(ctx, op) }
func (w *world) Condemn(ctx context.Context, op fs.Condemn) error     { return w.propose(ctx, op) }
func (w *world) Forget(ctx context.Context, op fs.Forget) error       { return w.propose(ctx, op) }
func (w *world) Leads() bool                                          { return true }
func (w *world) Mine(fs.ChunkInfo) bool                               { return true }

func (w *world) UncitedChunks(after fs.ChunkID, n int) ([]fs.ChunkInfo, int, fs.ChunkID, error) {
	return w.state.UncitedChunks(after, n)
}

func (w *world) Packs(after fs.PackID, n int) ([]fs.PackInfo, error) { return w.state.Packs(after, n) }
func (w *world) Pack(id fs.PackID) (fs.PackInfo, bool, error)        { return w.state.Pack(id) }

func (w *world) Chunk(id fs.ChunkID) (info fs.ChunkInfo, ok bool, err error) {
	err = w.state.Read(func(v fs.View) error {
		info, err = v.Chunk(id)
		return err
	})
	if fs.KindOf(err) == fs.ErrNotFound {
		return info, false, nil
	}
	return info, err == nil, err
}

func (w *world) Undurable(after fs.ChunkID, n int) (list []fs.ChunkInfo, err error) {
	us, err := w.state.Undurable(after, n)
	for _, u := range us {
		if info, ok, _ := w.Chunk(u.Info.ID); ok {
			list = append(list, info)
		}
	}
	return list, err
}

// ReadAt reads from the log, the disks, the bucket.
func (w *world) ReadAt(ctx context.Context, info fs.ChunkInfo, p []byte, off int64) (int, error) {
	w.mu.Lock()
	b := w.disk[info.ID.Hash]
	w.mu.Unlock()
	if info.Inline != nil {
		b = info.Inline
	}
	if b == nil {
		var err error
		if b, err = w.reader.fetchStored(ctx, info); err != nil {
			return 0, err
		}
	}
	return copy(p, b[off:]), nil
}

func (w *world) Put(context.Context, []byte, bool) (fs.Hash, []fs.NodeID, error) {
	return fs.Hash{}, nil, fs.ErrNotSupported
}

// start starts two uploaders and two collectors.
func (w *world) start() {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	for range 2 {
		st := retry.New(w.faults, retry.Options{Attempts: 2})
		up, err := NewUploader(UploaderOptions{Store: st, Backlog: w, Chunks: w, Life: worldLife,
			BackoffMin: 100 * time.Millisecond, BackoffMax: 500 * time.Millisecond})
		if err != nil {
			w.t.Fatal(err)
		}
		col, err := NewCollector(CollectorOptions{Store: st, Ledger: w, Chunks: w, Grace: worldGrace, Every: worldEvery, Pinned: func() (fs.Index, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.pinned, nil
		}})
		if err != nil {
			w.t.Fatal(err)
		}
		wg.Go(func() { _ = up.Run(ctx) })
		wg.Go(func() {
			_ = col.Run(ctx)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.done.add(col.Totals())
		})
	}
	w.stop = []func(){cancel, wg.Wait}
}

func (t *Totals) add(x Totals) {
	t.Condemned += x.Condemned
	t.Forgotten += x.Forgotten
	t.Deleted += x.Deleted
	t.Moved += x.Moved
	t.Failed += x.Failed
}

// kill ends them wherever they are. What a crash would lose, they lose.
func (w *world) kill() {
	for _, f := range w.stop {
		f()
	}
	w.stop = nil
}

// text is one of some contents that come again and again.
func (w *world) text() []byte {
	i := w.rnd.IntN(40)
	return content(i, 200+i*60)
}

func (w *world) step() {
	ino := w.files[w.rnd.IntN(len(w.files))]
	switch n := w.rnd.IntN(100); {
	case n < 40:
		w.write(ino)
	case n < 50:
		w.must(fs.SetAttr{Ino: ino, Mask: fs.SetSize})
		delete(w.want, ino)
	case n < 60:
		w.copy(ino, w.files[w.rnd.IntN(len(w.files))])
	case n < 70:
		w.evict()
	case n < 75:
		w.snap()
	case n < 80:
		if len(w.snaps) > 0 {
			w.snaps = w.snaps[1:]
			w.pin()
		}
	case n < 82:
		w.kill()
		w.start()
	case n < 90:
		w.fault()
	default:
		time.Sleep(time.Duration(w.rnd.IntN(3000)) * time.Millisecond)
	}
	time.Sleep(time.Duration(w.rnd.IntN(400)) * time.Millisecond)
}

// write gives ino another content, which travels in the log or lies on a disk.
func (w *world) write(ino fs.Ino) {
	b := w.text()
	p := fs.Piece{Len: uint64(len(b)), Data: b}
	cut := uint64(0)
	op := fs.Publish{Ino: ino, Cut: &cut}
	w.mu.Lock()
	if w.rnd.IntN(2) == 0 {
		h := fs.Hash(sha256.Sum256(b))
		w.disk[h] = b
		p.Data, p.Hash, p.ChunkLen, p.Holders = nil, h, uint32(len(b)), []fs.NodeID{"a"}
	}
	w.mu.Unlock()
	op.Pieces = []fs.Piece{p}
	w.must(op)
	w.want[ino] = b
}

// copy shares content, as copy_file_range does, with a source that may be gone by
// then.
func (w *world) copy(from, to fs.Ino) {
	info, ok := w.cited(from)
	if !ok || info.Inline != nil || from == to {
		return
	}
	if w.rnd.IntN(3) == 0 {
		delete(w.want, from)
		w.must(fs.SetAttr{Ino: from, Mask: fs.SetSize})
		time.Sleep(time.Duration(w.rnd.IntN(6000)) * time.Millisecond)
	}
	cut := uint64(0)
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.apply(fs.Publish{Ino: to, Cut: &cut, Pieces: []fs.Piece{{Len: uint64(info.Size), Hash: info.ID.Hash, ChunkLen: info.Size}}})
	switch r.Kind {
	case fs.OK:
		w.want[to] = nil
		for i := range 40 { // the text with this hash
			if b := content(i, 200+i*60); sha256.Sum256(b) == info.ID.Hash {
				w.want[to] = b
			}
		}
	case fs.ErrInvalid: // it is gone: copied by reading and writing
	default:
		w.t.Fatalf("share: %v", r.Kind)
	}
}

// evict lets the disks forget what they are not bound to keep.
func (w *world) evict() {
	w.mu.Lock()
	defer w.mu.Unlock()
	us, err := w.state.Undurable(fs.ChunkID{}, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	keep := map[fs.Hash]bool{}
	for _, u := range us {
		keep[u.Info.ID.Hash] = true
	}
	for h := range w.disk {
		if !keep[h] {
			delete(w.disk, h)
		}
	}
}

func (w *world) snap() {
	defer w.pin()
	w.mu.Lock() // no entry meanwhile
	defer w.mu.Unlock()
	s := snapshot{at: w.state.Applied()}
	for _, ino := range w.files {
		if info, ok := w.cited(ino); ok && info.Durable {
			s.chunks = append(s.chunks, info)
		}
	}
	w.snaps = append(w.snaps, s)
}

func (w *world) pin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pinned = ^fs.Index(0)
	if len(w.snaps) > 0 {
		w.pinned = w.snaps[0].at
	}
}

func (w *world) fault() {
	w.mu.Lock()
	w.lose, w.refuse = w.rnd.IntN(2), w.rnd.IntN(2)
	w.mu.Unlock()
	fault := func(op object.Op, do faulty.Action, kind object.Kind) {
		w.faults.Inject(faulty.Fault{Op: op, Times: 1 + w.rnd.IntN(3), Do: do, Kind: kind})
	}
	switch w.rnd.IntN(9) {
	case 8:
		w.faults.Inject(faulty.Fault{Op: object.OpPut, Kind: object.Busy}) // until it heals
	case 0:
		fault(object.OpPut, faulty.LoseAnswer, 0)
	case 1:
		fault(object.OpDelete, faulty.LoseAnswer, 0)
	case 2:
		fault("", faulty.Fail, object.Busy)
	case 3:
		fault(object.OpGet, faulty.FlipBit, 0)
	case 4:
		fault(object.OpDelete, faulty.Fail, object.Credentials)
	case 5:
		fault(object.OpList, faulty.Fail, object.Unreachable)
	default:
		w.faults.Heal()
	}
}

// cited is the one chunk of a file.
func (w *world) cited(ino fs.Ino) (info fs.ChunkInfo, ok bool) {
	err := w.state.Read(func(v fs.View) error {
		x, err := v.Extents(ino, 0, 1<<20)
		if err != nil || len(x) == 0 {
			return err
		}
		info, err = v.Chunk(x[0].Chunk)
		ok = err == nil
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return info, ok
}

// check: every file can be read, and so can every kept state.
func (w *world) check() {
	w.t.Helper()
	w.mu.Lock() // no entry and no eviction meanwhile
	defer w.mu.Unlock()
	for _, ino := range w.files {
		info, ok := w.cited(ino)
		if !ok {
			if w.want[ino] != nil {
				w.t.Fatalf("file %d is empty", ino)
			}
			continue
		}
		b := info.Inline
		switch {
		case info.Durable:
			b = w.inBucket(info, "a file's")
		case b == nil:
			b = w.disk[info.ID.Hash]
		}
		if !bytes.Equal(b, w.want[ino]) {
			w.t.Fatalf("file %d has %d bytes, want %d: %+v", ino, len(b), len(w.want[ino]), info)
		}
	}
	for _, s := range w.snaps {
		for _, info := range s.chunks {
			w.inBucket(info, fmt.Sprintf("the state %d's", s.at))
		}
	}
}

func (w *world) inBucket(info fs.ChunkInfo, whose string) []byte {
	w.t.Helper()
	b, err := w.bucket.Get(context.Background(), pack.Key(info.Place.Pack), int64(info.Place.Off), int64(info.Place.Len))
	if err == nil {
		b, err = pack.Open(b, info.ID)
	}
	if err != nil {
		w.t.Fatalf("%s chunk %+v: %v", whose, info, err)
	}
	return b
}

func (w *world) sound() {
	w.t.Helper()
	if p := w.state.Check(); len(p) > 0 {
		w.t.Fatal(p)
	}
}

// objects counts the bucket.
func (w *world) objects() (n int) {
	for _, err := range w.bucket.List(context.Background(), "", "") {
		if err != nil {
			w.t.Fatal(err)
		}
		n++
	}
	return n
}

func worldSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if v := os.Getenv("CACHE_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d; repeat with CACHE_SEED=%d", seed, seed)
	return seed
}

// TestGarbageNeverTakesWhatIsReachable: 10,000 random steps of writing, sharing,
// emptying, keeping and dropping old states, crashes, lost answers and disks that
// forget. No chunk that a file or a kept state cites is ever missing; and when
// all is given up, nothing stays in the bucket.
func TestGarbageNeverTakesWhatIsReachable(t *testing.T) {
	seed := worldSeed(t)
	steps := 10_000
	if testing.Short() {
		steps = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		w.start()
		for i := range steps {
			w.step()
			if w.check(); i%100 == 0 {
				w.sound()
			}
		}
		w.faults.Heal()
		w.snaps = nil
		w.pin()
		for _, ino := range w.files {
			w.must(fs.SetAttr{Ino: ino, Mask: fs.SetSize})
			delete(w.want, ino)
		}
		before := w.objects()
		time.Sleep(5 * worldGrace)
		w.kill()
		w.sound()
		packs, err := w.state.Packs(fs.PackID{}, 1000)
		dead, _, _, derr := w.state.UncitedChunks(fs.ChunkID{}, 1000)
		if n := w.objects(); n > 0 || len(packs) > 0 || len(dead) > 0 || err != nil || derr != nil {
			t.Errorf("%d objects, %d packs, %d chunks are left, %v %v", n, len(packs), len(dead), err, derr)
		}
		t.Logf("%d objects before the end, %d calls of the store, %+v, %v of fake time", before, len(w.faults.Calls()), w.done, time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)))
		if d := w.done; d.Condemned < uint64(steps)/50 || d.Deleted < uint64(steps)/100 || d.Moved < uint64(steps)/200 || d.Failed == 0 {
			t.Errorf("hardly anything was tried: %+v", d)
		}
	})
}
