package meta

import (
	"errors"

	"github.com/wpfs/wpfs/fs"
)

var errPackCount = errors.New("a pack has fewer chunks than were taken from it")

// storePack records a pack and moves chunks into it.
func (t *tx) storePack(o fs.StorePack) error {
	if o.Pack == (fs.PackID{}) || o.Size == 0 || o.Size > fs.PackMax {
		return fs.ErrInvalid
	}
	for _, c := range o.Chunks {
		if c.Len == 0 || c.Len > o.Size || c.Off > o.Size-c.Len || c.From == o.Pack {
			return fs.ErrInvalid
		}
	}
	p, ok, err := t.pack(o.Pack)
	if err != nil || ok && p.condemned != 0 {
		return err
	}
	if !ok {
		p = packRecord{size: uint64(o.Size), made: t.at}
	}
	for _, c := range o.Chunks {
		if err := t.placeChunk(o.Pack, &p, c); err != nil {
			return err
		}
	}
	t.putPack(o.Pack, p)
	return nil
}

// placeChunk makes pack id, whose record is p, the place of a chunk that is not
// durable or in the pack that c says.
func (t *tx) placeChunk(id fs.PackID, p *packRecord, c fs.Placed) error {
	r, ok, err := t.chunk(c.Chunk)
	if err != nil || !ok || r.condemned != 0 {
		return err
	}
	moved := c.From != (fs.PackID{})
	if r.durable != moved || moved && r.place.Pack != c.From {
		return nil
	}
	if moved {
		if err := t.leavePack(r.place, true, true); err != nil {
			return err
		}
	} else if err := t.becomeDurable(c.Chunk, &r); err != nil {
		return err
	}
	r.place = fs.Place{Pack: id, Off: c.Off, Len: c.Len}
	t.o.put(keyChunk(kindChunk, c.Chunk), r.encode())
	p.chunks++
	p.live++
	p.liveBytes += uint64(c.Len)
	return nil
}

// leavePack counts a chunk less in its pack: among the live ones, and among those
// whose record names it. A chunk without a pack is fine.
func (t *tx) leavePack(at fs.Place, live, record bool) error {
	if at.Pack == (fs.PackID{}) {
		return nil
	}
	p, ok, err := t.pack(at.Pack)
	if err != nil {
		return err
	}
	if !ok || live && (p.live == 0 || p.liveBytes < uint64(at.Len)) || record && p.chunks == 0 {
		return corrupt("take a chunk from pack "+at.Pack.String(), errPackCount)
	}
	if live {
		p.live--
		p.liveBytes -= uint64(at.Len)
	}
	if record {
		p.chunks--
	}
	t.putPack(at.Pack, p)
	return nil
}

// putPack writes a pack's record. Without a live chunk it is condemned.
func (t *tx) putPack(id fs.PackID, p packRecord) {
	if p.live == 0 && p.condemned == 0 {
		p.condemned, p.since = t.at, t.now
	}
	t.o.put(keyPack(id), p.encode())
}

// condemn gives up chunks that nothing cites. One that this very entry made is
// skipped, so that a condemned chunk is always older than who cites its bytes
// again.
func (t *tx) condemn(o fs.Condemn) error {
	for _, id := range o.Chunks {
		r, ok, err := t.chunk(id)
		if err != nil {
			return err
		}
		if !ok || r.refs > 0 || r.condemned != 0 || id.Gen >= t.at {
			continue
		}
		r.condemned, r.since = t.at, t.now
		t.o.put(keyChunk(kindChunk, id), r.encode())
		if err := t.leavePack(r.place, true, false); err != nil {
			return err
		}
	}
	for _, id := range o.Packs {
		_, ok, err := t.pack(id)
		if err != nil {
			return err
		}
		if !ok && id != (fs.PackID{}) {
			t.putPack(id, packRecord{made: t.at})
		}
	}
	return nil
}

// forgetGarbage deletes the records of what was condemned by an earlier entry.
func (t *tx) forgetGarbage(o fs.Forget) error {
	for _, id := range o.Chunks {
		r, ok, err := t.chunk(id)
		if err != nil {
			return err
		}
		if !ok || r.condemned == 0 || r.condemned == t.at {
			continue
		}
		t.o.del(keyChunk(kindChunk, id))
		if err := t.leavePack(r.place, false, true); err != nil {
			return err
		}
	}
	for _, id := range o.Packs {
		p, ok, err := t.pack(id)
		if err != nil {
			return err
		}
		if ok && p.condemned != 0 && p.condemned != t.at && p.chunks == 0 {
			t.o.del(keyPack(id))
		}
	}
	return nil
}
