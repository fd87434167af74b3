package cluster

import (
	"fmt"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func TestCopies(t *testing.T) {
	alive := []fs.NodeID{"n1", "n3"}
	for _, row := range []struct {
		inline  bool
		holders []fs.NodeID
		have    int
		away    string
	}{
		{true, nil, 2, "[]"},
		{false, []fs.NodeID{"n1", "n2"}, 1, "[n2]"},
		{false, []fs.NodeID{"n1", "n3"}, 2, "[]"},
		{false, []fs.NodeID{"n2", "n4"}, 0, "[n2 n4]"},
		{false, nil, 0, "[]"},
	} {
		have, away := copies(meta.Undurable{Info: fs.ChunkInfo{Holders: row.holders}, Inline: row.inline}, alive)
		if have != row.have || fmt.Sprint(away) != row.away {
			t.Errorf("%+v: %d, %v", row, have, away)
		}
	}
}

// TestRiskNamesFiles: one node alone has nobody to share a risk with; what is in
// the object store is at none.
func TestRiskNamesFiles(t *testing.T) {
	c := newCluster(t, 1)
	c.ready()
	n := c.nodes[0]
	publish := func(name, text string, holders ...fs.NodeID) fs.Result {
		t.Helper()
		r, err := n.Do(t.Context(), fs.Create{Parent: fs.RootIno, Name: name, Mode: 0o644})
		if err != nil {
			t.Fatal(err)
		}
		p := fs.Piece{Len: uint64(len(text)), Data: []byte(text)}
		if holders != nil {
			p.Data, p.Hash, p.ChunkLen, p.Holders = nil, fs.Hash{1}, uint32(len(text)), holders
		}
		if r, err = n.Do(t.Context(), fs.Publish{Ino: r.Attr.Ino, Pieces: []fs.Piece{p}}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	publish("inline", "text")
	held := publish("held", "0123456789", "n1", "gone")
	r, err := n.Risk(2, 10)
	if err != nil || r.Chunks != 2 || len(r.Files) != 2 || r.Files[0].Path != "held" || r.Files[0].Bytes != 10 || fmt.Sprint(r.Away) != "[gone]" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := n.Risk(2, 1); err != nil || r.Chunks != 2 || len(r.Files) != 1 {
		t.Errorf("one at most: %+v, %v", r, err)
	}
	if err := n.StorePack(t.Context(), fs.StorePack{Pack: fs.PackID{1}, Size: 100,
		Chunks: []fs.Placed{{Chunk: fs.ChunkID{Hash: fs.Hash{1}, Gen: held.Index}, Len: 80}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := n.Risk(2, 10); err != nil || r.Chunks != 1 || len(r.Files) != 1 || r.Files[0].Path != "inline" {
		t.Errorf("after the upload: %+v, %v", r, err)
	}
	if r, err := n.Risk(1, 10); err != nil || r.Chunks != 0 || r.Files != nil {
		t.Errorf("one copy is enough: %+v, %v", r, err)
	}
}
