package cluster

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/cluster/wire"
)

// streamLayer runs raft's network transport over the node's one port.
type streamLayer struct {
	net.Listener
	mux       *wire.Mux
	advertise string
}

func (s streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.mux.Dial(ctx, string(addr), wire.Raft)
}

// Addr is the address other nodes know this one by.
func (s streamLayer) Addr() net.Addr { return advertised(s.advertise) }

type advertised string

func (a advertised) Network() string { return "tcp" }
func (a advertised) String() string  { return string(a) }

// pushTransport is raft's network transport with the commit nudge (DESIGN D4).
//
// hashicorp/raft tells followers about a commit with the next entry, or 50 to
// 100 ms later. pushTransport remembers each replication pipeline and, as soon
// as the leader knows a commit, sends on it the same empty AppendEntries that
// raft itself would send later. It is safe because a committed index stays
// committed, and because the request travels on the pipeline's own connection,
// behind the entry it speaks of: the follower's raft checks term and previous
// entry as ever. It never claims more than the last entry sent on that
// pipeline, so PrevLogEntry is never 0 with a commit index.
type pushTransport struct {
	*raft.NetworkTransport
	committed atomic.Uint64

	mu    sync.Mutex
	pipes map[*pushPipe]struct{}
}

func newPushTransport(t *raft.NetworkTransport) *pushTransport {
	return &pushTransport{NetworkTransport: t, pipes: map[*pushPipe]struct{}{}}
}

// AppendEntriesPipeline opens a pipeline that also carries pushes.
func (t *pushTransport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, addr)
	if err != nil {
		return nil, err
	}
	return newPushPipe(inner, t), nil
}

// push tells all followers that index is committed. It does not block.
func (t *pushTransport) push(index uint64) {
	for {
		c := t.committed.Load()
		if index <= c {
			return
		}
		if t.committed.CompareAndSwap(c, index) {
			break
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.pipes {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// pushPipe is one follower's replication pipeline. mu orders raft's requests
// and ours on the connection.
type pushPipe struct {
	raft.AppendPipeline
	t       *pushTransport
	wake    chan struct{}
	done    chan struct{}
	once    sync.Once
	answers chan raft.AppendFuture

	mu       sync.Mutex
	hdr      raft.RPCHeader
	term     uint64
	lastIdx  uint64 // last entry sent here
	lastTerm uint64
	sent     uint64 // highest commit index told
}

func newPushPipe(inner raft.AppendPipeline, t *pushTransport) *pushPipe {
	p := &pushPipe{
		AppendPipeline: inner, t: t, wake: make(chan struct{}, 1),
		done: make(chan struct{}), answers: make(chan raft.AppendFuture),
	}
	t.mu.Lock()
	t.pipes[p] = struct{}{}
	t.mu.Unlock()
	go p.run()     // ends with Close
	go p.forward() // so does this
	return p
}

func (p *pushPipe) AppendEntries(a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hdr, p.term = a.RPCHeader, a.Term
	p.lastIdx, p.lastTerm = a.PrevLogEntry, a.PrevLogTerm
	if n := len(a.Entries); n > 0 {
		p.lastIdx, p.lastTerm = a.Entries[n-1].Index, a.Entries[n-1].Term
	}
	// Raise the commit index on its way out: a commit that became known after
	// raft filled the request in would otherwise wait for the next one.
	// Never beyond the last entry this request vouches for: the follower takes
	// min(commit, its own last index), and that may be an entry of an old term.
	a.LeaderCommitIndex = min(max(a.LeaderCommitIndex, p.t.committed.Load()), p.lastIdx)
	p.sent = max(p.sent, a.LeaderCommitIndex)
	return p.AppendPipeline.AppendEntries(a, r)
}

func (p *pushPipe) run() {
	for {
		select {
		case <-p.wake:
			p.push(p.t.committed.Load())
		case <-p.done:
			return
		}
	}
}

// Consumer is where raft takes the answers from.
func (p *pushPipe) Consumer() <-chan raft.AppendFuture { return p.answers }

// forward gives raft the answers. After one that makes raft leave the pipeline
// nobody takes any more, and a push that waits for its turn to be answered
// would keep the lock that raft needs to notice: so the pipeline is closed.
func (p *pushPipe) forward() {
	for {
		select {
		case a := <-p.AppendPipeline.Consumer():
			select {
			case p.answers <- a:
			case <-p.done:
				return
			}
			if r := a.Response(); !r.Success || r.Term > a.Request().Term {
				p.Close()
				return
			}
		case <-p.done:
			return
		}
	}
}

func (p *pushPipe) push(c uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c = min(c, p.lastIdx)
	if c <= p.sent {
		return
	}
	p.sent = c
	// An error means that the pipeline is broken; raft's own next request sees it too.
	_, _ = p.AppendPipeline.AppendEntries(&raft.AppendEntriesRequest{
		RPCHeader: p.hdr, Term: p.term,
		PrevLogEntry: p.lastIdx, PrevLogTerm: p.lastTerm, LeaderCommitIndex: c,
	}, new(raft.AppendEntriesResponse))
}

func (p *pushPipe) Close() error {
	p.once.Do(func() {
		close(p.done)
		p.t.mu.Lock()
		delete(p.t.pipes, p)
		p.t.mu.Unlock()
	})
	return p.AppendPipeline.Close()
}
