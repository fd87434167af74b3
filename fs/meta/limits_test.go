package meta_test

import (
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// TestLargestIsAllowed: each limit names the largest that is allowed; the tables
// of refusals have one more.
func TestLargestIsAllowed(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	node := fs.NodeID(strings.Repeat("n", meta.NodeIDMax))
	nodes := make([]fs.NodeID, meta.HoldersMax)
	for i := range nodes {
		nodes[i] = node
	}
	chunk := held(0, "largest", 0, 1, nodes...)
	chunk.Len, chunk.ChunkLen = fs.ChunkMax, fs.ChunkMax
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{chunk}})
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, strings.Repeat("x", fs.InlineMax))}})
	r.must(fs.OpenSession{Session: 1, Node: node})
	r.refuse(fs.OpenSession{Session: 2, Node: node + "n"}, fs.ErrInvalid)
	r.refuse(fs.InitCluster{UUID: strings.Repeat("u", meta.UUIDMax+1)}, fs.ErrInvalid)
	r.must(fs.InitCluster{UUID: strings.Repeat("u", meta.UUIDMax)})
	chunk.Holders = []fs.NodeID{node + "n"}
	r.refuse(fs.Publish{Ino: f, Pieces: []fs.Piece{chunk}}, fs.ErrInvalid)
}

// TestEndOfTheLargestFile: an append that would join the last chunk must not
// pass the end either.
func TestEndOfTheLargestFile(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(fs.FileMax-3, "ab")}})
	r.refuse(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "cd")}}, fs.ErrTooBig)
	if a := r.must(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "c")}}); a.Size != fs.FileMax || len(r.extents(f)) != 1 {
		t.Errorf("%+v", a)
	}
}

// TestDurableChunkNeedsNoHolders: what the object store has may be cited again
// when nothing cites it any more.
func TestDurableChunkNeedsNoHolders(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(0, "abc", 0, 3, "n1")}})
	id := r.chunks(f)[0].ID
	r.must(fs.MarkDurable{Chunks: []fs.ChunkID{id}})
	r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize})
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(0, "abc", 0, 3)}})
	if c := r.chunks(f)[0]; c.ID != id || c.Refs != 1 || !c.Durable {
		t.Errorf("%+v", c)
	}
}
