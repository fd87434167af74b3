package meta

import (
	"github.com/wpfs/wpfs/fs"
)

// Pack is an object that holds chunks, as the metadata knows it.
type Pack struct {
	ID        fs.PackID
	Size      uint64   // bytes of the object; 0 if only a listing told of it
	Made      fs.Index // of the entry that recorded it
	Chunks    uint64   // chunks that the metadata knows to be in it
	Live      uint64   // of these, not condemned
	LiveBytes uint64   // bytes of the object that the live ones take
	Condemned fs.Index // of the entry with which the last live chunk went; 0: there are some
	Since     fs.Time  // when that entry was proposed
}

func (r packRecord) pack(id fs.PackID) Pack {
	return Pack{id, r.size, r.made, r.chunks, r.live, r.liveBytes, r.condemned, r.since}
}

// Pack tells what is known of one pack.
func (s *State) Pack(id fs.PackID) (Pack, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok, err := reader{s.kv}.pack(id)
	return r.pack(id), ok, err
}

// Packs lists up to n packs behind last, in the order of their names.
func (s *State) Packs(last fs.PackID, n int) ([]Pack, error) {
	if n <= 0 {
		return nil, nil
	}
	return collect(s, append(keyPack(last), 0), after([]byte{kindPack}), n, func(k, v []byte) (Pack, bool, error) {
		r, err := decodePack(v)
		return r.pack(packOfKey(k)), true, err
	})
}

// Uncited is a chunk that no extent cites.
type Uncited struct {
	Info  fs.ChunkInfo
	Since fs.Time // when the entry that condemned it was proposed, if one did
}

// UncitedChunks looks at up to n chunks behind last, in the order of hash and
// generation, and returns those that nothing cites, how many were looked at, and
// the last of these.
func (s *State) UncitedChunks(last fs.ChunkID, n int) (list []Uncited, seen int, end fs.ChunkID, err error) {
	if n <= 0 {
		return nil, 0, last, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	end = last
	var bad error
	err = s.kv.Scan(append(keyChunk(kindChunk, last), 0), after([]byte{kindChunk}), func(k, v []byte) bool {
		var r chunkRecord
		if r, bad = decodeChunk(v); bad != nil {
			return false
		}
		end = chunkOfKey(k)
		if r.refs == 0 {
			list = append(list, Uncited{r.info(end), r.since})
		}
		seen++
		return seen < n
	})
	if err == nil {
		err = bad
	}
	return list, seen, end, err
}
