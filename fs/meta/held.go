package meta

import "github.com/wpfs/wpfs/fs"

// Chunks lists what is known of all chunks with these bytes, the oldest first:
// normally one, and one more for each time that they came back after they were
// collected. Inline of each is nil; inline tells of which the metadata has the
// content.
func (s *State) Chunks(h fs.Hash) (infos []fs.ChunkInfo, inline []bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	lo := keyChunk(kindChunk, fs.ChunkID{Hash: h})
	_, err = scan(s.kv, lo, after(lo[:33]), 0, func(k, v []byte) (struct{}, bool, error) {
		r, err := decodeChunk(v)
		if err == nil {
			infos = append(infos, r.info(chunkOfKey(k)))
			inline = append(inline, r.inline)
		}
		return struct{}{}, false, err
	})
	return infos, inline, err
}
