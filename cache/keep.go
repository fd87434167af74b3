package cache

import (
	"context"
	"slices"
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// keepBytesMax bounds what KeepInline has accepted and not stored yet.
const keepBytesMax = 16 << 20

// keeper is the queue of inline chunks on their way to the disk. What waits in
// it can be read.
type keeper struct {
	wake chan struct{} // has room for one token

	mu      sync.Mutex
	queue   []fs.Hash          // oldest first
	bytes   map[fs.Hash][]byte // of the queue
	size    int                // sum of bytes
	dropped uint64
}

// KeepInline takes over the content of a chunk that the metadata is about to
// drop because the object store has it now. It copies b and returns at once:
// storing it is best effort, without fsync, and is skipped when too much is
// waiting already, for the chunk can be fetched again. Run does the storing.
func (t *Tier) KeepInline(id fs.ChunkID, b []byte) {
	if checkSize(len(b)) != nil {
		return
	}
	t.keep.add(id.Hash, b)
}

func (k *keeper) add(h fs.Hash, b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.bytes[h]; ok {
		return
	}
	if k.size+len(b) > keepBytesMax {
		k.dropped++
		return
	}
	if k.bytes == nil {
		k.bytes = make(map[fs.Hash][]byte)
	}
	k.queue = append(k.queue, h)
	k.bytes[h] = slices.Clone(b)
	k.size += len(b)
	select {
	case k.wake <- struct{}{}:
	default: // a token is waiting
	}
}

// get returns the content of a chunk in the queue, which must not be changed.
func (k *keeper) get(h fs.Hash) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bytes[h]
}

// first is the oldest chunk; it stays in the queue, readable, until done.
func (k *keeper) first() (h fs.Hash, b []byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		return fs.Hash{}, nil, false
	}
	return k.queue[0], k.bytes[k.queue[0]], true
}

func (k *keeper) done(h fs.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.size -= len(k.bytes[h])
	delete(k.bytes, h)
	k.queue = k.queue[1:]
}

func (k *keeper) stats() (queue int, dropped uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.queue), k.dropped
}

// runKeeper stores what arrives until ctx ends.
func (t *Tier) runKeeper(ctx context.Context) {
	for ctx.Err() == nil {
		h, b, ok := t.keep.first()
		if !ok {
			select {
			case <-ctx.Done():
			case <-t.keep.wake:
			}
			continue
		}
		// Cache compares the hash: nothing wrong gets onto the disk.
		if err := t.disk.Cache(h, b); err != nil {
			t.count.keepErrors.Add(1)
			t.log.Debug("inline content was not kept on the disk", "chunk", h, "error", err)
		}
		t.keep.done(h)
	}
}
