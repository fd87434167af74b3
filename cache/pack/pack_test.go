package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
)

var goldenPack = fs.PackID{0: 0xfe, 15: 0x01}

// sample is chunk i of a test, about n bytes of text.
func sample(i, n int) (fs.ChunkID, []byte) {
	b := []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), n/7+1))[:n]
	return fs.ChunkID{Hash: sha256.Sum256(b), Gen: fs.Index(i + 1)}, b
}

// build makes a pack of n chunks.
func build(t testing.TB, id fs.PackID, n, size int) ([]byte, []Entry) {
	t.Helper()
	var p Builder
	for i := range n {
		if !p.Add(sample(i, size)) {
			t.Fatalf("chunk %d does not fit", i)
		}
	}
	entries := p.Entries()
	return p.Finish(id), entries
}

// TestPackVersion1 reads bytes that were written when the version was new: one
// raw chunk, one compressed.
func TestPackVersion1(t *testing.T) {
	path := filepath.Join("testdata", "pack-v1.hex")
	text, chunk := sample(1, 5000)
	if *rewrite {
		var p Builder
		p.Add(goldenID, goldenChunk)
		p.Add(text, chunk)
		if err := os.WriteFile(path, []byte(hex.Dump(p.Finish(goldenPack))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dump, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b := undump(t, string(dump))
	id, list, err := Decode(b)
	if err != nil || id != goldenPack || len(list) != 2 || list[0].ID != goldenID || list[1].ID != text {
		t.Fatalf("pack %s of %+v, %v", id, list, err)
	}
	for i, want := range [][]byte{goldenChunk, chunk} {
		e := list[i]
		got, err := Open(b[e.Off:][:e.Len], e.ID)
		wantBytes(t, "Open", got, err, want)
	}
}

func TestKey(t *testing.T) {
	id := NewID()
	if id == NewID() || id == (fs.PackID{}) {
		t.Error("names come twice")
	}
	key := Key(id)
	if err := object.CheckKey(key); err != nil || !strings.HasPrefix(key, Prefix) {
		t.Errorf("%s: %v", key, err)
	}
	if got, ok := ParseKey(key); !ok || got != id {
		t.Errorf("%s is %s, %t", key, got, ok)
	}
	for _, bad := range []string{"", "p/", key[1:], key + "0", strings.ToUpper(key), "p/zz" + key[4:], key[:len(key)-1] + "g", "p/00" + "/" + key[5:]} {
		if got, ok := ParseKey(bad); ok && Key(got) != bad {
			t.Errorf("%q is pack %s", bad, got)
		}
	}
}

func TestPackIsFull(t *testing.T) {
	var p Builder
	for i := range ChunksMax {
		if !p.Add(sample(i, 10)) {
			t.Fatalf("chunk %d does not fit", i)
		}
	}
	if p.Add(sample(ChunksMax, 10)) {
		t.Error("too many chunks fit")
	}
	if _, list, err := Decode(p.Finish(goldenPack)); err != nil || len(list) != ChunksMax {
		t.Errorf("%d chunks, %v", len(list), err)
	}
	p = Builder{}
	noise := make([]byte, fs.ChunkMax)
	state := uint64(1)
	for i := range noise {
		state = state*6364136223846793005 + 1442695040888963407
		noise[i] = byte(state >> 56)
	}
	id := fs.ChunkID{Hash: sha256.Sum256(noise), Gen: 1}
	if !p.Add(id, noise) || p.Add(id, noise) {
		t.Error("an object of 8 MiB takes one chunk of 4 MiB and the half of another")
	}
	if !p.Add(sample(1, 100)) {
		t.Error("no room after a chunk that was too large")
	}
	if b := p.Finish(goldenPack); len(b) > fs.PackMax {
		t.Errorf("%d bytes", len(b))
	}
}

// TestPackChecksEveryByteOfItsIndex: no single changed, missing or added byte
// behind the records passes.
func TestPackChecksEveryByteOfItsIndex(t *testing.T) {
	whole, entries := build(t, goldenPack, 3, 100)
	last := entries[2]
	for i := int(last.Off + last.Len); i < len(whole); i++ {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		_, _, err := Decode(b)
		wantKind(t, fmt.Sprintf("byte %d of %d changed", i, len(b)), err, fs.ErrCorrupt)
		_, _, err = Decode(whole[:i])
		wantKind(t, "cut off", err, fs.ErrCorrupt)
	}
	_, _, err := Decode(append(bytes.Clone(whole), 0))
	wantKind(t, "longer", err, fs.ErrCorrupt)
}

// resealPack makes the checksums of index and footer right after a change.
func resealPack(b []byte) []byte {
	le := binary.LittleEndian
	f := b[len(b)-footerSize:]
	if at := int(le.Uint32(f[28:])); at <= len(b)-footerSize {
		le.PutUint32(f[32:], crc32.Checksum(b[at:len(b)-footerSize], castagnoli))
	}
	le.PutUint32(f[36:], crc32.Checksum(f[:36], castagnoli))
	return b
}

func TestIndexWithRightChecksumsAndWrongContent(t *testing.T) {
	le := binary.LittleEndian
	for name, row := range map[string]struct {
		change func(index, footer []byte)
		kind   fs.Kind
	}{
		"newer version":       {func(_, f []byte) { f[4] = 2 }, fs.ErrNotSupported},
		"more chunks":         {func(_, f []byte) { f[24]++ }, fs.ErrCorrupt},
		"far more chunks":     {func(_, f []byte) { le.PutUint32(f[24:], 1<<31) }, fs.ErrCorrupt},
		"index elsewhere":     {func(_, f []byte) { f[28]++ }, fs.ErrCorrupt},
		"overlapping records": {func(x, _ []byte) { le.PutUint32(x[entrySize+40:], 1) }, fs.ErrCorrupt},
		"empty record":        {func(x, _ []byte) { le.PutUint32(x[44:], recordHeader) }, fs.ErrCorrupt},
		"reaches the index":   {func(x, _ []byte) { le.PutUint32(x[2*entrySize+44:], 1<<20) }, fs.ErrCorrupt},
		"reaches round":       {func(x, _ []byte) { le.PutUint32(x[2*entrySize+44:], 1<<32-1) }, fs.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			b, entries := build(t, goldenPack, 3, 100)
			row.change(b[entries[2].Off+entries[2].Len:], b[len(b)-footerSize:])
			_, _, err := Decode(resealPack(b))
			wantKind(t, "Decode", err, row.kind)
		})
	}
}

// TestLoad reads an index from the store, of a small pack in one request and of
// one whose index does not fit the first in two.
func TestLoad(t *testing.T) {
	for _, row := range []struct{ n, gets int }{{1, 1}, {600, 1}, {ChunksMax, 2}} {
		id := NewID()
		b, entries := build(t, id, row.n, 50)
		st := faulty.New(mem.New())
		if err := st.Put(t.Context(), Key(id), b, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		list, err := Load(t.Context(), st, id, int64(len(b)))
		if err != nil || !reflect.DeepEqual(list, entries) {
			t.Errorf("%d chunks: %d, %v", row.n, len(list), err)
		}
		if n := len(st.Calls()) - 1; n != row.gets {
			t.Errorf("%d chunks: %d requests, want %d", row.n, n, row.gets)
		}
		other := NewID()
		if err := st.Put(t.Context(), Key(other), b, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err = Load(t.Context(), st, other, int64(len(b)))
		wantKind(t, "under another name", err, fs.ErrCorrupt)
		_, err = Load(t.Context(), st, id, int64(len(b)-1))
		wantKind(t, "of another size", err, fs.ErrCorrupt)
	}
}

// TestRecords: a part of a pack gives the whole records in it, and stops at the
// first that is cut off, damaged, or none.
func TestRecords(t *testing.T) {
	b, entries := build(t, goldenPack, 5, 3000)
	count := func(b []byte) (n int) {
		for id, chunk := range Records(b) {
			if fs.Hash(sha256.Sum256(chunk)) != id.Hash {
				t.Error("wrong bytes")
			}
			n++
		}
		return n
	}
	second := b[entries[1].Off:]
	damaged := bytes.Clone(second)
	damaged[entries[1].Len+recordHeader] ^= 1
	for what, row := range map[string]struct {
		b    []byte
		want int
	}{
		"to the end": {second, 4}, "whole": {b, 5}, "nothing": {nil, 0}, "not at a record": {b[1:], 0},
		"cut off": {second[:entries[1].Len+entries[2].Len+5], 2}, "damaged": {damaged, 1},
	} {
		if n := count(row.b); n != row.want {
			t.Errorf("%s: %d records, want %d", what, n, row.want)
		}
	}
}

// FuzzDecode: any bytes either are no pack or give an index that fits them, and
// what is read by it is what its hash says.
func FuzzDecode(f *testing.F) {
	b, _ := build(f, goldenPack, 3, 100)
	f.Add(b)
	f.Add(b[1:])
	f.Add(resealPack(bytes.Clone(b)))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= footerSize && len(b) < 1<<16 {
			b = resealPack(b) // or nothing gets past the checksums
		}
		_, list, err := Decode(b)
		if err != nil && fs.KindOf(err) != fs.ErrCorrupt && fs.KindOf(err) != fs.ErrNotSupported {
			t.Fatalf("untyped error: %v", err)
		}
		for _, e := range list {
			chunk, err := Open(b[e.Off:][:e.Len], e.ID)
			if err == nil && fs.Hash(sha256.Sum256(chunk)) != e.ID.Hash {
				t.Fatal("wrong bytes were opened")
			}
		}
		for id, chunk := range Records(b) {
			if fs.Hash(sha256.Sum256(chunk)) != id.Hash {
				t.Fatal("wrong bytes in a run of records")
			}
		}
	})
}
