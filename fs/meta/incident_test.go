package meta_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// Bytes that travelled in the log are kept in the metadata until the object store
// has them, even if a chunk record names nodes that had them: those may be dead.
func TestInlineBytesAreKeptThoughHoldersHadThem(t *testing.T) {
	r := newRig(t)
	b := bytes.Repeat([]byte("k"), 10<<10)
	h := fs.Hash(sha256.Sum256(b))
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Mtime: r.now, Pieces: []fs.Piece{{Len: uint64(len(b)), Hash: h, ChunkLen: uint32(len(b)), Holders: []fs.NodeID{"dead1", "dead2"}}}})
	g := r.file(1, "g")
	r.must(fs.Publish{Ino: g, Mtime: r.now, Pieces: []fs.Piece{text(0, string(b))}})
	x := r.extents(g)
	c, err := r.s.View().Chunk(x[0].Chunk)
	if err != nil || c.Inline == nil {
		t.Errorf("the log entry carried the bytes, but the only copies are at %v, durable %v, inline %d bytes", c.Holders, c.Durable, len(c.Inline))
	}
}

// Each append to the tail of a log replaces an inline chunk. None of the replaced
// ones goes to the disk cache or stays in the store.
func TestReplacedTailsLeaveNothing(t *testing.T) {
	r := newRig(t)
	n, size := 0, 0
	r.s.SetDroppedInline(func(_ fs.ChunkID, b []byte) { n++; size += len(b) })
	f := r.file(1, "debug.log")
	for i := range 1000 {
		r.must(fs.Append{Ino: f, Mtime: r.now, Pieces: []fs.Piece{text(0, fmt.Sprintf("%099d\n", i))}})
	}
	if n > 0 {
		t.Errorf("log of %d bytes: %d dead chunks, %d bytes handed over", r.attr(f).Size, n, size)
	}
	if c := r.chunks(f); len(c) > 20 {
		t.Errorf("the log has %d chunks", len(c))
	}
	if p := r.s.Check(); len(p) > 0 {
		t.Errorf("check: %v", p)
	}
}

func TestUncitedChunksLeaveTheBacklog(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	for i := range 1000 {
		h := fs.Hash(sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		r.must(fs.Publish{Ino: f, Mtime: r.now, Pieces: []fs.Piece{{Len: 40000, Hash: h, ChunkLen: 40000, Holders: []fs.NodeID{"a"}}}})
	}
	u, err := r.s.Undurable(fs.ChunkID{}, 1<<20)
	dead := 0
	for _, x := range u {
		if x.Info.Refs == 0 {
			dead++
		}
	}
	if err != nil || len(u) != 1 || dead > 0 {
		t.Errorf("%d to be uploaded, %d of them cited by nobody, %v", len(u), dead, err)
	}
	// The first one is cited again, by a node that has it: it is owed again.
	h := fs.Hash(sha256.Sum256([]byte{0, 0}))
	r.must(fs.Publish{Ino: r.file(1, "g"), Mtime: r.now, Pieces: []fs.Piece{{Len: 40000, Hash: h, ChunkLen: 40000, Holders: []fs.NodeID{"b"}}}})
	if u, err := r.s.Undurable(fs.ChunkID{}, 1<<20); err != nil || len(u) != 2 {
		t.Errorf("%d to be uploaded, %v", len(u), err)
	}
	if p := r.s.Check(); len(p) > 0 {
		t.Errorf("check: %v", p)
	}
}
