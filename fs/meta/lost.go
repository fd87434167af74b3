package meta

import (
	"sort"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// EachChunk calls f for every chunk that extents cite or may cite again: all that
// are not condemned. Inline is not filled, but inline tells whether the metadata
// has the content. f must not use the State.
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
		if err == nil && r.condemned == 0 {
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

// FilesOf lists the files that cite any of the chunks, a line for each of their
// names, sorted by path. Files without a name are left out: they are about to go.
// It reads the whole store and remembers every directory.
func (s *State) FilesOf(chunks map[fs.ChunkID]bool) ([]LostFile, error) {
	if len(chunks) == 0 {
		return nil, nil
	}
	snap, err := s.kv.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	l := &lostFiles{r: reader{snap}, lost: map[fs.Ino]uint64{}, dirs: map[fs.Ino]nameIn{}}
	if err := l.findInodes(chunks); err != nil {
		return nil, err
	}
	return l.findNames()
}

// nameIn is one name of an inode.
type nameIn struct {
	dir  fs.Ino
	name string
}

type lostFiles struct {
	r    reader
	lost map[fs.Ino]uint64 // bytes
	dirs map[fs.Ino]nameIn
}

func (l *lostFiles) findInodes(chunks map[fs.ChunkID]bool) error {
	var bad error
	lo := []byte{kindExtent}
	err := l.r.src.Scan(lo, after(lo), func(k, v []byte) bool {
		x, err := decodeExtent(keyTail(k), v)
		if err == nil && chunks[x.Chunk] {
			l.lost[fs.Ino(keyHead(k))] += x.Len
		}
		bad = err
		return err == nil
	})
	if bad != nil {
		return bad
	}
	return err
}

func (l *lostFiles) findNames() ([]LostFile, error) {
	type hit struct {
		nameIn
		ino fs.Ino
	}
	var hits []hit
	var bad error
	lo := []byte{kindEntry}
	err := l.r.src.Scan(lo, after(lo), func(k, v []byte) bool {
		x, err := decodeEntry(v)
		if err != nil {
			bad = err
			return false
		}
		at := nameIn{fs.Ino(keyHead(k)), string(k[9:])}
		if x.typ == fs.ModeDir {
			l.dirs[x.ino] = at
		} else if l.lost[x.ino] > 0 {
			hits = append(hits, hit{at, x.ino})
		}
		return true
	})
	if bad != nil {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	var out []LostFile
	for _, h := range hits {
		n, err := l.r.inode(h.ino)
		if err != nil {
			return nil, err
		}
		f := LostFile{Path: l.path(h.nameIn), Ino: h.ino, Bytes: l.lost[h.ino]}
		if n != nil {
			f.Size = n.Size
		}
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out, nil
}

// path is the whole path of a name. A damaged tree may have a loop.
func (l *lostFiles) path(at nameIn) string {
	parts := []string{at.name}
	for dir := at.dir; dir != fs.RootIno && len(parts) <= len(l.dirs)+1; {
		up, ok := l.dirs[dir]
		if !ok {
			parts = append(parts, "(inode "+dir.String()+")")
			break
		}
		parts = append(parts, up.name)
		dir = up.dir
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}
