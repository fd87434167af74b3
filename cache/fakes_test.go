package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// cluster is a network of nodes that have nothing but a disk. Faults are set per
// node.
type cluster struct {
	mu      sync.Mutex
	nodes   []fs.NodeID // live, in the order of Others
	disks   map[fs.NodeID]*Disk
	fault   map[fs.NodeID]fault
	fetches map[fs.NodeID]int
	pushes  map[fs.NodeID]int
	synced  map[fs.NodeID]int
	active  int           // calls under way
	gate    chan struct{} // fetches wait for its end; nil: they do not
}

type fault uint8

// slowly is longer than it takes until another node is tried as well.
const slowly = 400 * time.Millisecond

const (
	refuses  fault = iota + 1 // every call fails
	hangs                     // every call lasts until its context ends
	slow                      // every call takes slowly
	liesLong                  // Fetch returns a byte too many
	liesBits                  // Fetch returns the right number of wrong bytes
)

func newCluster(t testing.TB, names ...fs.NodeID) *cluster {
	t.Helper()
	c := &cluster{
		nodes: names, disks: make(map[fs.NodeID]*Disk), fault: make(map[fs.NodeID]fault),
		fetches: make(map[fs.NodeID]int), pushes: make(map[fs.NodeID]int), synced: make(map[fs.NodeID]int),
	}
	for _, n := range names {
		c.disks[n] = newDisk(t)
	}
	return c
}

// kill takes a node out of the live ones; it refuses from then on.
func (c *cluster) kill(n fs.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(slices.Clone(c.nodes), func(o fs.NodeID) bool { return o == n })
	c.fault[n] = refuses
}

func (c *cluster) set(n fs.NodeID, f fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault[n] = f
}

// fetched is how many fetches there were, from all nodes.
func (c *cluster) fetched() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, m := range c.fetches {
		n += m
	}
	return n
}

// peers is the cluster as one node sees it.
type peers struct {
	*cluster
	self fs.NodeID
}

var _ Peers = peers{}

func (p peers) Self() fs.NodeID { return p.self }

func (p peers) Others() []fs.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.nodes), func(n fs.NodeID) bool { return n == p.self })
}

var errRefused = errors.New("connection refused")

func (p peers) meet(ctx context.Context, node fs.NodeID, count map[fs.NodeID]int) (fault, error) {
	p.mu.Lock()
	count[node]++
	f, gate := p.fault[node], p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
	switch f {
	case refuses:
		return f, errRefused
	case hangs:
		<-ctx.Done()
		return f, ctx.Err()
	case slow:
		select {
		case <-time.After(slowly):
		case <-ctx.Done():
			return f, ctx.Err()
		}
	}
	return f, nil
}

// call counts a call under way until its end is called.
func (c *cluster) call() (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.active--
	}
}

func (p peers) Fetch(ctx context.Context, node fs.NodeID, h fs.Hash, _ uint32) ([]byte, error) {
	defer p.call()()
	f, err := p.meet(ctx, node, p.fetches)
	if err != nil {
		return nil, err
	}
	b, err := p.disks[node].Fetch(h)
	switch f {
	case liesLong:
		b = append(b, 0)
	case liesBits:
		b = bytes.Clone(b)
		b[0] ^= 1
	}
	return b, err
}

func (p peers) Push(ctx context.Context, node fs.NodeID, h fs.Hash, b []byte, sync bool) error {
	defer p.call()()
	if _, err := p.meet(ctx, node, p.pushes); err != nil {
		return err
	}
	if sync {
		p.mu.Lock()
		p.synced[node]++
		p.mu.Unlock()
	}
	return p.disks[node].Keep(h, b, sync)
}

// tierOf makes the tier of one node of c.
func tierOf(t testing.TB, c *cluster, self fs.NodeID, change func(*TierOptions)) *Tier {
	t.Helper()
	o := TierOptions{Disk: c.disks[self], Peers: peers{c, self}}
	if change != nil {
		change(&o)
	}
	tier, err := NewTier(o)
	if err != nil {
		t.Fatal(err)
	}
	return tier
}

// infoOf describes a chunk as the metadata would.
func infoOf(b []byte, gen fs.Index, holders ...fs.NodeID) fs.ChunkInfo {
	return fs.ChunkInfo{ID: fs.ChunkID{Hash: hashOf(b), Gen: gen}, Size: uint32(len(b)), Refs: 1, Holders: holders}
}

// read reads the whole chunk through c.
func read(ctx context.Context, c fs.Chunks, info fs.ChunkInfo) ([]byte, error) {
	p := make([]byte, info.Size)
	n, err := c.ReadAt(ctx, info, p, 0)
	return p[:n], err
}

// backlog is the part of the metadata that an Uploader sees. It checks what it
// is told: nothing may be marked that the bucket does not hold.
type backlog struct {
	t     testing.TB
	holds func(fs.ChunkInfo) error

	mu      sync.Mutex
	mine    func(fs.ChunkInfo) bool
	refuse  int // StorePack fails so many times
	chunks  map[fs.ChunkID]fs.ChunkInfo
	packs   []fs.StorePack
	marks   map[fs.ChunkID]int
	failing error // of Undurable
}

var _ Backlog = (*backlog)(nil)

func newBacklog(t testing.TB, holds func(fs.ChunkInfo) error) *backlog {
	return &backlog{t: t, holds: holds, mine: func(fs.ChunkInfo) bool { return true },
		chunks: make(map[fs.ChunkID]fs.ChunkInfo), marks: make(map[fs.ChunkID]int)}
}

func (b *backlog) add(infos ...fs.ChunkInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range infos {
		b.chunks[i.ID] = i
	}
}

func (b *backlog) Undurable(after fs.ChunkID, n int) ([]fs.ChunkInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failing != nil {
		return nil, b.failing
	}
	var list []fs.ChunkInfo
	for id, info := range b.chunks {
		if !info.Durable && compareID(id, after) > 0 {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(x, y fs.ChunkInfo) int { return compareID(x.ID, y.ID) })
	return list[:min(n, len(list))], nil
}

func compareID(x, y fs.ChunkID) int {
	if c := bytes.Compare(x.Hash[:], y.Hash[:]); c != 0 {
		return c
	}
	return int(int64(x.Gen) - int64(y.Gen))
}

func (b *backlog) Mine(info fs.ChunkInfo) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mine(info)
}

// set changes the fields below mu while an Uploader runs.
func (b *backlog) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *backlog) StorePack(ctx context.Context, op fs.StorePack) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse > 0 {
		b.refuse--
		return errors.New("no leader")
	}
	b.packs = append(b.packs, op)
	for _, c := range op.Chunks {
		info, ok := b.chunks[c.Chunk]
		if !ok {
			return fmt.Errorf("no chunk %s", c.Chunk)
		}
		info.Place = fs.Place{Pack: op.Pack, Off: c.Off, Len: c.Len}
		if err := b.holds(info); err != nil {
			b.t.Errorf("recorded in a pack and is not there: %v", err)
		}
		b.marks[c.Chunk]++
		info.Durable, info.Inline = true, nil
		b.chunks[c.Chunk] = info
	}
	return nil
}

// stored lists the recorded packs, each once and whole.
func (b *backlog) stored() (list []fs.StorePack) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := map[fs.PackID]int{}
	for _, op := range b.packs {
		if len(op.Chunks) > recordMax {
			b.t.Errorf("%d chunks in one command", len(op.Chunks))
		}
		i, ok := at[op.Pack]
		if !ok {
			i = len(list)
			at[op.Pack] = i
			list = append(list, fs.StorePack{Pack: op.Pack, Size: op.Size})
		}
		list[i].Chunks = append(list[i].Chunks, op.Chunks...)
	}
	return list
}

// left is how many cited chunks are not durable.
func (b *backlog) left() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, info := range b.chunks {
		if !info.Durable && info.Refs > 0 {
			n++
		}
	}
	return n
}

// markedOften tells how many chunks were marked more than once.
func (b *backlog) markedOften() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, m := range b.marks {
		if m > 1 {
			n++
		}
	}
	return n
}
