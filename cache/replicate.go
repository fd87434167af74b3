package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// pushMiB is added to the time for a push for each MiB of the chunk.
const pushMiB = 500 * time.Millisecond

// Put implements [fs.Chunks]: b is on this node's disk and, as far as there are
// live nodes, on Replicas-1 others; all of them are named. A node that is slow is
// not waited for while another one is there; see pushes. If this node's disk has
// no room, Replicas others must have it. Put fails if that cannot be, or if ctx
// ends before there are enough copies.
func (t *Tier) Put(ctx context.Context, b []byte, sync bool) (fs.Hash, []fs.NodeID, error) {
	h := fs.Hash(sha256.Sum256(b))
	if err := checkSize(len(b)); err != nil {
		return h, nil, fail("put chunk", h, err)
	}
	t.count.puts.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := t.newPushes(h, b, sync)
	pushed := make(chan struct{})
	go func() { defer close(pushed); p.run(ctx, t.replicas-1) }()
	err := t.disk.store(h, b, sync, true)
	full := fs.KindOf(fail("put chunk", h, err)) == fs.ErrNoSpace && len(t.peers.Others()) >= t.replicas
	if err != nil && !full {
		cancel()
	}
	<-pushed // b is the caller's again only after this
	if full && p.elsewhere(ctx) {
		t.count.elsewhere.Add(1)
		t.noteReplicas(len(p.got))
		return h, p.got, nil
	}
	if err != nil {
		return h, nil, fail("put chunk", h, err)
	}
	if len(p.got) < t.replicas-1 && ctx.Err() != nil {
		return h, nil, fail("put chunk", h, ctx.Err())
	}
	t.noteReplicas(len(p.got) + 1)
	return h, append([]fs.NodeID{t.peers.Self()}, p.got...), nil
}

// pushes is the copies of one chunk on their way to other nodes.
type pushes struct {
	t      *Tier
	hash   fs.Hash
	b      []byte
	sync   bool
	left   []fs.NodeID // not tried yet, the best first
	got    []fs.NodeID // have it
	result chan pushed
	active int
}

// pushed is the end of one push.
type pushed struct {
	node fs.NodeID
	err  error
}

func (t *Tier) newPushes(h fs.Hash, b []byte, sync bool) *pushes {
	// Nodes that said that they are full last, and before them those that failed;
	// but who is named as a holder already first of all.
	nodes := t.holdersFirst(h, t.full.last(t.suspects.last(t.paces.quickFirst(t.peers.Others()))))
	return &pushes{t: t, hash: h, b: b, sync: sync, left: nodes, result: make(chan pushed)}
}

// holdersFirst moves nodes to the front that the metadata names as holders of
// these bytes. A close has put the chunk there, and an fsync that follows must
// make these copies safe: another node's would be nobody's promise.
func (t *Tier) holdersFirst(h fs.Hash, nodes []fs.NodeID) []fs.NodeID {
	infos, err := t.chunks(h)
	if err != nil || len(infos) == 0 {
		return nodes
	}
	holds := func(n fs.NodeID) bool {
		return slices.ContainsFunc(infos, func(c fs.ChunkInfo) bool { return !c.Durable && slices.Contains(c.Holders, n) })
	}
	out := slices.DeleteFunc(slices.Clone(nodes), func(n fs.NodeID) bool { return !holds(n) })
	return append(out, slices.DeleteFunc(nodes, holds)...)
}

// run pushes until want nodes have the chunk, nobody is left to try, or ctx ends.
// A node that fails is replaced by the next at once; beside one that takes longer
// than it usually does the next is tried as well, and the first to have it counts.
// It returns when nobody uses the bytes any more.
func (p *pushes) run(ctx context.Context, want int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hedge := time.NewTimer(time.Hour)
	defer hedge.Stop()
	next := func() {
		if len(p.left) == 0 || ctx.Err() != nil {
			return
		}
		node := p.left[0]
		p.left = p.left[1:]
		p.active++
		hedge.Reset(p.t.paces.usual(node, len(p.b)) + pushHedge)
		go func() { p.result <- pushed{node, p.t.push(ctx, node, p.hash, p.b, p.sync)} }()
	}
	for range want - len(p.got) {
		next()
	}
	for p.active > 0 && len(p.got) < want {
		select {
		case r := <-p.result:
			if p.ended(r); r.err != nil {
				next()
			}
		case <-hedge.C:
			if p.active < want-len(p.got)+pushHedgeMax {
				next()
			}
		}
	}
	cancel()
	for p.active > 0 { // soon: see Peers
		r := <-p.result
		if p.ended(r); r.err != nil && !errors.Is(r.err, fs.ErrNoSpace) {
			p.left = append(p.left, r.node) // it was not given its time
		}
	}
}

// elsewhere puts the chunk on Replicas other nodes, as this one has no room, and
// tells whether they have it. All who do not are asked twice: a writer should not
// hear that there is no room because a node was slow once.
func (p *pushes) elsewhere(ctx context.Context) bool {
	for range 2 {
		if p.run(ctx, p.t.replicas); len(p.got) >= p.t.replicas || ctx.Err() != nil {
			break
		}
		p.left = slices.DeleteFunc(p.t.peers.Others(), func(n fs.NodeID) bool { return slices.Contains(p.got, n) || p.t.full.has(n) })
	}
	return len(p.got) >= p.t.replicas
}

func (p *pushes) ended(r pushed) {
	p.active--
	if r.err == nil {
		p.got = append(p.got, r.node)
	}
}

func (t *Tier) push(parent context.Context, node fs.NodeID, h fs.Hash, b []byte, synced bool) error {
	limit := t.pushTimeout
	if t.suspects.has(node) {
		limit = suspectPush
	}
	ctx, cancel := context.WithTimeout(parent, limit+pushMiB*time.Duration(len(b))/(1<<20))
	defer cancel()
	t.count.pushes.Add(1)
	start := time.Now()
	err := t.peers.Push(ctx, node, h, b, synced)
	switch {
	case err == nil:
		t.paces.note(node, len(b), time.Since(start))
		t.suspects.clear(node)
		t.full.clear(node)
	case errors.Is(err, fs.ErrNoSpace):
		t.count.pushErrors.Add(1)
		if !t.full.has(node) {
			t.log.Warn("a node's disk is full; new content goes to others", "node", node, "error", err)
		}
		t.full.add(node)
	case parent.Err() == nil:
		t.count.pushErrors.Add(1)
		t.suspects.add(node)
		t.log.Debug("a node did not take a copy of a chunk", "node", node, "chunk", h, "error", err)
	default: // another one was quicker: this one had its time, and a little more
		if time.Since(start) >= t.paces.usual(node, len(b))+pushHedge {
			t.suspects.add(node)
		}
	}
	return err
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
