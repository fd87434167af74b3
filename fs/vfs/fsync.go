package vfs

import (
	"context"
	"slices"
	"sync"

	"github.com/wpfs/wpfs/fs"
)

const (
	// syncedMax is how many chunks are remembered as being on stable storage.
	syncedMax = 4096
	// syncWindow is how much of a file's extents fsync looks at in one go.
	syncWindow = 1 << 30
)

// fsync publishes r's content and sees to it that all of the file's chunks are
// on stable storage. Those of an earlier close may not be: close asks only that
// two nodes have them.
func (f *FS) fsync(ctx context.Context, h *handle) error {
	r := h.rec
	_, err := f.publish(ctx, r, publishOptions{sync: true})
	if err == nil {
		err = f.lost(h)
	}
	if err == nil {
		err = f.syncChunks(ctx, r)
	}
	if err == nil {
		err = f.awaitBucket(ctx, r)
	}
	return failure("fsync", r.ino, "", err)
}

func (f *FS) syncChunks(ctx context.Context, r *record) error {
	a, _, err := f.committed(ctx, r.ino)
	if err != nil {
		return err
	}
	r.mu.RLock()
	done := r.durable == a.Version && a.Version != 0
	r.mu.RUnlock()
	if done || !a.IsRegular() {
		return nil
	}
	for at := uint64(0); at < a.Size; at += syncWindow {
		var found fetch
		if _, err := found.plan(ctx, f, r.ino, at, syncWindow); err != nil {
			return err
		}
		for _, info := range found.infos {
			if err := f.syncChunk(ctx, info); err != nil {
				return err
			}
		}
	}
	r.mu.Lock()
	r.durable = a.Version
	r.mu.Unlock()
	return nil
}

// syncChunk stores a chunk again, with fsync this time, unless it is known to
// be safe: in the object store, in the log, or fsynced before.
func (f *FS) syncChunk(ctx context.Context, info fs.ChunkInfo) error {
	if info.Durable || info.Inline != nil || f.synced.has(info) {
		return nil
	}
	select {
	case f.puts <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.puts }()
	buf := f.buffers.Get().(*[]byte)
	defer f.buffers.Put(buf)
	if info.Size > fs.ChunkMax {
		return shortChunk(info)
	}
	b := (*buf)[:info.Size]
	n, err := f.chunks.ReadAt(ctx, info, b, 0)
	if err != nil {
		return err
	}
	if n < len(b) {
		return shortChunk(info)
	}
	hash, _, err := f.chunks.Put(ctx, b, true)
	if err == nil {
		f.synced.note(hash, info.ID.Gen, info.Holders)
	}
	return err
}

// syncedSet remembers chunks whose last Put was with fsync, and who has them since.
// Only for these nodes is it true: when nothing cites a chunk any more they drop it,
// and the next one with these bytes is another, or has other holders.
type syncedSet struct {
	mu    sync.Mutex
	known map[fs.Hash]syncedCopy
	ring  []fs.Hash // in the order of adding, to forget the oldest
	next  int
}

type syncedCopy struct {
	gen     fs.Index // of the chunk; 0: not known yet
	holders []fs.NodeID
}

// has tells whether the chunk is on stable storage wherever it was put.
func (s *syncedSet) has(info fs.ChunkInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.known[info.ID.Hash]
	if !ok || c.gen != 0 && c.gen != info.ID.Gen {
		return false
	}
	for _, n := range c.holders {
		if !slices.Contains(info.Holders, n) {
			return false
		}
	}
	c.gen = info.ID.Gen
	s.known[info.ID.Hash] = c
	return true
}

// note remembers a Put with fsync, of a chunk of generation gen or of one that is
// still to be cited, whose copies are the holders'.
func (s *syncedSet) note(h fs.Hash, gen fs.Index, holders []fs.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[fs.Hash]syncedCopy{}
	}
	if _, ok := s.known[h]; !ok {
		s.remember(h)
	}
	s.known[h] = syncedCopy{gen, slices.Clone(holders)}
}

// remember is called with mu held.
func (s *syncedSet) remember(h fs.Hash) {
	if len(s.ring) < syncedMax {
		s.ring = append(s.ring, h)
		return
	}
	delete(s.known, s.ring[s.next])
	s.ring[s.next] = h
	s.next = (s.next + 1) % syncedMax
}

// forget: the last Put was without fsync.
func (s *syncedSet) forget(h fs.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, h)
}
