package meta

import (
	"errors"
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// reader gives the records of a store their types. The same code reads for the
// view (over the store) and for Apply (over the overlay).
type reader struct{ src Reader }

var errMissing = errors.New("a record that others name is missing")

// inode reads an inode record; nil if there is none.
func (r reader) inode(ino fs.Ino) (*inode, error) {
	b, ok, err := r.src.Get(keyInode(ino))
	if err != nil || !ok {
		return nil, err
	}
	return decodeInode(ino, b)
}

func (r reader) entry(dir fs.Ino, name string) (x entryRecord, ok bool, err error) {
	b, ok, err := r.src.Get(keyEntry(dir, name))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = decodeEntry(b)
	return x, true, err
}

// extents returns the extents of ino that overlap [off, end), whole, in order.
func (r reader) extents(ino fs.Ino, off, end uint64) ([]fs.Extent, error) {
	if off >= end {
		return nil, nil
	}
	var list []fs.Extent
	if off > 0 {
		x, ok, err := r.extentBefore(ino, off)
		if err != nil {
			return nil, err
		}
		if ok && x.Off+x.Len > off {
			list = append(list, x)
		}
	}
	var bad error
	err := r.src.Scan(keyExtent(ino, off), keyExtent(ino, end), func(k, v []byte) bool {
		var x fs.Extent
		x, bad = decodeExtent(keyTail(k), v)
		list = append(list, x)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return list, err
}

// extentBefore finds the last extent of ino that begins before off.
func (r reader) extentBefore(ino fs.Ino, off uint64) (x fs.Extent, ok bool, err error) {
	k, v, ok, err := r.src.Last(keyExtent(ino, 0), keyExtent(ino, off))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = decodeExtent(keyTail(k), v)
	return x, true, err
}

func (r reader) chunk(id fs.ChunkID) (x chunkRecord, ok bool, err error) {
	b, ok, err := r.src.Get(keyChunk(kindChunk, id))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = decodeChunk(b)
	return x, true, err
}

// mustChunk reads the record of a chunk that an extent cites.
func (r reader) mustChunk(id fs.ChunkID) (chunkRecord, error) {
	x, ok, err := r.chunk(id)
	if err == nil && !ok {
		err = corrupt("read chunk "+id.String(), errMissing)
	}
	return x, err
}

func (r reader) pack(id fs.PackID) (x packRecord, ok bool, err error) {
	b, ok, err := r.src.Get(keyPack(id))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = decodePack(b)
	return x, true, err
}

// newestChunk finds the chunk with these bytes that was made last.
func (r reader) newestChunk(h fs.Hash) (id fs.ChunkID, x chunkRecord, ok bool, err error) {
	lo := keyChunk(kindChunk, fs.ChunkID{Hash: h})
	k, v, ok, err := r.src.Last(lo, after(lo[:33]))
	if err != nil || !ok {
		return id, x, false, err
	}
	x, err = decodeChunk(v)
	return chunkOfKey(k), x, true, err
}

// inline reads the content of a chunk that has it in the store.
func (r reader) inline(id fs.ChunkID) ([]byte, error) {
	b, ok, err := r.src.Get(keyChunk(kindInline, id))
	if err == nil && !ok {
		err = corrupt("read inline content of "+id.String(), errMissing)
	}
	if err != nil {
		return nil, err
	}
	return decodeBlob("inline content", b)
}

func (r reader) xattr(ino fs.Ino, name string) (v []byte, ok bool, err error) {
	b, ok, err := r.src.Get(keyXattr(ino, name))
	if err != nil || !ok {
		return nil, false, err
	}
	v, err = decodeBlob("xattr", b)
	return v, true, err
}

// xattrs calls f for each extended attribute of ino, sorted by name; size is
// the value's.
func (r reader) xattrs(ino fs.Ino, f func(name string, size int)) error {
	lo := keyXattr(ino, "")
	return r.src.Scan(lo, after(lo), func(k, v []byte) bool {
		f(string(k[len(lo):]), len(v)-1)
		return true
	})
}

func (r reader) orphan(ino fs.Ino) (x orphanRecord, ok bool, err error) {
	b, ok, err := r.src.Get(keyOrphan(ino))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = decodeOrphan(b)
	return x, true, err
}

func (r reader) session(id fs.SessionID) (x sessionRecord, ok bool, err error) {
	b, ok, err := r.src.Get(keySession(id))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = decodeSession(b)
	return x, true, err
}

func (r reader) result(id fs.SessionID, seq uint64) (x fs.Result, ok bool, err error) {
	b, ok, err := r.src.Get(keyResult(id, seq))
	if err != nil || !ok {
		return x, false, err
	}
	x, err = DecodeResult(b)
	if err != nil {
		err = fmt.Errorf("session %d seq %d: %w", id, seq, err)
	}
	return x, true, err
}

func (r reader) system() (x system, err error) {
	b, ok, err := r.src.Get(keySystem)
	if err == nil && !ok {
		err = corrupt("read system record", errMissing)
	}
	if err != nil {
		return x, err
	}
	return decodeSystem(b)
}
