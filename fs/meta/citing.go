package meta

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// Citing is a file that cites a chunk.
type Citing struct {
	Chunk fs.ChunkID
	Ino   fs.Ino
	Path  string // from the root; of a file without a name, what it is
}

// FilesOf finds up to n files that cite any of chunks, one name of each. It reads
// all extents and names, from a snapshot, so commits go on; it takes a second or
// two per million files.
func (s *State) FilesOf(chunks map[fs.ChunkID]bool, n int) (list []Citing, err error) {
	snap, err := s.kv.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := snap.Close(); err == nil {
			err = cerr
		}
	}()
	r := reader{snap}
	names := map[fs.Ino]nameAt{}
	lo := []byte{kindExtent}
	list, err = scan(snap, lo, after(lo), n, func(k, v []byte) (Citing, bool, error) {
		x, err := decodeExtent(keyTail(k), v)
		c := Citing{Chunk: x.Chunk, Ino: fs.Ino(keyHead(k))}
		if chunks[x.Chunk] {
			names[c.Ino] = nameAt{}
		}
		return c, chunks[x.Chunk], err
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if err := r.findNames(names); err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Path, err = r.path(list[i].Ino, names); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b Citing) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(list, func(a, b Citing) bool { return a.Ino == b.Ino && a.Chunk == b.Chunk }), nil
}

// nameAt is where a name is.
type nameAt struct {
	dir  fs.Ino // 0: not found
	name string
}

// findNames gives each inode in names one of its names.
func (r reader) findNames(names map[fs.Ino]nameAt) error {
	lo := []byte{kindEntry}
	var bad error
	err := r.src.Scan(lo, after(lo), func(k, v []byte) bool {
		var x entryRecord
		if x, bad = decodeEntry(v); bad != nil {
			return false
		}
		if p, wanted := names[x.ino]; wanted && p.dir == 0 {
			names[x.ino] = nameAt{fs.Ino(keyHead(k)), string(k[9:])}
		}
		return true
	})
	if err == nil {
		err = bad
	}
	return err
}

// path puts a file's path together. Directories on the way are remembered in
// names.
func (r reader) path(ino fs.Ino, names map[fs.Ino]nameAt) (string, error) {
	var parts []string
	for at := ino; at != fs.RootIno; {
		p := names[at]
		if p.dir == 0 && at != ino {
			var err error
			if p, err = r.nameOfDir(at); err != nil {
				return "", err
			}
			names[at] = p
		}
		if p.dir == 0 || len(parts) > 4096 {
			return fmt.Sprintf("(a deleted file, inode %d)", ino), nil
		}
		parts = append(parts, p.name)
		at = p.dir
	}
	slices.Reverse(parts)
	return "/" + strings.Join(parts, "/"), nil
}

// nameOfDir looks a directory up in its parent.
func (r reader) nameOfDir(dir fs.Ino) (p nameAt, err error) {
	n, err := r.inode(dir)
	if err != nil || n == nil {
		return p, err
	}
	lo := keyEntry(n.parent, "")
	var bad error
	err = r.src.Scan(lo, after(lo), func(k, v []byte) bool {
		var x entryRecord
		if x, bad = decodeEntry(v); bad == nil && x.ino == dir {
			p = nameAt{n.parent, string(k[9:])}
		}
		return bad == nil && p.dir == 0
	})
	if err == nil {
		err = bad
	}
	return p, err
}
