package meta_test

import (
	"fmt"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

func TestFilesOf(t *testing.T) {
	r := newRig(t)
	deep := r.dir(r.dir(r.dir(1, "wp-content"), "uploads"), "2026")
	put := func(ino fs.Ino, off uint64, s string) fs.ChunkID {
		r.must(fs.Publish{Ino: ino, Pieces: []fs.Piece{held(off, s, 0, len(s), "n1")}})
		x := r.extents(ino)
		return x[len(x)-1].Chunk
	}
	a, b, gone := r.file(deep, "a.jpg"), r.file(1, "b"), r.file(deep, "gone")
	one, two, three := put(a, 0, "one"), put(a, 10, "two"), put(gone, 0, "three")
	put(b, 0, "one")
	put(b, 10, "one") // twice in one file
	other := put(b, 20, "other")
	r.must(fs.Unlink{Parent: deep, Name: "gone"})

	for _, row := range []struct {
		chunks []fs.ChunkID
		n      int
		want   string
	}{
		{nil, 9, "[]"},
		{[]fs.ChunkID{{Gen: 1}}, 9, "[]"},
		{[]fs.ChunkID{one}, 9, "[/b /wp-content/uploads/2026/a.jpg]"},
		{[]fs.ChunkID{one, two}, 9, "[/b /wp-content/uploads/2026/a.jpg /wp-content/uploads/2026/a.jpg]"},
		{[]fs.ChunkID{one, two, other}, 1, "[/wp-content/uploads/2026/a.jpg]"},
		{[]fs.ChunkID{three}, 9, fmt.Sprintf("[(a deleted file, inode %d)]", gone)},
	} {
		set := map[fs.ChunkID]bool{}
		for _, c := range row.chunks {
			set[c] = true
		}
		list, err := r.s.FilesOf(set, row.n)
		var got []string
		for _, c := range list {
			got = append(got, c.Path)
		}
		if err != nil || fmt.Sprint(got) != row.want {
			t.Errorf("%v: %v, %v, want %s", row.chunks, got, err, row.want)
		}
	}
}
