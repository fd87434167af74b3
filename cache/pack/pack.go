package pack

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"

	"github.com/wpfs/wpfs/fs"
)

// A pack ends in an index of its records and a footer of fixed size.
const (
	packMagic   = "WPFP"
	packVersion = 1
	entrySize   = 48
	footerSize  = 40
)

// ChunksMax is how many chunks one pack holds, so that the command that records
// it stays small.
const ChunksMax = 2048

// Alone is the size from which a chunk gets a pack of its own. At this size the
// transfer costs as much as the request, and company would only make the pack
// harder to reclaim. A chunk has at most 4 MiB, an object at most 8: sending one
// in parts (S3's multipart upload) would cost three requests instead of one.
const Alone = 1 << 20

// NewID draws the name of a new pack.
func NewID() (id fs.PackID) {
	rand.Read(id[:]) // never fails, by its documentation
	return id
}

// Prefix is what the keys of packs begin with.
const Prefix = "p/"

// Key is the key of a pack's object.
func Key(id fs.PackID) string {
	s := id.String()
	return Prefix + s[:2] + "/" + s
}

// ParseKey is the inverse of Key; false if key is none of it.
func ParseKey(key string) (id fs.PackID, ok bool) {
	const head = len(Prefix) + 3
	if len(key) != head+2*len(id) || key[:len(Prefix)] != Prefix {
		return id, false
	}
	for i := range id {
		hi, lo := unhex(key[head+2*i]), unhex(key[head+2*i+1])
		if hi > 15 || lo > 15 {
			return id, false
		}
		id[i] = hi<<4 | lo
	}
	return id, Key(id) == key
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// Entry is one line of a pack's index.
type Entry struct {
	ID  fs.ChunkID
	Off uint32
	Len uint32 // of the record, its header included
}

// Builder puts a pack together in memory.
type Builder struct {
	b       []byte
	entries []Entry
}

// Add appends a chunk, compressed if that pays. It reports false, and leaves the
// pack as it was, if the pack would grow beyond fs.PackMax or hold more than
// ChunksMax chunks. The chunk is not kept.
func (p *Builder) Add(id fs.ChunkID, chunk []byte) bool {
	if len(p.entries) == ChunksMax {
		return false
	}
	at := len(p.b)
	p.b = AppendRecord(p.b, id, chunk)
	if len(p.b)+(len(p.entries)+1)*entrySize+footerSize > fs.PackMax {
		p.b = p.b[:at]
		return false
	}
	p.entries = append(p.entries, Entry{id, uint32(at), uint32(len(p.b) - at)})
	return true
}

// Entries lists what was added, in order.
func (p *Builder) Entries() []Entry { return p.entries }

// Finish appends index and footer and returns the object. The Builder must not
// be used afterwards.
func (p *Builder) Finish(id fs.PackID) []byte {
	le := binary.LittleEndian
	at := len(p.b)
	for _, e := range p.entries {
		p.b = append(p.b, e.ID.Hash[:]...)
		p.b = le.AppendUint64(p.b, uint64(e.ID.Gen))
		p.b = le.AppendUint32(p.b, e.Off)
		p.b = le.AppendUint32(p.b, e.Len)
	}
	index := p.b[at:]
	var f [footerSize]byte
	copy(f[:], packMagic)
	f[4] = packVersion
	copy(f[8:24], id[:])
	le.PutUint32(f[24:], uint32(len(p.entries)))
	le.PutUint32(f[28:], uint32(at))
	le.PutUint32(f[32:], crc32.Checksum(index, castagnoli))
	le.PutUint32(f[36:], crc32.Checksum(f[:36], castagnoli))
	return append(p.b, f[:]...)
}
