package meta

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/wpfs/wpfs/fs"
)

// WithFS makes a store use another disk.
func (o PebbleOptions) WithFS(disk vfs.FS) PebbleOptions {
	o.fs = disk
	return o
}

// KVOf lets tests damage a store.
func KVOf(s *State) KV { return s.kv }

// InPacks lists up to n chunks that are in packs.
func InPacks(s *State, n int) (list []fs.ChunkInfo) {
	lo := []byte{kindChunk}
	err := s.kv.Scan(lo, after(lo), func(k, v []byte) bool {
		r, err := decodeChunk(v)
		if err != nil {
			panic(err)
		}
		if r.place != (fs.Place{}) {
			list = append(list, r.info(chunkOfKey(k)))
		}
		return len(list) < n
	})
	if err != nil {
		panic(err)
	}
	return list
}

// SetNlink changes an inode's link count behind the back of Apply.
func SetNlink(t testing.TB, s *State, ino fs.Ino, nlink uint32) {
	t.Helper()
	n, err := reader{s.kv}.inode(ino)
	if err != nil || n == nil {
		t.Fatal(n, err)
	}
	n.Nlink = nlink
	if err := s.kv.Commit([]Write{{Key: keyInode(ino), Value: n.encode()}}); err != nil {
		t.Fatal(err)
	}
	s.view.cache.drop(attrKey(ino))
}

// Uncached makes of a State's View one that reads the same state from the store.
func Uncached(v fs.View) fs.View {
	raw := *v.(*view)
	raw.cache = nil
	return &raw
}
