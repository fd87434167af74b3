package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// TestCopyOf follows what a node's copy of a chunk is for: nothing while nobody
// cites it, a promise from the commit on for those it names, and nothing that
// anybody needs once the object store has the chunk or nothing cites it any more.
func TestCopyOf(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	n := c.nodes[0]
	do := func(op fs.Op) fs.Result {
		t.Helper()
		res, err := n.Do(t.Context(), op)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	h := fs.Hash(sha256.Sum256([]byte("held")))
	check := func(when string, want [3][2]bool) {
		t.Helper()
		for i, n := range c.nodes { // Do returns once all have applied it
			if p, b := n.CopyOf(h); p != want[i][0] || b != want[i][1] {
				t.Errorf("%s: node %d: promised %v, backed %v; want %v", when, i, p, b, want[i])
			}
		}
	}
	check("not cited", [3][2]bool{})
	ino := do(fs.Create{Parent: fs.RootIno, Name: "f", Mode: fs.ModeRegular | 0o644}).Attr.Ino
	res := do(fs.Publish{Ino: ino, Pieces: []fs.Piece{{Len: 4, Hash: h, ChunkLen: 4, Holders: []fs.NodeID{"n1", "n3"}}}})
	check("cited", [3][2]bool{{true, false}, {false, false}, {true, false}})
	if infos, err := n.ChunksOf(h); err != nil || len(infos) != 1 || infos[0].Refs != 1 {
		t.Errorf("ChunksOf: %+v, %v", infos, err)
	}
	do(fs.MarkDurable{Chunks: []fs.ChunkID{{Hash: h, Gen: res.Index}}})
	check("durable", [3][2]bool{{false, true}, {false, true}, {false, true}})
	zero := uint64(0)
	do(fs.Publish{Ino: ino, Cut: &zero})
	check("not cited any more", [3][2]bool{})
	if infos, err := n.ChunksOf(h); err != nil || len(infos) != 0 {
		t.Errorf("ChunksOf: %+v, %v", infos, err)
	}
	do(fs.Publish{Ino: ino, Pieces: []fs.Piece{{Len: 4, Data: []byte("held")}}})
	check("durable, cited by content", [3][2]bool{{false, true}, {false, true}, {false, true}})
	h = fs.Hash(sha256.Sum256([]byte("text")))
	do(fs.Publish{Ino: ino, Pieces: []fs.Piece{{Len: 4, Data: []byte("text")}}})
	check("in the metadata", [3][2]bool{{false, true}, {false, true}, {false, true}})
}

// TestCited: a node hears of the citations that name it, if they were committed.
func TestCited(t *testing.T) {
	var told []fs.Hash
	n := &Node{o: Options{ID: "n1"}}
	n.SetCited(func(h fs.Hash) { told = append(told, h) })
	pieces := []fs.Piece{
		{Hash: fs.Hash{1}, Holders: []fs.NodeID{"n2", "n1"}}, {Hash: fs.Hash{2}, Holders: []fs.NodeID{"n2"}},
		{Hash: fs.Hash{3}, Holders: []fs.NodeID{"n1"}}, {Data: []byte("x")},
	}
	n.citedContent(fs.Publish{Pieces: pieces}, fs.Result{})
	n.citedContent(fs.Publish{Pieces: pieces}, fs.Result{Kind: fs.ErrStale})
	n.citedContent(fs.Append{Pieces: pieces[2:]}, fs.Result{})
	if want := []fs.Hash{{1}, {3}, {3}}; !slices.Equal(told, want) {
		t.Errorf("told of %v", told)
	}
}

// TestCopiesArePromisedUntilCaughtUp: a node that has not applied its own log yet
// drops nothing.
func TestCopiesArePromisedUntilCaughtUp(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	for i := range c.nodes[1:] {
		c.stop(i + 1)
	}
	c.stop(0)
	c.start(0) // alone: it has no session and knows nothing for sure
	if promised, _ := c.nodes[0].CopyOf(fs.Hash{1}); !promised {
		t.Error("a node that has not caught up drops copies")
	}
}

// TestCopiesArePromisedOnceTheStoreIsClosed: while a node ends, eviction may still
// ask, and nobody can say that a copy is not the only one.
func TestCopiesArePromisedOnceTheStoreIsClosed(t *testing.T) {
	var logged bytes.Buffer
	n := &Node{store: &store{}, propose: &proposer{session: 1}, log: slog.New(slog.NewTextHandler(&logged, nil))}
	if promised, backed := n.CopyOf(fs.Hash{1}); !promised || backed {
		t.Errorf("promised %v, backed %v", promised, backed)
	}
	if infos, err := n.ChunksOf(fs.Hash{1}); !errors.Is(err, errStoreClosed) || len(infos) > 0 {
		t.Errorf("ChunksOf: %+v, %v", infos, err)
	}
	if logged.Len() > 0 {
		t.Errorf("the end of a node is no error: %s", &logged)
	}
}

func TestStepAside(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	was := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range c.nodes {
		if i != was {
			if err := c.nodes[i].StepAside(ctx); err != nil {
				t.Errorf("StepAside of a follower: %v", err)
			}
		}
	}
	if c.leader() != was {
		t.Fatal("a follower's StepAside has changed the leader")
	}
	if err := c.nodes[was].StepAside(ctx); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil && (c.leader() == was || c.leader() < 0) {
		time.Sleep(10 * time.Millisecond)
	}
	if now := c.leader(); now == was || now < 0 {
		t.Errorf("node %d leads, before it was %d", now, was)
	}
}
