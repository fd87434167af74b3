package meta_test

import (
	"fmt"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func TestExtentsOverlap(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "ab"), text(2, "cd"), text(4, "ef")}, Grow: 10})
	for _, row := range []struct {
		off, n uint64
		want   string // offsets
	}{
		{0, 6, "[0 2 4]"}, {0, 10, "[0 2 4]"}, {0, 1 << 63, "[0 2 4]"}, {1, 1, "[0]"}, {2, 2, "[2]"}, {1, 2, "[0 2]"},
		{3, 2, "[2 4]"}, {5, 100, "[4]"}, {6, 4, "[]"}, {0, 0, "[]"}, {3, 0, "[]"}, {10, 1, "[]"}, {99, 1, "[]"},
	} {
		list, err := r.s.View().Extents(f, row.off, row.n)
		if err != nil {
			t.Fatal(err)
		}
		got := []uint64{}
		for _, x := range list {
			got = append(got, x.Off)
		}
		if fmt.Sprint(got) != row.want {
			t.Errorf("extents of %d+%d begin at %v, want %s", row.off, row.n, got, row.want)
		}
	}
}

func TestEmptyPages(t *testing.T) {
	r := newRig(t)
	f := r.must(fs.Tmpfile{Parent: 1}).Ino
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "x")}})
	r.file(1, "name")
	for what, ask := range map[string]func() (int, error){
		"list of none":            func() (int, error) { l, err := r.s.View().List(1, 0, 0); return len(l), err },
		"list of a negative":      func() (int, error) { l, err := r.s.View().List(1, 0, -1); return len(l), err },
		"list behind the end":     func() (int, error) { l, err := r.s.View().List(1, ^uint64(0), 9); return len(l), err },
		"orphans, none":           func() (int, error) { l, err := r.s.Orphans(0, 0); return len(l), err },
		"orphans behind the last": func() (int, error) { l, err := r.s.Orphans(f, 9); return len(l), err },
		"orphans behind the end":  func() (int, error) { l, err := r.s.Orphans(^fs.Ino(0), 9); return len(l), err },
		"undurable, none":         func() (int, error) { l, err := r.s.Undurable(fs.ChunkID{}, 0); return len(l), err },
		"undurable behind":        func() (int, error) { l, err := r.s.Undurable(r.extents(f)[0].Chunk, 9); return len(l), err },
	} {
		if n, err := ask(); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
}

// TestMissingContentRecords: a chunk record or inline content that is not there
// is damage, not an empty file.
func TestMissingContentRecords(t *testing.T) {
	for _, kind := range []byte{'b', 'c'} {
		r := newRig(t)
		f := r.file(1, "f")
		r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "x")}})
		id := r.extents(f)[0].Chunk
		key := append([]byte{kind}, id.Hash[:]...)
		key = append(key, 0, 0, 0, 0, 0, 0, 0, byte(id.Gen))
		if err := meta.KVOf(r.s).Commit([]meta.Write{{Key: key, Delete: true}}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.s.Undurable(fs.ChunkID{}, 9); kind == 'c' && fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%c: undurable: %v", kind, err)
		}
		if _, err := r.s.View().Chunk(id); kind == 'b' && fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%c: chunk: %v", kind, err)
		}
		op := map[byte]fs.Op{'b': fs.MarkDurable{Chunks: []fs.ChunkID{id}}, 'c': fs.SetAttr{Ino: f, Mask: fs.SetSize}}[kind]
		if _, _, err := r.s.Apply(r.s.Applied()+1, []fs.Command{{Op: op}}); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%c: %s: %v", kind, meta.OpName(op), err)
		}
	}
}
