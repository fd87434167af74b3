package meta_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// TestExportImport: an export made while entries go on being applied, put into a
// store on disk, is the state at the index that it says.
func TestExportImport(t *testing.T) {
	r := newRig(t)
	d := r.dir(1, "wp-content")
	f := r.file(d, "index.php")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "<?php")}})
	r.must(fs.SetXattr{Ino: f, Name: "user.a", Value: []byte("v")})
	r.must(fs.InitCluster{UUID: "one"})
	want, err := r.s.Digest()
	if err != nil {
		t.Fatal(err)
	}
	applied, hash := r.s.Applied(), r.s.StateHash()

	kv, err := meta.OpenPebble(filepath.Join(t.TempDir(), "meta"), meta.PebbleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	in := meta.NewImporter(kv)
	var img meta.Image
	first := true
	err = r.s.Export(func(i meta.Image) error { img = i; return nil }, func(k, v []byte) error {
		if first {
			first = false
			if _, _, err := r.s.Apply(applied+1, []fs.Command{{Now: r.now, Op: fs.Unlink{Parent: d, Name: "index.php"}}}); err != nil {
				t.Error(err)
			}
		}
		return in.Add(k, v)
	})
	if err := errors.Join(err, in.Close()); err != nil {
		t.Fatal(err)
	}
	if img.Applied != applied || img.Hash != hash {
		t.Errorf("the export says %+v, the state was at %d with hash %x", img, applied, hash)
	}
	s, err := meta.Open(kv)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Digest(); err != nil || got != want || s.Applied() != applied || s.StateHash() != hash {
		t.Errorf("imported: digest equal %t, %v, applied %d, hash %x", got == want, err, s.Applied(), s.StateHash())
	}
	if p := s.Check(); len(p) > 0 {
		t.Error(p)
	}
}

func TestExportEndsWithTheFirstError(t *testing.T) {
	r := newRig(t)
	stop := errors.New("stop")
	for name, run := range map[string]func() error{
		"begin": func() error { return r.s.Export(func(meta.Image) error { return stop }, nil) },
		"record": func() error {
			return r.s.Export(func(meta.Image) error { return nil }, func(_, _ []byte) error { return stop })
		},
	} {
		if err := run(); !errors.Is(err, stop) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImporterWantsOrder(t *testing.T) {
	in := meta.NewImporter(meta.NewMemKV())
	for _, k := range []string{"a", "b"} {
		if err := in.Add([]byte(k), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"b", "a", ""} {
		if err := in.Add([]byte(k), nil); !errors.Is(err, fs.ErrCorrupt) {
			t.Errorf("key %q after b: %v", k, err)
		}
	}
}

func TestRecordShipped(t *testing.T) {
	r := newRig(t)
	for range 10 {
		r.must(fs.Barrier{})
	}
	want := func(index, oldest fs.Index) {
		t.Helper()
		if got, err := r.s.Shipped(); err != nil || got != (meta.Shipped{Index: index, Oldest: oldest}) {
			t.Errorf("shipped %+v, %v, want up to %d from %d", got, err, index, oldest)
		}
	}
	want(0, 0)
	r.must(fs.RecordShipped{Index: 5, Oldest: 3})
	want(5, 3)
	r.must(fs.RecordShipped{Index: 4, Oldest: 4}) // a late one
	want(5, 4)
	r.refuse(fs.RecordShipped{Index: 1000, Oldest: 1}, fs.ErrInvalid) // the future
	r.refuse(fs.RecordShipped{Index: 5, Oldest: 6}, fs.ErrInvalid)
	want(5, 4)
}

// TestAdoptCluster: the nodes of the old cluster are strangers to the new one.
func TestAdoptCluster(t *testing.T) {
	r := newRig(t)
	r.must(fs.InitCluster{UUID: "old"})
	r.must(fs.OpenSession{Session: 7, Node: "web1"})
	r.must(fs.OpenSession{Session: 8, Node: "web2"})
	r.send(7, 1, 1, fs.Mkdir{Parent: 1, Name: "d"})
	r.must(fs.ExpireSession{Sessions: []fs.SessionID{8}})
	r.must(fs.RecordShipped{Index: 2, Oldest: 1})
	r.refuse(fs.AdoptCluster{}, fs.ErrInvalid)
	r.must(fs.AdoptCluster{UUID: "new"})
	if got := r.s.UUID(); got != "new" {
		t.Errorf("the UUID is %q", got)
	}
	for _, n := range []fs.NodeID{"web1", "web2"} {
		if seen, err := r.s.NodeSeen(n); err != nil || seen {
			t.Errorf("node %s is known: %t, %v", n, seen, err)
		}
	}
	if got, err := r.s.Shipped(); err != nil || got != (meta.Shipped{}) {
		t.Errorf("shipped %+v, %v", got, err)
	}
}

func TestFilesOf(t *testing.T) {
	r := newRig(t)
	hash := func(b byte) fs.Hash { return fs.Hash{0: b} }
	held := func(off uint64, b byte) fs.Piece {
		return fs.Piece{Off: off, Len: 100, Hash: hash(b), ChunkLen: 100, Holders: []fs.NodeID{"web1"}}
	}
	d := r.dir(r.dir(1, "uploads"), "2026")
	whole, half, orphan := r.file(d, "whole.jpg"), r.file(d, "half.jpg"), r.must(fs.Tmpfile{Parent: d}).Ino
	r.must(fs.Publish{Ino: whole, Pieces: []fs.Piece{held(0, 1)}})
	r.must(fs.Publish{Ino: half, Pieces: []fs.Piece{held(0, 1), held(100, 2)}})
	r.must(fs.Publish{Ino: orphan, Pieces: []fs.Piece{held(0, 2)}})
	r.must(fs.Link{Ino: half, Parent: 1, Name: "link.jpg"})

	lost := map[fs.ChunkID]bool{}
	seen := 0
	err := r.s.EachChunk(func(info fs.ChunkInfo, inline bool) error {
		seen++
		if inline {
			t.Errorf("chunk %s is inline", info.ID)
		}
		if info.ID.Hash == hash(2) {
			lost[info.ID] = true
		}
		return nil
	})
	if err != nil || seen != 2 || len(lost) != 1 {
		t.Fatalf("%d chunks, %d lost, %v", seen, len(lost), err)
	}
	got, err := r.s.FilesOf(lost)
	want := []meta.LostFile{
		{Path: "link.jpg", Ino: half, Size: 200, Bytes: 100},
		{Path: "uploads/2026/half.jpg", Ino: half, Size: 200, Bytes: 100},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("lost files %+v, %v, want %+v", got, err, want)
	}
	if got, err := r.s.FilesOf(nil); err != nil || got != nil {
		t.Errorf("nothing is lost: %v, %v", got, err)
	}
}
