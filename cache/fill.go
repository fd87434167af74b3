package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// flight is one fetch of a chunk that any number of readers wait for.
type flight struct {
	done chan struct{} // closed at the end; what follows does not change then
	b    []byte
	err  error
	// abandoned: the reader that did the work was itself interrupted, which
	// says nothing about the chunk.
	abandoned bool
}

// fill fetches a chunk that is not on the disk, once for all who want it, and
// keeps it there. The first reader does the work in its own time; if it is
// interrupted, one of those who waited starts again.
func (t *Tier) fill(ctx context.Context, chunk fs.ChunkInfo, local error) ([]byte, error) {
	h := chunk.ID.Hash
	for {
		f, mine := t.join(h)
		if mine {
			f.b, f.err = t.fetch(ctx, chunk, local)
			f.abandoned = f.err != nil && ctx.Err() != nil
			t.mu.Lock()
			delete(t.flights, h)
			t.mu.Unlock()
			close(f.done)
			return f.b, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, interrupted(h, ctx)
		}
		if !f.abandoned {
			return f.b, f.err
		}
	}
}

func (t *Tier) join(h fs.Hash) (f *flight, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flights[h]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	t.flights[h] = f
	return f, true
}

func interrupted(h fs.Hash, ctx context.Context) error {
	kind := fs.ErrIO
	if errors.Is(ctx.Err(), context.Canceled) {
		kind = fs.ErrInterrupted
	}
	return &fs.Error{Op: "read chunk", Name: h.String(), Kind: kind, Err: ctx.Err()}
}

// fetch gets the chunk from wherever it can be had and stores it on the disk.
// local says why the disk did not have it.
func (t *Tier) fetch(ctx context.Context, chunk fs.ChunkInfo, local error) ([]byte, error) {
	h := chunk.ID.Hash
	select {
	case t.fills <- struct{}{}:
		defer func() { <-t.fills }()
	case <-ctx.Done():
		return nil, interrupted(h, ctx)
	}
	// Another flight may have landed since the caller looked.
	if t.disk.Has(h) {
		if b, err := t.disk.Fetch(h); err == nil && len(b) == int(chunk.Size) {
			return b, nil
		}
	}
	b, err := t.ask(ctx, chunk, t.sources(chunk), local)
	if err != nil && ctx.Err() == nil {
		if now, moved := t.moved(chunk); moved {
			chunk = now
			b, err = t.ask(ctx, chunk, t.sources(chunk), local)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, interrupted(h, ctx)
		}
		t.count.fillsFailed.Add(1)
		return nil, err
	}
	t.count.fillBytes.Add(uint64(len(b)))
	owed := t.owes(chunk, local)
	err = t.disk.store(h, b, owed, owed)
	if err != nil {
		t.count.keepErrors.Add(1)
		t.unkept.add(h, b)
	}
	if failed := err != nil; t.keepFail.Swap(failed) != failed && failed {
		t.log.Warn("content that was fetched cannot be kept on the disk: the next reader fetches it again", "error", err)
	}
	return b, nil
}

// moved looks up where the object store has a chunk by now, if that is not what its
// reader was told: since then it may have been uploaded and dropped by its holders,
// or moved into another pack.
func (t *Tier) moved(was fs.ChunkInfo) (now fs.ChunkInfo, moved bool) {
	infos, err := t.chunks(was.ID.Hash)
	if err != nil {
		t.log.Warn("where a chunk is now cannot be looked up", "chunk", was.ID, "error", err)
		return now, false
	}
	for _, now := range slices.Backward(infos) {
		tried := was.Durable && now.Place == was.Place && now.ID == was.ID
		if now.Durable && now.Size == was.Size && !tried {
			return now, true
		}
	}
	return now, false
}

// owes tells whether this node's copy must survive a power cut: the others rely
// on a holder until the object store has the chunk, and a copy that went bad may
// have been such a promise.
func (t *Tier) owes(chunk fs.ChunkInfo, local error) bool {
	holder := slices.Contains(chunk.Holders, t.peers.Self())
	return !chunk.Durable && (holder || !errors.Is(local, fs.ErrNotFound))
}

// source is one place that may have a chunk.
type source struct {
	name  string
	node  fs.NodeID // "": the object store
	fetch func(ctx context.Context, chunk fs.ChunkInfo) ([]byte, error)
}

// sources lists where to look, in order. Other nodes are nearer than the object
// store, but of a large cluster only a few are asked for what the store is known
// to have.
func (t *Tier) sources(chunk fs.ChunkInfo) []source {
	present, away := askOrder(t.peers.Self(), chunk.Holders, t.peers.Others())
	present = t.suspects.last(present)
	var list []source
	for i, node := range present {
		if chunk.Durable && i == peersBeforeStore {
			list = t.appendStore(list)
		}
		list = append(list, t.peerSource(node))
	}
	stored := chunk.Durable && len(present) > peersBeforeStore
	if chunk.Durable && !stored {
		list = t.appendStore(list)
	}
	for _, node := range away {
		list = append(list, t.peerSource(node))
	}
	return list
}

func (t *Tier) peerSource(node fs.NodeID) source {
	return source{name: "node " + string(node), node: node, fetch: func(ctx context.Context, c fs.ChunkInfo) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		return t.peers.Fetch(ctx, node, c.ID.Hash, c.Size)
	}}
}

func (t *Tier) appendStore(list []source) []source {
	if t.store == nil {
		return list
	}
	return append(list, source{name: "object store", fetch: func(ctx context.Context, c fs.ChunkInfo) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		return t.fetchStored(ctx, c)
	}})
}

// answer is what a source said.
type answer struct {
	from source
	b    []byte
	err  error
}

// ask goes through the sources until one has the chunk. One that fails is
// followed by the next at once, and one that is slow does not hold up the rest:
// the next is asked beside it.
func (t *Tier) ask(ctx context.Context, chunk fs.ChunkInfo, list []source, local error) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is still under way is not needed
	answers := make(chan answer, len(list))
	running := make(map[fs.NodeID]time.Time) // since when
	next := func() {
		if len(list) == 0 || len(running) >= hedgeMax {
			return
		}
		s := list[0]
		list = list[1:]
		running[s.node] = time.Now()
		go func() {
			b, err := s.fetch(ctx, chunk)
			if err == nil {
				err = t.check(chunk, b)
			}
			answers <- answer{s, b, err}
		}()
	}
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	looked := []string{"here: " + short(local)}
	for next(); len(running) > 0; {
		select {
		case a := <-answers:
			delete(running, a.from.node)
			if a.err == nil {
				t.filled(a.from, running)
				return a.b, nil
			}
			if ctx.Err() == nil {
				t.fetchFailed(chunk, a)
			}
			looked = append(looked, a.from.name+": "+short(a.err))
			next()
			hedge.Reset(hedgeAfter)
		case <-hedge.C:
			next()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	// The causes go along as text: one node's "not found" is not the kind of
	// the whole.
	return nil, &fs.Error{Op: "read chunk", Name: chunk.ID.String(), Kind: fs.ErrIO,
		Err: errors.New("no copy can be had: " + strings.Join(looked, "; "))}
}

// short leaves out what the reader of a list of failures knows already.
func short(err error) string {
	var e *fs.Error
	if errors.As(err, &e) && e.Kind == fs.ErrNotFound {
		return "not there"
	}
	return err.Error()
}

// check compares the answer of a source with what was asked for.
func (t *Tier) check(chunk fs.ChunkInfo, b []byte) error {
	if len(b) == int(chunk.Size) && sha256.Sum256(b) == chunk.ID.Hash {
		return nil
	}
	return fmt.Errorf("%w: the answer of %d bytes is not the chunk of %d", fs.ErrCorrupt, len(b), chunk.Size)
}

// filled notes a success, and that those who were asked long before are slow.
func (t *Tier) filled(s source, running map[fs.NodeID]time.Time) {
	for node, since := range running {
		if node != "" && time.Since(since) >= hedgeAfter {
			t.suspects.add(node)
		}
	}
	if s.node == "" {
		t.count.fillsStore.Add(1)
		return
	}
	t.count.fillsPeer.Add(1)
	t.suspects.clear(s.node)
}

// fetchFailed notes a failure; that a chunk is not there is none.
func (t *Tier) fetchFailed(chunk fs.ChunkInfo, a answer) {
	if errors.Is(a.err, fs.ErrNotFound) {
		return
	}
	t.count.fetchErrors.Add(1)
	if errors.Is(a.err, fs.ErrCorrupt) {
		t.count.wrongBytes.Add(1)
		t.log.Error("a copy of a chunk does not match its hash; another one is tried", "chunk", chunk.ID, "from", a.from.name, "error", a.err)
	}
	if a.from.node != "" {
		t.suspects.add(a.from.node)
	}
}
