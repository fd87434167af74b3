package meta

import (
	"errors"
	"slices"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// EachChunk calls f for every chunk that extents cite; Inline is not filled, but
// inline tells whether the metadata has the content. f must not use the State.
func (s *State) EachChunk(f func(info fs.ChunkInfo, inline bool) error) error {
	snap, err := s.kv.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	var failed error
	lo := []byte{kindChunk}
	err = snap.Scan(lo, after(lo), func(k, v []byte) bool {
		r, err := decodeChunk(v)
		if err == nil && r.refs > 0 {
			err = f(r.info(chunkOfKey(k)), r.inline)
		}
		failed = err
		return err == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// LostFile is a file with content that cannot be had.
type LostFile struct {
	Path  string // from the root, without a leading slash; a name of several
	Ino   fs.Ino
	Size  uint64
	Bytes uint64 // of these, so many are lost
}

// LostFiles lists the files that cite any of the chunks, a line for each of their
// names, sorted by path. Files without a name are left out: they are about to go.
// It reads the whole store from a snapshot.
func (s *State) LostFiles(chunks map[fs.ChunkID]bool) (list []LostFile, err error) {
	if len(chunks) == 0 {
		return nil, nil
	}
	snap, err := s.kv.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	r := reader{snap}
	lost, err := r.bytesOf(chunks)
	if err != nil {
		return nil, err
	}
	lo := []byte{kindEntry}
	names, err := scan(snap, lo, after(lo), 0, func(k, v []byte) (lostName, bool, error) {
		x, err := decodeEntry(v)
		return lostName{x.ino, nameAt{fs.Ino(keyHead(k)), string(k[9:])}}, err == nil && lost[x.ino] > 0, err
	})
	if err != nil {
		return nil, err
	}
	dirs := map[fs.Ino]nameAt{}
	for _, n := range names {
		f, err := r.lostFile(n, dirs)
		if err != nil {
			return nil, err
		}
		f.Bytes = lost[n.ino]
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b LostFile) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// lostName is one name of a file.
type lostName struct {
	ino fs.Ino
	at  nameAt
}

// bytesOf sums up how many bytes of each inode are in the chunks.
func (r reader) bytesOf(chunks map[fs.ChunkID]bool) (map[fs.Ino]uint64, error) {
	sum := map[fs.Ino]uint64{}
	var bad error
	lo := []byte{kindExtent}
	err := r.src.Scan(lo, after(lo), func(k, v []byte) bool {
		x, err := decodeExtent(keyTail(k), v)
		if err == nil && chunks[x.Chunk] {
			sum[fs.Ino(keyHead(k))] += x.Len
		}
		bad = err
		return err == nil
	})
	return sum, errors.Join(err, bad)
}

func (r reader) lostFile(name lostName, dirs map[fs.Ino]nameAt) (LostFile, error) {
	n, err := r.inode(name.ino)
	if err != nil {
		return LostFile{}, err
	}
	dirs[name.ino] = name.at
	path, err := r.path(name.ino, dirs)
	delete(dirs, name.ino) // it may have another name
	f := LostFile{Path: strings.TrimPrefix(path, "/"), Ino: name.ino}
	if n != nil {
		f.Size = n.Size
	}
	return f, err
}
