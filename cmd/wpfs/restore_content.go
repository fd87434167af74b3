package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/object"
)

// bucketContent is what the bucket has of the chunks that files cite.
type bucketContent struct {
	// lost chunks are cited, and neither there nor in the metadata.
	lost map[fs.ChunkID]bool
	// learned is what the metadata does not know: content that was uploaded, or moved,
	// after the last entry that was restored, and what is lost.
	learned []fs.Op
	// problems are packs that could not be searched, each a sentence.
	problems []string
}

// These bound one command, in chunks.
const (
	markAtOnce  = 1000
	placeAtOnce = 128
)

// findContent compares the metadata with the bucket.
func findContent(ctx context.Context, st object.Store, s *meta.State, progress func(string, int, int)) (*bucketContent, error) {
	sizes, err := contentObjects(ctx, st, progress)
	if err != nil {
		return nil, err
	}
	in := &bucketContent{lost: map[fs.ChunkID]bool{}}
	missing := map[fs.ChunkID]fs.PackID{} // the pack that should have it; zero: none
	var alone []fs.ChunkID
	var uncited []fs.ChunkID // lost as well, but no file has them now
	err = s.EachChunk(func(info fs.ChunkInfo, inline bool) error {
		own := sizes[pack.ChunkKey(info.ID)] > 0
		at := info.Place
		packed := at.Pack != fs.PackID{}
		there := own
		if packed {
			there = sizes[pack.Key(at.Pack)] >= int64(at.Off)+int64(at.Len)
		}
		switch {
		case inline, info.Durable && there, !info.Durable && info.Refs == 0:
		case info.Refs == 0:
			uncited = append(uncited, info.ID)
		case info.Durable && packed:
			missing[info.ID] = at.Pack
		case info.Durable:
			in.lost[info.ID] = true
		case own:
			if alone = append(alone, info.ID); len(alone) == markAtOnce {
				in.learned = append(in.learned, fs.MarkDurable{Chunks: alone})
				alone = nil
			}
		default:
			missing[info.ID] = fs.PackID{}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(alone) > 0 {
		in.learned = append(in.learned, fs.MarkDurable{Chunks: alone})
	}
	if err := in.searchPacks(ctx, st, s, sizes, missing, progress); err != nil {
		return nil, err
	}
	for id := range missing {
		in.lost[id] = true
	}
	// Or the same bytes, written again, would be taken for what the bucket has.
	gone := slices.AppendSeq(uncited, maps.Keys(in.lost))
	for part := range slices.Chunk(gone, markAtOnce) {
		in.learned = append(in.learned, fs.MarkLost{Chunks: part})
	}
	return in, nil
}

// contentObjects lists the objects that hold content, with their sizes; of a bucket
// that is in part encrypted these are upper bounds.
func contentObjects(ctx context.Context, st object.Store, progress func(string, int, int)) (map[string]int64, error) {
	sizes := map[string]int64{}
	for _, prefix := range []string{pack.Prefix, pack.ChunkPrefix} {
		for info, err := range st.List(ctx, prefix, "") {
			if err != nil {
				return nil, err
			}
			sizes[info.Key] = info.Size
			if len(sizes)%1000 == 0 {
				progress("content", len(sizes), 0)
			}
		}
	}
	return sizes, nil
}

// searchPacks looks for missing chunks in packs, and takes what it finds out of
// missing: first in those that the metadata does not know, then in the others, for a
// pack is recorded piece by piece, and the last pieces may be what was lost. One
// that is condemned takes no chunks any more.
func (in *bucketContent) searchPacks(ctx context.Context, st object.Store, s *meta.State, sizes map[string]int64,
	missing map[fs.ChunkID]fs.PackID, progress func(string, int, int)) error {
	if len(missing) == 0 {
		return nil
	}
	var unknown, recorded []fs.PackID
	for key := range sizes {
		id, ok := pack.ParseKey(key)
		if !ok {
			continue
		}
		info, known, err := s.Pack(id)
		switch {
		case err != nil:
			return err
		case !known:
			unknown = append(unknown, id)
		case info.Condemned == 0:
			recorded = append(recorded, id)
		}
	}
	for i, id := range slices.Concat(unknown, recorded) {
		if len(missing) == 0 {
			return nil
		}
		info, err := st.Stat(ctx, pack.Key(id)) // a listed size may be a bound
		var entries []pack.Entry
		if err == nil {
			entries, err = pack.Load(ctx, st, id, info.Size)
		}
		switch {
		case errors.Is(err, object.NotExist), errors.Is(err, fs.ErrCorrupt) && i < len(unknown):
			continue // just deleted, or torn while it was put: nobody recorded it
		case errors.Is(err, fs.ErrCorrupt), errors.Is(err, fs.ErrNotSupported), errors.Is(err, object.Damaged),
			errors.Is(err, object.Credentials): // of another key, or not encrypted
			in.problems = append(in.problems, unusable(id, err))
			continue
		case err != nil:
			return err
		}
		in.take(id, info.Size, entries, missing)
		progress("packs", i+1, 0)
	}
	return nil
}

// unusable says why a pack was not searched, and what can be done about it.
func unusable(id fs.PackID, err error) string {
	var oe *object.Error
	if errors.As(err, &oe) && oe.Hint != "" {
		return fmt.Sprintf("pack %s: %v; %s", id, err, oe.Hint)
	}
	return fmt.Sprintf("pack %s: %v", id, err)
}

// take learns where missing chunks are from a pack's index. A chunk that the
// metadata looked for in this very pack is not where the index says, either.
func (in *bucketContent) take(id fs.PackID, size int64, entries []pack.Entry, missing map[fs.ChunkID]fs.PackID) {
	var found []fs.Placed
	for _, e := range entries {
		if from, wanted := missing[e.ID]; wanted && from != id {
			found = append(found, fs.Placed{Chunk: e.ID, From: from, Off: e.Off, Len: e.Len})
			delete(missing, e.ID)
		}
	}
	for part := range slices.Chunk(found, placeAtOnce) {
		in.learned = append(in.learned, fs.StorePack{Pack: id, Size: uint32(size), Chunks: part})
	}
}
