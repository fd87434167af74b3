package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew; only for a new version, old files stay")

var goldenID = fs.ChunkID{Hash: sha256.Sum256(goldenChunk), Gen: 0x1f2e}

var goldenChunk = []byte("<?php // Silence is golden.\n")

// TestRecordVersion1 reads bytes that were written when the version was new.
func TestRecordVersion1(t *testing.T) {
	path := filepath.Join("testdata", "record-v1.hex")
	made := record(goldenID, goldenChunk)
	if *rewrite {
		if err := os.WriteFile(path, []byte(hex.Dump(made)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dump, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(dump) != hex.Dump(made) {
		t.Errorf("a record is written as\n%sthe file has\n%s", hex.Dump(made), dump)
	}
	got, err := Open(undump(t, string(dump)), goldenID)
	wantBytes(t, "Open", got, err, goldenChunk)
}

// undump reverses hex.Dump.
func undump(t *testing.T, dump string) (b []byte) {
	t.Helper()
	for line := range strings.Lines(dump) {
		line, _, _ = strings.Cut(line, "|")
		fields := strings.Fields(line)
		for _, f := range fields[min(1, len(fields)):] {
			d, err := hex.DecodeString(f)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, d...)
		}
	}
	return b
}

func TestChunkKey(t *testing.T) {
	key := ChunkKey(goldenID)
	h := goldenID.Hash.String()
	if want := "c/" + h[:2] + "/" + h + "-1f2e"; key != want {
		t.Errorf("key %s, want %s", key, want)
	}
	longest := ChunkKey(fs.ChunkID{Gen: ^fs.Index(0)})
	if err := object.CheckKey(longest); err != nil {
		t.Errorf("%s: %v", longest, err)
	}
}

// TestRecordChecksEveryByte: no single changed, missing or added byte passes.
func TestRecordChecksEveryByte(t *testing.T) {
	whole := record(goldenID, goldenChunk)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		_, err := Open(b, goldenID)
		wantKind(t, "a changed byte", err, fs.ErrCorrupt)
		_, err = Open(whole[:i], goldenID)
		wantKind(t, "a cut record", err, fs.ErrCorrupt)
	}
	_, err := Open(append(bytes.Clone(whole), 0), goldenID)
	wantKind(t, "a longer record", err, fs.ErrCorrupt)
	for _, other := range []fs.ChunkID{{Hash: goldenID.Hash, Gen: 1}, {Hash: sha256.Sum256(nil), Gen: goldenID.Gen}} {
		_, err := Open(whole, other)
		wantKind(t, "another chunk's record", err, fs.ErrCorrupt)
	}
}

// reseal makes the checksums of a header right after a change.
func reseal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[56:], crc32.Checksum(b[recordHeader:], castagnoli))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// record makes the record of a chunk that does not compress.
func record(id fs.ChunkID, b []byte) []byte { return AppendRecord(nil, id, b) }

func wantKind(t *testing.T, what string, err error, want fs.Kind) {
	t.Helper()
	if fs.KindOf(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantBytes(t *testing.T, what string, got []byte, err error, want []byte) {
	t.Helper()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d", what, len(got), err, len(want))
	}
}

func TestRecordWithRightChecksumsAndWrongContent(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(b []byte)
		kind   fs.Kind
	}{
		{"newer version", func(b []byte) { b[4] = 2 }, fs.ErrNotSupported},
		{"unknown codec", func(b []byte) { b[5] = 2 }, fs.ErrNotSupported},
		{"no zstd frame", func(b []byte) { b[5] = codecZstd }, fs.ErrCorrupt},
		{"stored size", func(b []byte) { b[8]++ }, fs.ErrCorrupt},
		{"size", func(b []byte) { b[12]++ }, fs.ErrCorrupt},
		{"content", func(b []byte) { b[recordHeader] ^= 1 }, fs.ErrCorrupt},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := record(goldenID, goldenChunk)
			row.change(b)
			_, err := Open(reseal(b), goldenID)
			wantKind(t, "Open", err, row.kind)
		})
	}
}

// TestRecordCompresses: what pays is compressed, what does not is not, and both
// come back.
func TestRecordCompresses(t *testing.T) {
	noise := make([]byte, 100_000)
	rnd := rand.NewChaCha8([32]byte{})
	rnd.Read(noise)
	text := bytes.Repeat([]byte("wp_enqueue_script( 'jquery' );\n"), fs.ChunkMax/31)
	for _, row := range []struct {
		name  string
		chunk []byte
		codec byte
		most  int
	}{
		{"noise", noise, codecRaw, len(noise)},
		{"text", text, codecZstd, len(text) / 100},
		{"one byte", []byte{7}, codecRaw, 1},
		{"zeros", make([]byte, fs.ChunkMax), codecZstd, 1000},
	} {
		t.Run(row.name, func(t *testing.T) {
			id := fs.ChunkID{Hash: sha256.Sum256(row.chunk), Gen: 9}
			b := AppendRecord([]byte("before"), id, row.chunk)[len("before"):]
			if b[5] != row.codec || len(b) > row.most+recordHeader {
				t.Errorf("codec %d, %d bytes; want %d, at most %d", b[5], len(b), row.codec, row.most)
			}
			got, err := Open(b, id)
			wantBytes(t, "Open", got, err, row.chunk)
		})
	}
}

// TestRecordThatExpandsTooFar: a frame of more bytes than the header says is not
// expanded.
func TestRecordThatExpandsTooFar(t *testing.T) {
	big := make([]byte, fs.ChunkMax)
	id := fs.ChunkID{Hash: sha256.Sum256(big[:100]), Gen: 9}
	b := AppendRecord(nil, id, big)
	seal(b, id, codecZstd, 100)
	_, err := Open(b, id)
	wantKind(t, "Open", err, fs.ErrCorrupt)
}

func FuzzOpenRecord(f *testing.F) {
	f.Add(record(goldenID, goldenChunk))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Open(b, goldenID); err == nil && !bytes.Equal(got, goldenChunk) {
			t.Errorf("%d bytes passed", len(got))
		}
	})
}
