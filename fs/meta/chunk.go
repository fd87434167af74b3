package meta

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/wpfs/wpfs/fs"
)

var errRefs = errors.New("more extents than references")

// citeData adds a reference to the chunk with these bytes, making it if there is
// none.
func (t *tx) citeData(b []byte) (fs.ChunkID, error) {
	h := fs.Hash(sha256.Sum256(b))
	id, r, ok, err := t.newestChunk(h)
	if err != nil {
		return id, err
	}
	if ok && r.condemned != 0 {
		ok = false // given up: these bytes begin a new generation
	}
	if ok && r.size != uint32(len(b)) {
		// Somebody cited the hash with a false size. Here are the bytes, so
		// they win, under a name of their own.
		if id.Gen == t.at {
			return id, fs.ErrInvalid
		}
		ok = false
	}
	if !ok {
		id = fs.ChunkID{Hash: h, Gen: t.at}
		r = chunkRecord{size: uint32(len(b))}
	}
	if !r.durable && (r.refs == 0 || r.lost()) {
		t.o.put(keyUndurable(id), []byte{recordVersion}) // it is new, left the backlog with its last reference, or was lost
	}
	// Keep the bytes here until the object store has them, even if some nodes had
	// them on disk: those may be gone, and here they are.
	if !r.durable && !r.inline {
		t.o.put(keyChunk(kindInline, id), encodeBlob(b))
		r.inline = true
	}
	r.refs++
	t.o.put(keyChunk(kindChunk, id), r.encode())
	return id, nil
}

// citeHeld adds a reference to a chunk that nodes have on disk. Without holders
// the piece copies content that the metadata knows already.
func (t *tx) citeHeld(p *fs.Piece) (fs.ChunkID, error) {
	id, r, ok, err := t.newestChunk(p.Hash)
	if err != nil {
		return id, err
	}
	if ok && r.condemned != 0 {
		ok = false // given up: these bytes begin a new generation
	}
	safe := ok && (r.durable || r.inline || r.refs > 0)
	if ok && r.size != p.ChunkLen || !safe && len(p.Holders) == 0 {
		return id, fs.ErrInvalid
	}
	if !ok {
		id = fs.ChunkID{Hash: p.Hash, Gen: t.at}
		r = chunkRecord{size: p.ChunkLen}
	}
	if !safe {
		r.holders = nil // those of an uncited chunk may have dropped it
	}
	if !r.durable && (r.refs == 0 || r.lost() && len(p.Holders) > 0) {
		t.o.put(keyUndurable(id), []byte{recordVersion})
	}
	if !r.durable {
		r.holders = mergeNodes(r.holders, p.Holders)
	}
	r.refs++
	t.o.put(keyChunk(kindChunk, id), r.encode())
	return id, nil
}

// mergeNodes returns the sorted union of two lists.
func mergeNodes(a, b []fs.NodeID) []fs.NodeID {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// addRefs changes how many extents cite a chunk. One whose content is inside the
// metadata goes with its last reference; others stay for the collector, but
// nobody needs to upload them any more.
func (t *tx) addRefs(id fs.ChunkID, delta int) error {
	if delta == 0 {
		return nil
	}
	r, err := t.mustChunk(id)
	if err != nil {
		return err
	}
	if delta < 0 && r.refs < uint64(-delta) {
		return corrupt("drop chunk "+id.String(), errRefs)
	}
	r.refs += uint64(int64(delta))
	if r.refs == 0 {
		t.o.del(keyUndurable(id))
	}
	if r.refs > 0 || !r.inline {
		t.o.put(keyChunk(kindChunk, id), r.encode())
		return nil
	}
	t.o.del(keyChunk(kindChunk, id))
	t.o.del(keyChunk(kindInline, id)) // nobody reads it any more: it is not handed to the disk
	return nil
}

// dropInline deletes a chunk's content from the store.
func (t *tx) dropInline(id fs.ChunkID) error {
	b, err := t.inline(id)
	if err != nil {
		return err
	}
	t.o.del(keyChunk(kindInline, id))
	t.cmdDropped = append(t.cmdDropped, droppedInline{id, bytes.Clone(b)})
	return nil
}

// markDurable records that the object store has chunks as objects of their own.
// Unknown ones are skipped: their last reference went while they were on the way.
func (t *tx) markDurable(o fs.MarkDurable) error {
	for _, id := range o.Chunks {
		r, ok, err := t.chunk(id)
		if err != nil {
			return err
		}
		if !ok || r.durable || r.condemned != 0 {
			continue
		}
		if err := t.becomeDurable(id, &r); err != nil {
			return err
		}
		t.o.put(keyChunk(kindChunk, id), r.encode())
	}
	return nil
}

// markLost records that nobody has chunks any more. Nobody can upload them either,
// so they are not in the list of those that wait for it until they are written again.
func (t *tx) markLost(o fs.MarkLost) error {
	for _, id := range o.Chunks {
		r, ok, err := t.chunk(id)
		if err != nil {
			return err
		}
		if !ok || r.condemned != 0 || !r.durable && len(r.holders) == 0 {
			continue
		}
		if err := t.leavePack(r.place, true, true); err != nil {
			return err
		}
		r.durable, r.place, r.holders = false, fs.Place{}, nil
		if r.lost() {
			t.o.del(keyUndurable(id))
		}
		t.o.put(keyChunk(kindChunk, id), r.encode())
	}
	return nil
}

// lost tells that nobody has the chunk.
func (r *chunkRecord) lost() bool { return !r.durable && !r.inline && len(r.holders) == 0 }

// becomeDurable changes r, which the caller writes, and what lists the chunk.
func (t *tx) becomeDurable(id fs.ChunkID, r *chunkRecord) error {
	if r.inline {
		if err := t.dropInline(id); err != nil {
			return err
		}
	}
	r.durable, r.inline = true, false
	t.o.del(keyUndurable(id))
	return nil
}
