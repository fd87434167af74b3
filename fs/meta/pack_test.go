package meta_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// packRig is a file system of files of one chunk each.
type packRig struct {
	*rig
	files []fs.Ino
}

func newPackRig(t testing.TB, files int) *packRig {
	r := &packRig{rig: newRig(t)}
	for i := range files {
		r.files = append(r.files, r.file(1, fmt.Sprint("f", i)))
	}
	return r
}

func (r *packRig) write(i int, text string, holders ...fs.NodeID) fs.Result {
	r.t.Helper()
	p := held(0, text, 0, len(text), holders...)
	return r.do(fs.Publish{Ino: r.files[i], Cut: ptr(0), Pieces: []fs.Piece{p}, Mtime: r.now})
}

func (r *packRig) clear(i int) { r.must(fs.SetAttr{Ino: r.files[i], Mask: fs.SetSize}) }

func (r *packRig) chunk(i int) fs.ChunkInfo {
	r.t.Helper()
	c, err := r.s.View().Chunk(r.extents(r.files[i])[0].Chunk)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *packRig) pack(id fs.PackID) fs.PackInfo {
	r.t.Helper()
	p, _, err := r.s.Pack(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func store(id fs.PackID, chunks ...fs.Placed) fs.StorePack {
	return fs.StorePack{Pack: id, Size: 1000, Chunks: chunks}
}

// TestLifeOfAPack: stored, half dead, moved out of, condemned, forgotten.
func TestLifeOfAPack(t *testing.T) {
	r := newPackRig(t, 3)
	one, two := fs.PackID{1}, fs.PackID{2}
	r.write(0, "aaa", "n1")
	r.write(1, "bbb", "n1")
	a, b := r.chunk(0).ID, r.chunk(1).ID
	r.must(store(one, fs.Placed{Chunk: a, Off: 0, Len: 67}, fs.Placed{Chunk: b, Off: 67, Len: 68}, fs.Placed{Chunk: fs.ChunkID{Gen: 1}, Len: 5}))
	if len(r.keys) > 0 {
		t.Errorf("readers see a difference: %v", r.keys)
	}
	if c := r.chunk(1); !c.Durable || c.Place != (fs.Place{Pack: one, Off: 67, Len: 68}) {
		t.Errorf("%+v", c)
	}
	if list, err := r.s.Undurable(fs.ChunkID{}, 9); err != nil || len(list) > 0 {
		t.Errorf("to be uploaded: %v, %v", list, err)
	}
	// A second upload of the same chunks is dead weight, and its pack too.
	r.must(store(two, fs.Placed{Chunk: a, Len: 67}))
	if p := r.pack(two); p.Live != 0 || p.Condemned == 0 || r.chunk(0).Place.Pack != one {
		t.Errorf("%+v, %+v", p, r.chunk(0))
	}
	// Condemned packs take nothing more.
	r.write(2, "ccc", "n1")
	c := r.chunk(2).ID
	r.must(store(two, fs.Placed{Chunk: c, Len: 67}))
	if r.chunk(2).Durable {
		t.Error("stored in a condemned pack")
	}
	// What is cited is not condemned, what is not comes back until it is.
	r.must(fs.Condemn{Chunks: []fs.ChunkID{a, b}})
	r.clear(0)
	r.write(0, "aaa")
	if got := r.chunk(0); got.ID != a || got.Condemned != 0 {
		t.Errorf("%+v", got)
	}
	r.clear(0)
	r.must(fs.Condemn{Chunks: []fs.ChunkID{a, b}})
	if p := r.pack(one); p.Chunks != 2 || p.Live != 1 || p.LiveBytes != 68 || p.Condemned != 0 {
		t.Errorf("%+v", p)
	}
	if res := r.write(0, "aaa"); res.Kind != fs.ErrInvalid {
		t.Errorf("a condemned chunk is cited without a copy: %v", res.Kind)
	}
	r.write(0, "aaa", "n2")
	if got := r.chunk(0); got.ID.Gen == a.Gen || got.Durable || fmt.Sprint(got.Holders) != "[n2]" {
		t.Errorf("the same bytes again: %+v", got)
	}
	// The live one moves, and only from where it is.
	three := fs.PackID{3}
	r.must(store(three, fs.Placed{Chunk: b, From: two, Off: 5, Len: 68}))
	if r.chunk(1).Place.Pack != one {
		t.Error("moved from where it was not")
	}
	three = fs.PackID{4}
	r.must(store(three, fs.Placed{Chunk: b, From: one, Off: 5, Len: 69}))
	if got := r.chunk(1); got.Place != (fs.Place{Pack: three, Off: 5, Len: 69}) || !got.Durable {
		t.Errorf("%+v", got)
	}
	if p := r.pack(one); p.Chunks != 1 || p.Live != 0 || p.Condemned != r.s.Applied() {
		t.Errorf("%+v", p)
	}
	// A pack goes after the last record of a chunk in it.
	r.must(fs.Forget{Packs: []fs.PackID{one, three}})
	if p := r.pack(one); p.Chunks != 1 {
		t.Errorf("%+v", p)
	}
	r.must(fs.Forget{Chunks: []fs.ChunkID{a, b}, Packs: []fs.PackID{one, three}})
	if _, ok, _ := r.s.Pack(one); ok {
		t.Error("the pack is still known")
	}
	if _, ok, _ := r.s.Pack(three); !ok {
		t.Error("a live pack was forgotten")
	}
	if _, err := r.s.View().Chunk(a); fs.KindOf(err) != fs.ErrNotFound {
		t.Errorf("a forgotten chunk: %v", err)
	}
}

// TestInlineComesBackAsANewGeneration: content in the log, after its chunk was
// condemned.
func TestInlineComesBackAsANewGeneration(t *testing.T) {
	r := newPackRig(t, 1)
	r.must(fs.Publish{Ino: r.files[0], Pieces: []fs.Piece{text(0, "abc")}})
	a := r.chunk(0).ID
	r.must(store(fs.PackID{1}, fs.Placed{Chunk: a, Len: 67}))
	r.clear(0)
	r.must(fs.Condemn{Chunks: []fs.ChunkID{a}})
	r.must(fs.Publish{Ino: r.files[0], Pieces: []fs.Piece{text(0, "abc")}})
	if c := r.chunk(0); c.ID == a || string(c.Inline) != "abc" {
		t.Errorf("%+v", c)
	}
}

// TestOrphanedPack: an object that nobody recorded is condemned by name; who
// uploaded it comes too late then.
func TestOrphanedPack(t *testing.T) {
	r := newPackRig(t, 1)
	r.write(0, "abc", "n1")
	r.must(fs.Condemn{Packs: []fs.PackID{{9}, {}}})
	if p := r.pack(fs.PackID{9}); p.Condemned != r.s.Applied() || p.Size != 0 {
		t.Errorf("%+v", p)
	}
	r.must(store(fs.PackID{9}, fs.Placed{Chunk: r.chunk(0).ID, Len: 67}))
	if r.chunk(0).Durable {
		t.Error("recorded in a condemned pack")
	}
	if list, err := r.s.Packs(fs.PackID{}, 9); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	r.must(fs.Forget{Packs: []fs.PackID{{9}}})
	if list, err := r.s.Packs(fs.PackID{}, 9); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestLostContentComesBack: content that is lost is nobody's, until the same bytes
// are written again, whichever way.
func TestLostContentComesBack(t *testing.T) {
	r := newPackRig(t, 3)
	backlog := func() int {
		t.Helper()
		list, err := r.s.Undurable(fs.ChunkID{}, 9)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	r.write(0, "aaa", "n1")
	r.write(1, "bbb", "n1")
	a, b := r.chunk(0).ID, r.chunk(1).ID
	r.must(store(fs.PackID{1}, fs.Placed{Chunk: a, Len: 67}, fs.Placed{Chunk: b, Off: 67, Len: 67}))
	r.must(fs.MarkLost{Chunks: []fs.ChunkID{a, {Gen: 1}}})
	if c := r.chunk(0); c.Durable || c.Place != (fs.Place{}) || len(c.Holders) > 0 || backlog() != 0 {
		t.Errorf("lost: %+v, %d to be uploaded", c, backlog())
	}
	if p := r.pack(fs.PackID{1}); p.Chunks != 1 || p.Live != 1 || p.LiveBytes != 67 {
		t.Errorf("its pack: %+v", p)
	}
	if p := r.s.Check(); len(p) != 1 || !p[0].Lost || !strings.Contains(p[0].String(), "nobody has it") {
		t.Errorf("the check says %v", p)
	}
	if res := r.write(2, "aaa"); res.Kind != fs.OK || backlog() != 0 { // a copy of what is lost is lost
		t.Errorf("copied: %v, %d to be uploaded", res.Kind, backlog())
	}
	r.write(2, "aaa", "n2")
	if c := r.chunk(0); c.ID != a || fmt.Sprint(c.Holders) != "[n2]" || backlog() != 1 {
		t.Errorf("written again: %+v, %d to be uploaded", c, backlog())
	}
	r.must(fs.MarkLost{Chunks: []fs.ChunkID{a}}) // it was not durable
	if c := r.chunk(0); len(c.Holders) > 0 || backlog() != 0 {
		t.Errorf("lost again: %+v, %d to be uploaded", c, backlog())
	}
	again := fs.Publish{Ino: r.files[2], Pieces: []fs.Piece{text(0, "aaa")}}
	r.must(again)
	if c := r.chunk(0); c.ID != a || string(c.Inline) != "aaa" || backlog() != 1 {
		t.Errorf("written again into the log: %+v, %d to be uploaded", c, backlog())
	}
	r.write(2, "aaa", "n2")
	r.must(fs.MarkLost{Chunks: []fs.ChunkID{a}})
	if c := r.chunk(0); len(c.Holders) > 0 || string(c.Inline) != "aaa" || backlog() != 1 {
		t.Errorf("what is in the log is not lost: %+v, %d to be uploaded", c, backlog())
	}
	r.must(store(fs.PackID{2}, fs.Placed{Chunk: a, Len: 67}))
	if c := r.chunk(0); !c.Durable || c.Place.Pack != (fs.PackID{2}) {
		t.Errorf("uploaded: %+v", c)
	}
	// What nothing cites can be lost, too: the next writer must bring it.
	r.clear(1)
	r.must(fs.MarkLost{Chunks: []fs.ChunkID{b}})
	if res := r.write(1, "bbb"); res.Kind != fs.ErrInvalid {
		t.Errorf("a lost chunk that nothing cites is cited without a copy: %v", res.Kind)
	}
	r.write(1, "bbb", "n3")
	if c := r.chunk(1); c.ID != b || fmt.Sprint(c.Holders) != "[n3]" || backlog() != 1 {
		t.Errorf("%+v, %d to be uploaded", c, backlog())
	}
}

func TestBadPacksAreRefused(t *testing.T) {
	r := newPackRig(t, 0)
	for what, op := range map[string]fs.StorePack{
		"no name":              {Size: 9},
		"no size":              {Pack: fs.PackID{1}},
		"too large":            {Pack: fs.PackID{1}, Size: fs.PackMax + 1},
		"beyond the end":       store(fs.PackID{1}, fs.Placed{Off: 1, Len: 1000}),
		"far beyond the end":   store(fs.PackID{1}, fs.Placed{Off: 1<<32 - 1, Len: 2}),
		"nothing of it":        store(fs.PackID{1}, fs.Placed{Off: 1}),
		"moved to where it is": store(fs.PackID{1}, fs.Placed{From: fs.PackID{1}, Len: 1}),
	} {
		t.Run(what, func(t *testing.T) { r.refuse(op, fs.ErrInvalid) })
	}
}

// toyChunk and toyPack are the rules once more, in maps.
type toyChunk struct {
	text      string
	durable   bool
	condemned bool
	in        fs.PackID
	len       uint32
}

type toy struct {
	chunks map[fs.ChunkID]*toyChunk
	packs  map[fs.PackID]bool // condemned
	files  []fs.ChunkID       // zero: empty
	at     fs.Index
}

func (m *toy) cited(id fs.ChunkID) bool { return slices.Contains(m.files, id) }

// end condemns packs without a live chunk.
func (m *toy) end() {
	for p := range m.packs {
		if n, _ := m.live(p); n == 0 {
			m.packs[p] = true
		}
	}
}

func (m *toy) live(p fs.PackID) (n, bytes uint64) {
	for _, c := range m.chunks {
		if c.in == p && !c.condemned {
			n++
			bytes += uint64(c.len)
		}
	}
	return n, bytes
}

func (m *toy) write(i int, text string, holders bool) fs.Kind {
	var newest fs.ChunkID
	for id, c := range m.chunks {
		if c.text == text && !c.condemned && id.Gen >= newest.Gen {
			newest = id
		}
	}
	c := m.chunks[newest]
	old := m.files[i]
	m.files[i] = fs.ChunkID{} // the file is cut first
	if !holders && (c == nil || !c.durable && !m.cited(newest)) {
		m.files[i] = old
		return fs.ErrInvalid
	}
	if c == nil {
		newest = fs.ChunkID{Hash: sha256.Sum256([]byte(text)), Gen: m.at}
		m.chunks[newest] = &toyChunk{text: text}
	}
	m.files[i] = newest
	return fs.OK
}

func (m *toy) store(o fs.StorePack) {
	if m.packs[o.Pack] {
		return
	}
	m.packs[o.Pack] = false
	for _, x := range o.Chunks {
		c := m.chunks[x.Chunk]
		if c == nil || c.condemned || c.durable != (x.From != fs.PackID{}) || c.in != x.From {
			continue
		}
		c.durable, c.in, c.len = true, o.Pack, x.Len
	}
}

func (m *toy) lose(o fs.MarkLost) {
	for _, id := range o.Chunks {
		if c := m.chunks[id]; c != nil && !c.condemned {
			c.durable, c.in, c.len = false, fs.PackID{}, 0
		}
	}
}

func (m *toy) garbage(op fs.Op) {
	switch o := op.(type) {
	case fs.Condemn:
		for _, id := range o.Chunks {
			if c := m.chunks[id]; c != nil && !m.cited(id) {
				c.condemned = true
			}
		}
		for _, p := range o.Packs {
			if _, known := m.packs[p]; !known {
				m.packs[p] = true
			}
		}
	case fs.Forget:
		for _, id := range o.Chunks {
			if c := m.chunks[id]; c != nil && c.condemned {
				delete(m.chunks, id)
			}
		}
		for _, p := range o.Packs {
			if m.packs[p] && !m.has(p) {
				delete(m.packs, p)
			}
		}
	}
}

func (m *toy) has(p fs.PackID) bool {
	for _, c := range m.chunks {
		if c.in == p {
			return true
		}
	}
	return false
}

// compare says what differs between the toy and the state.
func (m *toy) compare(r *packRig) error {
	for id, c := range m.chunks {
		got, err := r.s.View().Chunk(id)
		if err != nil || got.Durable != c.durable || (got.Condemned != 0) != c.condemned || got.Place.Pack != c.in || got.Place.Len != c.len {
			return fmt.Errorf("chunk %s: %+v (%v), want %+v", id, got, err, c)
		}
	}
	packs, err := r.s.Packs(fs.PackID{}, 1<<20)
	if err != nil || len(packs) != len(m.packs) {
		return fmt.Errorf("%d packs (%v), want %d", len(packs), err, len(m.packs))
	}
	for _, p := range packs {
		if n, bytes := m.live(p.ID); p.Live != n || p.LiveBytes != bytes || (p.Condemned != 0) != m.packs[p.ID] {
			return fmt.Errorf("%+v, want %d live with %d bytes, condemned %t", p, n, bytes, m.packs[p.ID])
		}
	}
	var dead int
	for id := range m.chunks {
		if !m.cited(id) {
			dead++
		}
	}
	list, seen, _, err := r.s.UncitedChunks(fs.ChunkID{}, 1<<20)
	if err != nil || len(list) != dead || seen != len(m.chunks) {
		return fmt.Errorf("%d of %d chunks are not cited (%v), want %d of %d", len(list), seen, err, dead, len(m.chunks))
	}
	return nil
}

// TestPacksAgainstToy: random operations on chunks and packs, 10,000 of them,
// compared with plain maps after each. rig checks the whole state each time.
func TestPacksAgainstToy(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seedOf(t), 9))
	steps := 10_000
	if testing.Short() {
		steps = 1000
	}
	r := newPackRig(t, 8)
	m := &toy{chunks: map[fs.ChunkID]*toyChunk{}, packs: map[fs.PackID]bool{}, files: make([]fs.ChunkID, 8)}
	some := func() (ids []fs.ChunkID) {
		for _, id := range slices.SortedFunc(maps.Keys(m.chunks), func(a, b fs.ChunkID) int { return int(a.Gen) - int(b.Gen) }) {
			if rnd.IntN(3) > 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	pack := func() fs.PackID { return fs.PackID{0: byte(1 + rnd.IntN(12)), 1: byte(rnd.IntN(2) * int(m.at>>9))} }
	for range steps {
		m.at = r.s.Applied() + 1
		switch n := rnd.IntN(10); {
		case n < 4:
			i, text, holders := rnd.IntN(8), fmt.Sprint("text", rnd.IntN(12)), rnd.IntN(4) > 0
			var nodes []fs.NodeID
			if holders {
				nodes = []fs.NodeID{"n1"}
			}
			want := m.write(i, text, holders)
			if got := r.write(i, text, nodes...); got.Kind != want {
				t.Fatalf("write of %q with a copy: %t: %v, want %v", text, holders, got.Kind, want)
			}
		case n < 5:
			i := rnd.IntN(8)
			m.files[i] = fs.ChunkID{}
			r.clear(i)
		case n < 8:
			o := fs.StorePack{Pack: pack(), Size: 5000}
			for _, id := range some() {
				from := fs.PackID{}
				if rnd.IntN(2) == 0 {
					from = m.chunks[id].in
				}
				if from != o.Pack {
					o.Chunks = append(o.Chunks, fs.Placed{Chunk: id, From: from, Off: uint32(rnd.IntN(4000)), Len: uint32(1 + rnd.IntN(1000))})
				}
			}
			m.store(o)
			r.must(o)
		case n < 9 && rnd.IntN(8) == 0:
			o := fs.MarkLost{Chunks: some()}
			m.lose(o)
			r.must(o)
		case n < 9:
			o := fs.Condemn{Chunks: some(), Packs: []fs.PackID{pack()}}
			if rnd.IntN(3) > 0 {
				o.Packs = nil
			}
			m.garbage(o)
			r.must(o)
		default:
			o := fs.Forget{Chunks: some(), Packs: []fs.PackID{pack(), pack(), pack()}}
			m.garbage(o)
			r.must(o)
		}
		m.end()
		if err := m.compare(r); err != nil {
			t.Fatalf("after entry %d: %v", m.at, err)
		}
	}
}
