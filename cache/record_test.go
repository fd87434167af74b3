package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew; only for a new version, old files stay")

var goldenID = fs.ChunkID{Hash: hashOf(goldenChunk), Gen: 0x1f2e}

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
	got, err := openRecord(undump(t, string(dump)), goldenID)
	wantBytes(t, "openRecord", got, err, goldenChunk)
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

func TestObjectKey(t *testing.T) {
	key := ObjectKey(goldenID)
	h := goldenID.Hash.String()
	if want := "c/" + h[:2] + "/" + h + "-1f2e"; key != want {
		t.Errorf("key %s, want %s", key, want)
	}
	longest := ObjectKey(fs.ChunkID{Gen: ^fs.Index(0)})
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
		_, err := openRecord(b, goldenID)
		wantKind(t, "a changed byte", err, fs.ErrCorrupt)
		_, err = openRecord(whole[:i], goldenID)
		wantKind(t, "a cut record", err, fs.ErrCorrupt)
	}
	_, err := openRecord(append(bytes.Clone(whole), 0), goldenID)
	wantKind(t, "a longer record", err, fs.ErrCorrupt)
	for _, other := range []fs.ChunkID{{Hash: goldenID.Hash, Gen: 1}, {Hash: hashOf(nil), Gen: goldenID.Gen}} {
		_, err := openRecord(whole, other)
		wantKind(t, "another chunk's record", err, fs.ErrCorrupt)
	}
}

// reseal makes the checksums of a header right after a change.
func reseal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[56:], crc32.Checksum(b[recordHeader:], castagnoli))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func TestRecordWithRightChecksumsAndWrongContent(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(b []byte)
		kind   fs.Kind
	}{
		{"newer version", func(b []byte) { b[4] = 2 }, fs.ErrNotSupported},
		{"unknown codec", func(b []byte) { b[5] = 1 }, fs.ErrNotSupported},
		{"stored size", func(b []byte) { b[8]++ }, fs.ErrCorrupt},
		{"size", func(b []byte) { b[12]++ }, fs.ErrCorrupt},
		{"content", func(b []byte) { b[recordHeader] ^= 1 }, fs.ErrCorrupt},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := record(goldenID, goldenChunk)
			row.change(b)
			_, err := openRecord(reseal(b), goldenID)
			wantKind(t, "openRecord", err, row.kind)
		})
	}
}

func FuzzOpenRecord(f *testing.F) {
	f.Add(record(goldenID, goldenChunk))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := openRecord(b, goldenID); err == nil && !bytes.Equal(got, goldenChunk) {
			t.Errorf("%d bytes passed", len(got))
		}
	})
}
