package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/wpfs/wpfs/fs"
)

// A record is a chunk on its way into the object store: a header that says what
// follows, then the chunk. docs/format/objects.md has the picture; bytes of
// version 1 are in testdata for ever.
const (
	recordMagic   = "WPFC"
	recordVersion = 1
	recordHeader  = 64
	codecRaw      = 0 // the chunk's bytes as they are
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ObjectKey is the key of the object that holds one chunk.
func ObjectKey(id fs.ChunkID) string {
	s := id.String()
	return "c/" + s[:2] + "/" + s
}

// sealRecord writes the header of the record b, whose chunk is in place behind
// it already.
func sealRecord(b []byte, id fs.ChunkID) {
	chunk := b[recordHeader:]
	le := binary.LittleEndian
	copy(b, recordMagic)
	b[4], b[5], b[6], b[7] = recordVersion, codecRaw, 0, 0
	le.PutUint32(b[8:], uint32(len(chunk)))
	le.PutUint32(b[12:], uint32(len(chunk)))
	le.PutUint64(b[16:], uint64(id.Gen))
	copy(b[24:56], id.Hash[:])
	le.PutUint32(b[56:], crc32.Checksum(chunk, castagnoli))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// openRecord checks the record b from its first byte to its last and returns
// the chunk in it, which shares b's memory. ErrCorrupt unless it is the whole
// chunk id; ErrNotSupported if a newer version wrote it.
func openRecord(b []byte, id fs.ChunkID) ([]byte, error) {
	if len(b) < recordHeader {
		return nil, recordError(id, "%d bytes are no record", len(b))
	}
	le := binary.LittleEndian
	if string(b[:4]) != recordMagic {
		return nil, recordError(id, "it starts with %q", b[:4])
	}
	if got, want := crc32.Checksum(b[:60], castagnoli), le.Uint32(b[60:]); got != want {
		return nil, recordError(id, "the header's checksum is %08x, it says %08x", got, want)
	}
	if b[4] != recordVersion || b[5] != codecRaw {
		return nil, &fs.Error{Op: "open record", Name: id.String(), Kind: fs.ErrNotSupported,
			Err: fmt.Errorf("version %d, codec %d: install the version of wpfs that wrote it", b[4], b[5])}
	}
	if gen := fs.Index(le.Uint64(b[16:])); fs.Hash(b[24:56]) != id.Hash || gen != id.Gen {
		return nil, recordError(id, "it holds %x-%x", b[24:56], uint64(gen))
	}
	chunk := b[recordHeader:]
	if stored, size := le.Uint32(b[8:]), le.Uint32(b[12:]); uint64(stored) != uint64(len(chunk)) || size != stored {
		return nil, recordError(id, "it has %d bytes of content, it says %d of %d", len(chunk), stored, size)
	}
	if got, want := crc32.Checksum(chunk, castagnoli), le.Uint32(b[56:]); got != want {
		return nil, recordError(id, "the content's checksum is %08x, it says %08x", got, want)
	}
	if sum := sha256.Sum256(chunk); sum != id.Hash {
		return nil, recordError(id, "the content has hash %x", sum)
	}
	return chunk, nil
}

func recordError(id fs.ChunkID, format string, args ...any) error {
	return &fs.Error{Op: "open record", Name: id.String(), Kind: fs.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}
