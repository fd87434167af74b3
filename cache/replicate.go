package cache

import (
	"context"
	"crypto/sha256"
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// Put implements [fs.Chunks]: b is on this node's disk and, as far as there are
// live nodes, on Replicas-1 others; all of them are named. It fails if this
// node's disk does not take b, or if ctx ends before there are enough copies.
func (t *Tier) Put(ctx context.Context, b []byte, sync bool) (fs.Hash, []fs.NodeID, error) {
	h := fs.Hash(sha256.Sum256(b))
	if err := checkSize(len(b)); err != nil {
		return h, nil, fail("put chunk", h, err)
	}
	t.count.puts.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pushed := make(chan []fs.NodeID, 1)
	go func() { pushed <- t.replicate(ctx, h, b, sync) }()

	err := t.disk.store(h, b, sync, true)
	if err != nil {
		cancel()
	}
	others := <-pushed // b is the caller's again only after this
	if err != nil {
		return h, nil, fail("put chunk", h, err)
	}
	if len(others) < t.replicas-1 && ctx.Err() != nil {
		return h, nil, fail("put chunk", h, ctx.Err())
	}
	t.noteReplicas(len(others) + 1)
	return h, append([]fs.NodeID{t.peers.Self()}, others...), nil
}

// replicate pushes b to Replicas-1 other nodes at the same time. A node that
// fails is replaced by the next one that was not tried yet. It returns when
// nobody uses b any more.
func (t *Tier) replicate(ctx context.Context, h fs.Hash, b []byte, synced bool) []fs.NodeID {
	candidates := t.suspects.last(t.peers.Others())
	var mu sync.Mutex
	var got []fs.NodeID
	take := func() (fs.NodeID, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(candidates) == 0 || ctx.Err() != nil {
			return "", false
		}
		node := candidates[0]
		candidates = candidates[1:]
		return node, true
	}
	var wg sync.WaitGroup
	for range t.replicas - 1 {
		wg.Go(func() {
			for node, ok := take(); ok; node, ok = take() {
				if t.push(ctx, node, h, b, synced) {
					mu.Lock()
					got = append(got, node)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return got
}

func (t *Tier) push(ctx context.Context, node fs.NodeID, h fs.Hash, b []byte, synced bool) bool {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	t.count.pushes.Add(1)
	err := t.peers.Push(ctx, node, h, b, synced)
	if err == nil {
		t.suspects.clear(node)
		return true
	}
	if ctx.Err() == nil || ctx.Err() == context.DeadlineExceeded {
		t.count.pushErrors.Add(1)
		t.suspects.add(node)
		t.log.Debug("a node did not take a copy of a chunk", "node", node, "chunk", h, "error", err)
	}
	return false
}

// noteReplicas counts what has too few copies and says so when that begins and
// ends, not for every chunk.
func (t *Tier) noteReplicas(n int) {
	few := n < t.replicas
	if few {
		t.count.underCount.Add(1)
	}
	if t.lonely.Swap(few) == few {
		return
	}
	if few {
		t.log.Warn("new content is on too few nodes: until it is in the object store, losing one may lose it", "nodes", n, "wanted", t.replicas)
	} else {
		t.log.Info("new content is on enough nodes again", "nodes", n)
	}
}
