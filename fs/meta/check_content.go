package meta

import (
	"crypto/sha256"
	"fmt"
	"sort"

	"github.com/wpfs/wpfs/fs"
)

// chunkFacts is what a chunk record says and what others say about the chunk.
type chunkFacts struct {
	chunkRecord
	cited     uint64
	content   bool // there is a record of inline content
	undurable bool // it is in the list of those
}

func (c *checker) loadChunks() {
	c.each(kindChunk, func(k, v []byte) {
		id := chunkOfKey(k)
		r, err := decodeChunk(v)
		if err != nil {
			c.report("chunk "+id.String(), "%v", err)
			return
		}
		c.chunks[id] = &chunkFacts{chunkRecord: r}
		if id.Gen > c.applied {
			c.report("chunk "+id.String(), "made later than %d, which is applied", c.applied)
		}
		if r.size == 0 || r.size > fs.ChunkMax {
			c.report("chunk "+id.String(), "%d bytes", r.size)
		}
	})
}

// checkExtents relies on extents of one file coming in the order of offsets.
func (c *checker) checkExtents() {
	c.each(kindExtent, func(k, v []byte) {
		ino, off := fs.Ino(keyHead(k)), keyTail(k)
		where := fmt.Sprintf("extent of inode %d at %d", ino, off)
		x, err := decodeExtent(off, v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		n := c.inodes[ino]
		if n == nil || !n.IsRegular() {
			c.report(where, "the inode is no file")
			return
		}
		if x.Len == 0 || x.Off > n.Size || x.Len > n.Size-x.Off {
			c.report(where, "%d bytes long in a file of %d", x.Len, n.Size)
		}
		if off < n.extEnd {
			c.report(where, "the extent before ends at %d", n.extEnd)
		}
		n.extEnd = off + x.Len
		n.covered += x.Len
		ch := c.chunks[x.Chunk]
		if ch == nil {
			c.report(where, "cites chunk %s, which is missing", x.Chunk)
			return
		}
		ch.cited++
		if uint64(x.ChunkOff)+x.Len > uint64(ch.size) {
			c.report(where, "bytes %d+%d of a chunk of %d", x.ChunkOff, x.Len, ch.size)
		}
	})
	for _, ino := range c.order {
		if n := c.inodes[ino]; n.Bytes != n.covered {
			c.report("inode "+ino.String(), "says %d bytes in extents, has %d", n.Bytes, n.covered)
		}
	}
}

func (c *checker) checkInline() {
	c.each(kindInline, func(k, v []byte) {
		id := chunkOfKey(k)
		where := "inline content of " + id.String()
		b, err := decodeBlob("inline content", v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		ch := c.chunks[id]
		if ch == nil || !ch.inline {
			c.report(where, "the chunk is missing or not inline")
			return
		}
		ch.content = true
		if uint64(len(b)) != uint64(ch.size) || fs.Hash(sha256.Sum256(b)) != id.Hash {
			c.report(where, "%d bytes that do not have the chunk's size %d and hash", len(b), ch.size)
		}
	})
}

func (c *checker) checkUndurable() {
	c.each(kindUndurable, func(k, v []byte) {
		id := chunkOfUndurable(k)
		if ch := c.chunks[id]; ch == nil {
			c.report("undurable "+id.String(), "the chunk is missing")
		} else {
			ch.undurable = true
		}
		if len(v) != 1 || v[0] != recordVersion {
			c.report("undurable "+id.String(), "value %x", v)
		}
	})
	c.checkFacts()
}

// checkFacts compares what all the records said about each chunk.
func (c *checker) checkFacts() {
	for _, id := range c.sortedChunks() {
		ch, where := c.chunks[id], "chunk "+id.String()
		if owed := !ch.durable && ch.refs > 0 && !ch.lost(); ch.undurable != owed {
			c.report(where, "durable: %t, %d references, in the list of those to be uploaded: %t", ch.durable, ch.refs, ch.undurable)
		}
		if ch.inline != ch.content {
			c.report(where, "inline: %t, content there: %t", ch.inline, ch.content)
		}
	}
}

func (c *checker) checkChunks() {
	for _, id := range c.sortedChunks() {
		ch, where := c.chunks[id], "chunk "+id.String()
		if ch.refs != ch.cited {
			c.report(where, "%d references, %d extents cite it", ch.refs, ch.cited)
		}
		if ch.inline && (ch.durable || ch.refs == 0) {
			c.report(where, "inline with %d references, durable: %t", ch.refs, ch.durable)
		}
		if ch.lost() && len(c.lost) < ProblemsMax {
			c.lost = append(c.lost, Problem{Where: where, What: "nobody has it", Lost: true})
		}
		if ch.condemned != 0 && (ch.refs > 0 || ch.condemned <= id.Gen || ch.condemned > c.applied) {
			c.report(where, "condemned at %d with %d references, %d is applied", ch.condemned, ch.refs, c.applied)
		}
		if ch.place != (fs.Place{}) && (ch.place.Pack == fs.PackID{} || !ch.durable) {
			c.report(where, "in pack %s, durable: %t", ch.place.Pack, ch.durable)
		}
	}
}

// checkPacks compares what packs say of their chunks with what chunks say.
func (c *checker) checkPacks() {
	said := map[fs.PackID]*packRecord{}
	for _, id := range c.sortedChunks() {
		ch := c.chunks[id]
		at := ch.place
		if at.Pack == (fs.PackID{}) {
			continue
		}
		r := said[at.Pack]
		if r == nil {
			r = &packRecord{}
			said[at.Pack] = r
		}
		r.chunks++
		if ch.condemned == 0 {
			r.live++
			r.liveBytes += uint64(at.Len)
		}
		if p, ok, err := c.pack(at.Pack); err != nil || !ok || at.Len == 0 || uint64(at.Off)+uint64(at.Len) > p.size {
			c.report("chunk "+id.String(), "bytes %d+%d of pack %s of %d (%v)", at.Off, at.Len, at.Pack, p.size, err)
		}
	}
	c.each(kindPack, func(k, v []byte) {
		id := packOfKey(k)
		where := "pack " + id.String()
		r, err := decodePack(v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		want := said[id]
		if want == nil {
			want = &packRecord{}
		}
		if r.chunks != want.chunks || r.live != want.live || r.liveBytes != want.liveBytes {
			c.report(where, "says %d chunks, %d of them live with %d bytes, the chunks say %d, %d, %d",
				r.chunks, r.live, r.liveBytes, want.chunks, want.live, want.liveBytes)
		}
		if (r.condemned != 0) != (r.live == 0) || r.condemned > c.applied || r.made > c.applied || r.size > fs.PackMax {
			c.report(where, "%d bytes, made at %d, condemned at %d with %d live chunks, %d is applied", r.size, r.made, r.condemned, r.live, c.applied)
		}
	})
}

// sortedChunks makes the order of reports the same each time.
func (c *checker) sortedChunks() []fs.ChunkID {
	ids := make([]fs.ChunkID, 0, len(c.chunks))
	for id := range c.chunks {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool {
		return string(keyChunk(kindChunk, ids[i])) < string(keyChunk(kindChunk, ids[j]))
	})
	return ids
}
