package protocol

import (
	"slices"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// LeaderOptions tell a new Leader what it has won.
type LeaderOptions struct {
	Self    ID
	Term    uint64
	Conf    fs.Index // index of the latest configuration in the log, committed or not
	Servers []Server // that configuration
}

// Leader is the leading side of one won term: evidence, grants, holders and S.
// A new term needs a new Leader. A Leader that lost its term without knowing is
// harmless.
type Leader struct {
	cfg  Config
	self ID
	term uint64
	now  Instant // the latest reading seen

	conf    fs.Index
	servers []Server               // ordered by ID
	since   map[fs.NodeID]fs.Index // configuration with which each server came in
	evicted map[fs.NodeID]bool

	ready   bool     // the barrier is committed
	barrier fs.Index // first entry of this term
	commit  fs.Index
	stable  fs.Index
	wait    time.Duration // Slow: S may grow from here on (R10)

	rounds   rounds
	adoption adoption
	lag      lagMeter
	peers    []*peer // ordered by node and session
	damping  map[fs.NodeID]*damping
}

// Holder is one lease that may still be in use.
type Holder struct {
	ID      ID
	Joining bool // no lease yet; S is held for it
	Revoked bool
	Ack     fs.Index
	Left    time.Duration // until it is struck
}

// NewLeader returns the leading side of a term that was won at or before now.
// opt.Term must be the very term that this node has won: with a later one it
// would take its voters' loyalty to another leader for loyalty to itself. Raft's
// current term may have moved on since the news of the victory; the term of an
// entry that this node has proposed and sees committed has not.
func NewLeader(cfg Config, opt LeaderOptions, now Instant) (*Leader, []Message) {
	l := &Leader{
		cfg: cfg, self: opt.Self, term: opt.Term, now: now,
		since: map[fs.NodeID]fs.Index{}, evicted: map[fs.NodeID]bool{},
		wait:    now.Slow + cfg.Lease + cfg.Margin,
		rounds:  newRounds(cfg),
		damping: map[fs.NodeID]*damping{},
	}
	if cfg.mutant == mutant.NoMargin {
		l.wait -= cfg.Margin
	}
	if cfg.mutant == mutant.NoWait {
		l.wait = now.Slow
	}
	l.configure(opt.Conf, opt.Servers)
	l.adoption = newAdoption(cfg, now, l.servers)
	out := l.beginRound() // asks for ages even if nobody wants a lease
	return l, append(out, l.adopt()...)
}

// Barrier tells that the first entry of this term was committed at index, and
// so everything before it. Until then nothing is granted (R9).
func (l *Leader) Barrier(now Instant, index fs.Index) []Message {
	l.step(now)
	l.ready, l.barrier = true, index
	l.commit = max(l.commit, index)
	return l.advance()
}

// Committed tells that entries up to index are committed; bytes is the size of
// those that are new since the last call (R15).
func (l *Leader) Committed(now Instant, index fs.Index, bytes int) []Message {
	l.step(now)
	if index > l.commit {
		l.commit = index
		l.lag.commit(index, l.now.Slow, int64(bytes))
	}
	return l.advance()
}

// SetServers tells the latest configuration in the log, committed or not, that
// was appended at index.
func (l *Leader) SetServers(now Instant, index fs.Index, servers []Server) []Message {
	l.step(now)
	if index > l.conf {
		l.configure(index, servers)
		l.rounds.forgetAges()
	}
	return l.advance()
}

func (l *Leader) configure(index fs.Index, servers []Server) {
	l.conf = index
	l.servers = slices.Clone(servers)
	slices.SortFunc(l.servers, func(a, b Server) int { return cmpNode(a.ID, b.ID) })
	since := map[fs.NodeID]fs.Index{}
	for _, s := range l.servers {
		since[s.ID] = index
		if i, ok := l.since[s.ID]; ok {
			since[s.ID] = i
		}
	}
	for n := range l.evicted {
		if _, ok := since[n]; !ok {
			delete(l.evicted, n)
		}
	}
	l.since = since
}

// admitted reports whether node is in the committed configuration: only then
// may it hold a lease, so that a later leader knows whom to ask (R14).
func (l *Leader) admitted(node fs.NodeID) bool {
	i, ok := l.since[node]
	return ok && i <= l.commit && !l.evicted[node]
}

// Receive handles a message for which ForLeader is true.
func (l *Leader) Receive(now Instant, msg Message) []Message {
	l.step(now)
	if msg.To != l.self.Node {
		return nil
	}
	switch msg.Kind {
	case LeaseReq:
		return l.requested(msg)
	case RoundAck:
		return l.acked(msg)
	case Applied:
		if p := l.find(msg.From); p != nil {
			p.heard(l, msg)
			return l.advance()
		}
	case Released:
		return l.released(msg)
	case Pong, AdoptAck:
		if msg.Term == l.term {
			l.adoption.heard(msg)
			return append(l.adopt(), l.advance()...)
		}
	}
	return nil
}

// step notes the time, which never goes back, and strikes whose lease has run
// out: with a late reading of the clock a lease could be counted from before
// its request.
func (l *Leader) step(now Instant) {
	l.now = l.now.later(now)
	for _, p := range l.peers {
		if p.holder && l.now.Slow > p.expiry {
			p.strike()
		}
	}
}

// Tick strikes whose lease has run out and sends what is due.
func (l *Leader) Tick(now Instant) []Message {
	l.step(now)
	out := l.adopt()
	for _, p := range l.peers {
		out = append(out, l.tend(p)...)
	}
	l.forget()
	if l.rounds.overdue(l) {
		out = append(out, l.beginRound()...)
	}
	return append(out, l.advance()...)
}

// Next tells how long after now Tick is wanted; 0 is at once.
func (l *Leader) Next(now Instant) time.Duration {
	at := now.Slow + time.Second // to notice lag and to forget the dead
	if l.commit > l.stable && l.wait > now.Slow {
		at = min(at, l.wait)
	}
	if at1, ok := l.adoption.next(l.cfg); ok {
		at = min(at, at1)
	}
	if l.rounds.wanted(l) {
		at = min(at, l.rounds.last+l.cfg.Resend)
	}
	for _, p := range l.peers {
		at = min(at, l.peerNext(p, at))
	}
	return max(at-now.Slow, 0)
}

// advance grants what can be granted and lets S grow as far as every holder has
// acked, unless leases of former leaders may be in use.
func (l *Leader) advance() []Message {
	var out []Message
	s := l.commit
	for _, p := range l.peers {
		if g, ok := l.tryGrant(p); ok {
			out = append(out, g)
		}
		if p.holder || p.joining {
			s = min(s, p.ack)
		}
	}
	if !l.ready || l.now.Slow < l.wait || s <= l.stable {
		return out
	}
	l.stable = s
	l.lag.settle(s)
	for _, v := range l.servers {
		out = append(out, Message{Kind: Stable, From: l.self, To: v.ID, Term: l.term, Stable: s})
	}
	for _, p := range l.peers {
		p.probed = l.now.Slow
	}
	return out
}

// Stable is S: every lease holder has applied the entries up to it, and writers
// up to it may be answered. It may have grown after any call that takes a time.
func (l *Leader) Stable() fs.Index { return l.stable }

// Wait is how long writers still have to wait for leases of former leaders
// (R10); 0 when that is over.
func (l *Leader) Wait(now Instant) time.Duration { return max(0, l.wait-now.Slow) }

// Holders lists the leases that may still be in use, ordered by node and session.
func (l *Leader) Holders(now Instant) []Holder {
	l.step(now)
	var out []Holder
	for _, p := range l.peers {
		switch {
		case p.holder:
			out = append(out, Holder{ID: p.id, Revoked: p.revoked, Ack: p.ack, Left: p.expiry - l.now.Slow})
		case p.joining:
			out = append(out, Holder{ID: p.id, Joining: true, Ack: p.ack, Left: p.joinEnd - l.now.Slow})
		}
	}
	return out
}

// Evict ends a node's lease for good, before it is removed from the
// configuration (R14): it is told to release and granted nothing more.
func (l *Leader) Evict(now Instant, node fs.NodeID) []Message {
	l.step(now)
	l.evicted[node] = true
	var out []Message
	for _, p := range l.peers {
		if p.id.Node == node {
			out = append(out, l.revoke(p)...)
		}
	}
	return append(out, l.advance()...)
}

// Drained reports whether no lease of node can be in use, so that an evicted
// node may be removed from the configuration (R14).
func (l *Leader) Drained(now Instant, node fs.NodeID) bool {
	l.step(now)
	if l.cfg.mutant == mutant.RemoveEarly {
		return true
	}
	for _, p := range l.peers {
		if p.id.Node == node && (p.holder || p.joining) {
			return false
		}
	}
	return l.now.Slow >= l.wait
}

// BadClocks lists the nodes that are refused leases because their clock's rate
// differs too much from this node's (R3), sorted. Raise an alarm.
func (l *Leader) BadClocks() []fs.NodeID {
	var out []fs.NodeID
	for _, p := range l.peers {
		if p.clock.bad && !slices.Contains(out, p.id.Node) {
			out = append(out, p.id.Node)
		}
	}
	return out
}
