package meta

import (
	"github.com/wpfs/wpfs/fs"
)

func (r packRecord) info(id fs.PackID) fs.PackInfo {
	return fs.PackInfo{ID: id, Size: r.size, Made: r.made, Chunks: r.chunks, Live: r.live, LiveBytes: r.liveBytes,
		Condemned: r.condemned, CondemnedAt: r.since}
}

// Pack tells what is known of one pack.
func (s *State) Pack(id fs.PackID) (fs.PackInfo, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok, err := reader{s.kv}.pack(id)
	return r.info(id), ok, err
}

// Packs lists up to n packs behind last, in the order of their names.
func (s *State) Packs(last fs.PackID, n int) ([]fs.PackInfo, error) {
	if n <= 0 {
		return nil, nil
	}
	return collect(s, append(keyPack(last), 0), after([]byte{kindPack}), n, func(k, v []byte) (fs.PackInfo, bool, error) {
		r, err := decodePack(v)
		return r.info(packOfKey(k)), true, err
	})
}

// UncitedChunks looks at up to n chunks behind last, in the order of hash and
// generation, and returns those that nothing cites, how many were looked at, and
// the last of these.
func (s *State) UncitedChunks(last fs.ChunkID, n int) (list []fs.ChunkInfo, seen int, end fs.ChunkID, err error) {
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
			list = append(list, r.info(end))
		}
		seen++
		return seen < n
	})
	if err == nil {
		err = bad
	}
	return list, seen, end, err
}
