package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/wpfs/wpfs/fs"
)

// A record is a chunk on its way into the object store: a header that says what
// follows, then the chunk. Bytes of version 1 are in testdata for ever.
const (
	recordMagic   = "WPFC"
	recordVersion = 1
	recordHeader  = 64
	codecRaw      = 0 // the chunk's bytes as they are
	codecZstd     = 1 // one zstd frame
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ChunkPrefix is what the keys of objects begin with that hold one chunk each.
const ChunkPrefix = "c/"

// ChunkKey is the key of an object that holds one chunk as a record, the way the
// first releases stored all of them.
func ChunkKey(id fs.ChunkID) string {
	s := id.String()
	return ChunkPrefix + s[:2] + "/" + s
}

// AppendRecord appends the record of a chunk to b, compressed if that pays.
func AppendRecord(b []byte, id fs.ChunkID, chunk []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, recordHeader)...)
	codec := byte(codecZstd)
	b = encoder.EncodeAll(chunk, b)
	if len(b)-at-recordHeader > len(chunk)-len(chunk)/paysShare {
		codec = codecRaw
		b = append(b[:at+recordHeader], chunk...)
	}
	seal(b[at:], id, codec, len(chunk))
	return b
}

// seal writes the header of the record b, whose content is in place behind it.
func seal(b []byte, id fs.ChunkID, codec byte, size int) {
	stored := b[recordHeader:]
	le := binary.LittleEndian
	copy(b, recordMagic)
	b[4], b[5], b[6], b[7] = recordVersion, codec, 0, 0
	le.PutUint32(b[8:], uint32(len(stored)))
	le.PutUint32(b[12:], uint32(size))
	le.PutUint64(b[16:], uint64(id.Gen))
	copy(b[24:56], id.Hash[:])
	le.PutUint32(b[56:], crc32.Checksum(stored, castagnoli))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// head is what a record's header says.
type head struct {
	id     fs.ChunkID
	codec  byte
	stored uint32 // bytes behind the header
	size   uint32 // of the chunk
	crc    uint32 // of what is stored
}

// readHead checks a header. ErrCorrupt, or ErrNotSupported if a newer version
// wrote it.
func readHead(b []byte) (h head, err error) {
	if len(b) < recordHeader {
		return h, recordError("", "%d bytes are no record", len(b))
	}
	le := binary.LittleEndian
	if string(b[:4]) != recordMagic {
		return h, recordError("", "it starts with %q", b[:4])
	}
	if got, want := crc32.Checksum(b[:60], castagnoli), le.Uint32(b[60:]); got != want {
		return h, recordError("", "the header's checksum is %08x, it says %08x", got, want)
	}
	h = head{codec: b[5], stored: le.Uint32(b[8:]), size: le.Uint32(b[12:]), crc: le.Uint32(b[56:])}
	h.id = fs.ChunkID{Hash: fs.Hash(b[24:56]), Gen: fs.Index(le.Uint64(b[16:]))}
	if b[4] != recordVersion || h.codec > codecZstd {
		return h, &fs.Error{Op: "open record", Name: h.id.String(), Kind: fs.ErrNotSupported,
			Err: fmt.Errorf("version %d, codec %d: install the version of wpfs that wrote it", b[4], h.codec)}
	}
	if h.size == 0 || h.size > fs.ChunkMax || h.stored == 0 || h.codec == codecRaw && h.stored != h.size {
		return h, recordError(h.id.String(), "it has %d bytes that stand for %d", h.stored, h.size)
	}
	return h, nil
}

// Open checks the record b from its first byte to its last and returns the chunk
// in it, which may share b's memory. ErrCorrupt unless it is the whole chunk id;
// ErrNotSupported if a newer version wrote it.
func Open(b []byte, id fs.ChunkID) ([]byte, error) {
	h, err := readHead(b)
	if err != nil {
		return nil, err
	}
	if h.id != id {
		return nil, recordError(id.String(), "it holds %s", h.id)
	}
	return h.open(b[recordHeader:])
}

// open is Open for what is behind the header.
func (h head) open(stored []byte) ([]byte, error) {
	name := h.id.String()
	if uint64(h.stored) != uint64(len(stored)) {
		return nil, recordError(name, "it has %d bytes of content, it says %d", len(stored), h.stored)
	}
	if got := crc32.Checksum(stored, castagnoli); got != h.crc {
		return nil, recordError(name, "the content's checksum is %08x, it says %08x", got, h.crc)
	}
	chunk := stored
	if h.codec == codecZstd {
		var err error
		if chunk, err = decoder.DecodeAll(stored, make([]byte, 0, h.size)); err != nil || len(chunk) != int(h.size) {
			return nil, recordError(name, "it expands to %d bytes instead of %d (%v)", len(chunk), h.size, err)
		}
	}
	if sum := sha256.Sum256(chunk); sum != h.id.Hash {
		return nil, recordError(name, "the content has hash %x", sum)
	}
	return chunk, nil
}

func recordError(name, format string, args ...any) error {
	return &fs.Error{Op: "open record", Name: name, Kind: fs.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}
