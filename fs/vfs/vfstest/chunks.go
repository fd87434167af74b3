// Package vfstest has what tests of fs/vfs and of its users need: Chunks, an
// fs.Chunks in memory, and Meta, an fs.Meta that can be told to fail or wait.
package vfstest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// Chunks is an fs.Chunks in a map, shared by as many nodes as a test likes.
type Chunks struct {
	// Fail, if set before use, is asked before each call ("put" or "read").
	Fail func(call string) error

	mu     sync.Mutex
	chunks map[fs.Hash][]byte
	synced map[fs.Hash]bool
	puts   int
	active int
	peak   int
}

var _ fs.Chunks = (*Chunks)(nil)

func (c *Chunks) fail(call string) error {
	if c.Fail == nil {
		return nil
	}
	return c.Fail(call)
}

// ReadAt reads a chunk that was Put, or is inline.
func (c *Chunks) ReadAt(_ context.Context, chunk fs.ChunkInfo, p []byte, off int64) (int, error) {
	if err := c.fail("read"); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.chunks[chunk.ID.Hash]
	if !ok {
		return 0, &fs.Error{Op: "read chunk", Kind: fs.ErrIO, Err: fmt.Errorf("chunk %s is nowhere", chunk.ID)}
	}
	if off > int64(len(b)) {
		return 0, nil
	}
	return copy(p, b[off:]), nil
}

// Put keeps a copy of b.
func (c *Chunks) Put(_ context.Context, b []byte, sync bool) (fs.Hash, []fs.NodeID, error) {
	c.enter()
	defer c.leave()
	if err := c.fail("put"); err != nil {
		return fs.Hash{}, nil, err
	}
	if len(b) == 0 || len(b) > fs.ChunkMax {
		return fs.Hash{}, nil, &fs.Error{Op: "put chunk", Kind: fs.ErrInvalid}
	}
	h := fs.Hash(sha256.Sum256(b))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chunks == nil {
		c.chunks, c.synced = map[fs.Hash][]byte{}, map[fs.Hash]bool{}
	}
	c.puts++
	c.chunks[h] = append([]byte(nil), b...)
	c.synced[h] = c.synced[h] || sync
	return h, []fs.NodeID{"local"}, nil
}

func (c *Chunks) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	c.peak = max(c.peak, c.active)
}

func (c *Chunks) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
}

// Count tells how many calls of Put succeeded, and how many were in progress at
// the same time at most.
func (c *Chunks) Count() (puts, peak int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.puts, c.peak
}

// Unsynced tells how many chunks were never Put with sync.
func (c *Chunks) Unsynced() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, synced := range c.synced {
		if !synced {
			n++
		}
	}
	return n
}
