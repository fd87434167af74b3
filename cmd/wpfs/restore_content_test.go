package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/seal"
)

// remains are a restored state and a bucket, to be compared.
type remains struct {
	t  *testing.T
	s  *meta.State
	st object.Store
}

func newRemains(t *testing.T) *remains {
	t.Helper()
	s, err := meta.Open(meta.NewMemKV())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &remains{t: t, s: s, st: mem.New()}
}

// do applies operations, an entry each.
func (r *remains) do(ops ...fs.Op) (res fs.Result) {
	r.t.Helper()
	for _, op := range ops {
		results, _, err := r.s.Apply(r.s.Applied()+1, []fs.Command{{Now: fs.Time{Sec: 1}, Op: op}})
		if err != nil || results[0].Kind != fs.OK {
			r.t.Fatalf("%T: %v, %v", op, results, err)
		}
		res = results[0]
	}
	return res
}

// file makes one whose content a node has on disk, and adds that to a pack.
func (r *remains) file(name string, b *pack.Builder) fs.ChunkID {
	r.t.Helper()
	return r.fileOf(name, []byte("content of "+name), b)
}

func (r *remains) fileOf(name string, content []byte, b *pack.Builder) fs.ChunkID {
	r.t.Helper()
	h := fs.Hash(sha256.Sum256(content))
	ino := r.do(fs.Create{Parent: fs.RootIno, Name: name, Mode: 0o644}).Attr.Ino
	n := uint32(len(content))
	res := r.do(fs.Publish{Ino: ino, Pieces: []fs.Piece{{Len: uint64(n), Hash: h, ChunkLen: n, Holders: []fs.NodeID{"n1"}}}})
	id := fs.ChunkID{Hash: h, Gen: res.Index}
	if !b.Add(id, content) {
		r.t.Fatal("the pack is full")
	}
	return id
}

// put uploads a pack and returns what records all of it.
func (r *remains) put(b *pack.Builder) fs.StorePack {
	r.t.Helper()
	op := fs.StorePack{Pack: pack.NewID()}
	for _, e := range b.Entries() {
		op.Chunks = append(op.Chunks, fs.Placed{Chunk: e.ID, Off: e.Off, Len: e.Len})
	}
	object := b.Finish(op.Pack)
	op.Size = uint32(len(object))
	putObject(r.t, r.st, pack.Key(op.Pack), object)
	return op
}

func putObject(t *testing.T, st object.Store, key string, b []byte) {
	t.Helper()
	if err := st.Put(t.Context(), key, b, object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// find compares, and applies what was learned.
func (r *remains) find() *bucketContent {
	r.t.Helper()
	in, err := findContent(r.t.Context(), r.st, r.s, func(string, int, int) {})
	if err != nil {
		r.t.Fatal(err)
	}
	r.do(in.learned...)
	for _, p := range r.s.Check() {
		if !p.Lost {
			r.t.Fatalf("the state breaks a rule: %v", p)
		}
	}
	return in
}

func (r *remains) wantLost(in *bucketContent, want ...fs.ChunkID) {
	r.t.Helper()
	got := slices.Collect(maps.Keys(in.lost))
	for _, id := range want {
		if !in.lost[id] {
			r.t.Errorf("chunk %s is not said to be lost", id)
		}
	}
	if len(got) != len(want) {
		r.t.Errorf("lost are %v, want %v", got, want)
	}
}

// TestPartlyRecordedPack: the last commands that recorded a pack did not reach the
// bucket; the pack did.
func TestPartlyRecordedPack(t *testing.T) {
	r, b := newRemains(t), &pack.Builder{}
	for i := range 300 {
		r.file(fmt.Sprint("f", i), b)
	}
	op := r.put(b)
	first := op
	first.Chunks = op.Chunks[:128]
	r.do(first)
	in := r.find()
	r.wantLost(in)
	for _, learned := range in.learned {
		if n := len(learned.(fs.StorePack).Chunks); n > placeAtOnce {
			t.Errorf("%d chunks in one command", n)
		}
	}
	if p, _, err := r.s.Pack(op.Pack); err != nil || p.Live != 300 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestPackToSearch: a chunk whose pack is gone is found in another one, recorded or
// not, and not in one that is condemned.
func TestPackToSearch(t *testing.T) {
	r, gone, unknown, recorded, condemned := newRemains(t), &pack.Builder{}, &pack.Builder{}, &pack.Builder{}, &pack.Builder{}
	a, b, c := r.file("a", gone), r.file("b", gone), r.file("c", gone)
	r.file("other", recorded)
	unknown.Add(a, []byte("content of a"))
	recorded.Add(b, []byte("content of b"))
	condemned.Add(c, []byte("content of c"))
	first := r.put(gone)
	r.do(first)
	second := r.put(recorded)
	second.Chunks = second.Chunks[:1]
	third := r.put(condemned)
	r.do(second, fs.Condemn{Packs: []fs.PackID{third.Pack}})
	found := r.put(unknown)
	if err := r.st.Delete(t.Context(), pack.Key(first.Pack)); err != nil {
		t.Fatal(err)
	}
	r.wantLost(r.find(), c)
	for id, want := range map[fs.ChunkID]fs.PackID{a: found.Pack, b: second.Pack} {
		if info, err := r.s.View().Chunk(id); err != nil || info.Place.Pack != want {
			t.Errorf("%+v, %v; want it in %s", info, err, want)
		}
	}
}

// TestCutPack: chunks that the metadata has behind the end of a pack are lost,
// whatever else the pack has.
func TestCutPack(t *testing.T) {
	r, b := newRemains(t), &pack.Builder{}
	id := r.file("a", b)
	op := r.put(b)
	op.Chunks[0].Off, op.Size = op.Size, 2*op.Size
	r.do(op)
	r.wantLost(r.find(), id)
}

// TestLostContentIsNotTakenForBacked: nothing in the state says that the bucket has
// what it has lost, so that who writes it again must bring it.
func TestLostContentIsNotTakenForBacked(t *testing.T) {
	r, b, alone := newRemains(t), &pack.Builder{}, &pack.Builder{}
	cited, uncited := r.file("cited", b), r.file("uncited", b)
	object, dead := r.file("object", alone), r.file("dead object", alone)
	op := r.put(b)
	r.do(op, fs.MarkDurable{Chunks: []fs.ChunkID{object, dead}})
	r.do(fs.Unlink{Parent: fs.RootIno, Name: "uncited"}, fs.Unlink{Parent: fs.RootIno, Name: "dead object"})
	orphans, err := r.s.Orphans(0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range orphans {
		r.do(fs.Reclaim{Inos: []fs.Ino{o.Ino}})
	}
	if err := r.st.Delete(t.Context(), pack.Key(op.Pack)); err != nil {
		t.Fatal(err)
	}
	r.wantLost(r.find(), cited, object)
	for _, id := range []fs.ChunkID{cited, uncited, object, dead} {
		c, err := r.s.View().Chunk(id)
		if err != nil || c.Durable || c.Place != (fs.Place{}) || len(c.Holders) > 0 || (c.Refs == 0) != (id == uncited || id == dead) {
			t.Errorf("%+v, %v", c, err)
		}
	}
	r.wantLost(r.find(), cited, object) // the next restore says so again
}

// newerPack makes a pack of the next version, with the footer's checksum for it.
func newerPack(b []byte) []byte {
	f := b[len(b)-40:]
	f[4]++
	binary.LittleEndian.PutUint32(f[36:], crc32.Checksum(f[:36], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// TestPacksThatCannotBeSearched are said, with what to do, and the others are used.
func TestPacksThatCannotBeSearched(t *testing.T) {
	r := newRemains(t)
	bucket, mine := r.st, seal.Keys{{1}}
	var lost []fs.ChunkID
	for _, kind := range []string{"damaged", "foreign", "plain", "newer", "torn", "good"} {
		b := &pack.Builder{}
		r.st = seal.New(bucket, seal.Options{Keys: mine})
		switch kind {
		case "foreign":
			r.st = seal.New(bucket, seal.Options{Keys: seal.Keys{{2}}})
		case "plain":
			r.st = bucket
		}
		id := r.file(kind, b)
		key := pack.Key(r.put(b).Pack)
		get := func(st object.Store) []byte {
			raw, err := st.Get(t.Context(), key, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		switch kind {
		case "damaged":
			raw := get(bucket)
			raw[len(raw)-1] ^= 1
			putObject(t, bucket, key, raw)
		case "torn":
			raw := get(r.st)
			putObject(t, r.st, key, raw[:len(raw)-1])
		case "newer":
			putObject(t, r.st, key, newerPack(get(r.st)))
		}
		if kind != "good" {
			lost = append(lost, id)
		}
	}
	r.st = seal.New(bucket, seal.Options{Keys: mine})
	in := r.find()
	r.wantLost(in, lost...)
	all := strings.Join(in.problems, "\n")
	if len(in.problems) != 4 {
		t.Errorf("problems: %s", all)
	}
	for _, want := range []string{"object is damaged", seal.Key{2}.ID().String(), "encryption_accept_plain", "install the version"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among the problems: %s", want, all)
		}
	}
}

// TestContentOfMixedBucket: a bucket from before encryption, with packs of both kinds,
// recorded and not.
func TestContentOfMixedBucket(t *testing.T) {
	r, rnd := newRemains(t), rand.NewChaCha8([32]byte{1})
	bucket := r.st
	for _, st := range []object.Store{bucket, seal.New(bucket, seal.Options{Keys: seal.Keys{{1}}, AcceptPlain: true})} {
		r.st = st
		for _, record := range []bool{true, false} {
			b := &pack.Builder{}
			content := make([]byte, 1<<20) // so large that the seal takes more than a pack's index
			rnd.Read(content)
			r.fileOf(fmt.Sprintf("%T %t", st, record), content, b)
			if op := r.put(b); record {
				r.do(op)
			}
		}
	}
	in := r.find()
	r.wantLost(in)
	if len(in.learned) != 2 {
		t.Errorf("learned %v", in.learned)
	}
}
