package vfs

import (
	"context"
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
	if info.Durable || info.Inline != nil || f.synced.has(info.ID.Hash) {
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
		f.synced.note(hash, true)
	}
	return err
}

// syncedSet remembers chunks whose last Put was with fsync.
type syncedSet struct {
	mu    sync.Mutex
	known map[fs.Hash]struct{}
	ring  []fs.Hash // in the order of adding, to forget the oldest
	next  int
}

func (s *syncedSet) has(h fs.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[h]
	return ok
}

// note remembers or, if the last Put was without fsync, forgets h.
func (s *syncedSet) note(h fs.Hash, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[h]; ok == synced {
		return
	}
	if !synced {
		delete(s.known, h)
		return
	}
	if s.known == nil {
		s.known = map[fs.Hash]struct{}{}
	}
	if len(s.ring) < syncedMax {
		s.ring = append(s.ring, h)
	} else {
		delete(s.known, s.ring[s.next])
		s.ring[s.next] = h
		s.next = (s.next + 1) % syncedMax
	}
	s.known[h] = struct{}{}
}
