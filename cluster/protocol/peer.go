package protocol

import (
	"cmp"
	"slices"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// peer is what a leader knows of one daemon. All times are Slow.
type peer struct {
	id     ID
	ack    fs.Index // highest index that it applied
	stable fs.Index // highest S that it is known to know
	seen   time.Duration
	probed time.Duration // when Stable was sent last
	clock  clockRate

	asking  bool   // request ask waits for a round later than need-1
	ask     uint64 // newest request
	need    uint64
	granted uint64 // newest request that was granted
	gone    uint64 // requests up to this were given up by Released

	holder  bool
	expiry  time.Duration // the lease may be in use until here
	joining bool          // S is held so that it can catch up (R9)
	joinEnd time.Duration
	revoked bool
}

func cmpNode(a, b fs.NodeID) int { return cmp.Compare(a, b) }

func cmpID(a, b ID) int {
	if c := cmpNode(a.Node, b.Node); c != 0 {
		return c
	}
	return cmp.Compare(a.Session, b.Session)
}

// peersMax bounds the records of daemons. It is far above any cluster's size;
// each daemon that starts takes one for a while.
const peersMax = 4096

// find returns the record of a daemon, nil if there is none.
func (l *Leader) find(id ID) *peer {
	i, ok := slices.BinarySearchFunc(l.peers, id, func(p *peer, id ID) int { return cmpID(p.id, id) })
	if ok {
		return l.peers[i]
	}
	if l.cfg.mutant == mutant.MergeIncarnations {
		return l.merge(id)
	}
	return nil
}

// peer returns the record of a daemon and makes one for a server that has none.
func (l *Leader) peer(id ID) *peer {
	if p := l.find(id); p != nil {
		return p
	}
	if _, server := l.since[id.Node]; !server || len(l.peers) >= peersMax {
		return nil
	}
	p := &peer{id: id, seen: l.now.Slow}
	i, _ := slices.BinarySearchFunc(l.peers, id, func(p *peer, id ID) int { return cmpID(p.id, id) })
	l.peers = slices.Insert(l.peers, i, p)
	return p
}

// merge is the mutant that takes a new daemon for its predecessor.
func (l *Leader) merge(id ID) *peer {
	for _, p := range l.peers {
		if p.id.Node == id.Node {
			p.id, p.ask, p.granted, p.gone, p.asking = id, 0, 0, 0, false
			return p
		}
	}
	return nil
}

// heard takes over what every message of a daemon tells.
func (p *peer) heard(l *Leader, msg Message) {
	p.seen = l.now.Slow
	p.ack = max(p.ack, msg.Index)
	p.stable = max(p.stable, msg.Stable)
}

func (p *peer) strike() { p.holder, p.revoked = false, false }

// requested queues a LeaseReq behind a round that begins after its arrival.
func (l *Leader) requested(msg Message) []Message {
	p := l.peer(msg.From)
	if p == nil {
		return []Message{l.deny(msg.From, msg.ID, WhyNotMember, l.cfg.Renew)}
	}
	p.heard(l, msg)
	p.clock.sample(l.cfg, l.now, msg)
	out := l.advance()
	switch {
	case msg.ID <= p.gone, msg.ID < p.ask, p.asking && msg.ID == p.ask && (p.holder || p.joining):
		return out
	case msg.ID == p.granted:
		// The Grant was lost. Sent again it means the same lease: the holder
		// counts from the request, so the expiry stands.
		if p.holder && !p.revoked {
			out = append(out, l.grantMessage(p))
		}
		return out
	}
	if why, wait := l.refuse(p, msg); why != 0 {
		return append(out, l.deny(p.id, msg.ID, why, wait))
	}
	p.ask, p.asking, p.need = msg.ID, true, l.rounds.number+1
	if l.cfg.mutant == mutant.StaleRound {
		p.need = 1
	}
	if !p.holder && !p.joining {
		p.joining, p.joinEnd = true, l.now.Slow+l.cfg.JoinMax
	}
	if l.rounds.idle(l) {
		out = append(out, l.beginRound()...)
	}
	return append(out, l.advance()...)
}

// refuse decides whether a request is turned away, why, and for how long.
func (l *Leader) refuse(p *peer, msg Message) (Why, time.Duration) {
	d := l.damp(p.id.Node)
	switch {
	case l.evicted[p.id.Node]:
		return WhyNotMember, l.cfg.Renew
	case l.ready && !l.admitted(p.id.Node): // before, nobody is, and nothing is granted
		return WhyNotMember, l.cfg.Retry
	case msg.Lease != l.cfg.Lease:
		return WhyConfig, l.cfg.ReadmitMin
	case p.clock.bad:
		return WhyClock, l.cfg.Renew
	case p.revoked, l.now.Slow < d.until:
		return WhyLag, max(d.until-l.now.Slow, 0)
	case p.holder || p.joining || l.cfg.mutant == mutant.NoCatchUp:
		return 0, 0
	case p.ack+l.cfg.JoinLag < l.required():
		return WhyBehind, l.cfg.Renew
	case p.ack < l.required() && l.catchingUp() >= l.cfg.JoiningMax:
		return WhyBusy, l.cfg.Retry
	}
	return 0, 0
}

func (l *Leader) deny(to ID, id uint64, why Why, wait time.Duration) Message {
	return Message{
		Kind: Deny, Why: why, From: l.self, To: to.Node, ToSession: to.Session, Term: l.term,
		ID: id, Wait: wait, Index: l.required(), Stable: l.stable,
	}
}

// required is the index that a node must have applied to hold a lease (R9).
func (l *Leader) required() fs.Index { return max(l.stable, l.barrier) }

// catchingUp counts the joining nodes that have something to catch up with; at
// the start of a term all nodes join at once, and need not wait for each other.
func (l *Leader) catchingUp() int {
	n := 0
	for _, p := range l.peers {
		if p.joining && p.ack < l.required() {
			n++
		}
	}
	return n
}

// tryGrant grants a request that has its evidence: a round that began after it
// arrived (R8), and everything stable applied (R9).
func (l *Leader) tryGrant(p *peer) (Message, bool) {
	if !p.asking || !l.ready || p.revoked || !l.admitted(p.id.Node) {
		return Message{}, false
	}
	if p.ack < l.required() && l.cfg.mutant != mutant.NoCatchUp {
		return Message{}, false
	}
	if l.rounds.completed(l) < p.need && l.cfg.mutant != mutant.NoRound {
		return Message{}, false
	}
	p.asking, p.joining, p.holder = false, false, true
	p.granted = p.ask
	p.expiry = l.now.Slow + l.cfg.Lease + l.cfg.Margin
	if l.cfg.mutant == mutant.NoMargin {
		p.expiry -= l.cfg.Margin
	}
	return l.grantMessage(p), true
}

func (l *Leader) grantMessage(p *peer) Message {
	return Message{
		Kind: Grant, From: l.self, To: p.id.Node, ToSession: p.id.Session, Term: l.term,
		ID: p.granted, Lease: l.cfg.Lease, Stable: l.stable,
	}
}

// released strikes a daemon that has given up its lease, unless the lease is
// one that it was granted later (R16).
func (l *Leader) released(msg Message) []Message {
	p := l.peer(msg.From)
	if p == nil {
		return nil
	}
	p.seen = l.now.Slow
	p.gone = max(p.gone, msg.ID)
	if p.ask <= p.gone {
		p.asking, p.joining = false, false
	}
	if p.granted <= msg.ID || l.cfg.mutant == mutant.ReleasedAnyRequest {
		p.strike()
	}
	return l.advance()
}

// tend does what time brings for one daemon: the end of its joining, Revoke for
// one that lags, and repetition of what may have been lost.
func (l *Leader) tend(p *peer) []Message {
	var out []Message
	if p.joining && l.now.Slow > p.joinEnd {
		p.joining = false
		if p.ack < l.required() {
			p.asking = false
			d := l.damp(p.id.Node)
			d.extend(l.cfg, l.now.Slow)
			out = append(out, l.deny(p.id, p.ask, WhyBehind, d.until-l.now.Slow))
		}
	}
	if !p.holder {
		return out
	}
	if !p.revoked && l.lag.incident(l, p) {
		out = append(out, l.revoke(p)...)
	}
	if l.now.Slow-p.probed < l.cfg.Resend {
		return out
	}
	switch {
	case p.revoked:
		out = append(out, l.revoke(p)...)
	case p.ack < l.commit || p.stable < l.stable:
		p.probed = l.now.Slow
		out = append(out, Message{
			Kind: Stable, Again: true, From: l.self, To: p.id.Node, ToSession: p.id.Session,
			Term: l.term, Stable: l.stable,
		})
	}
	return out
}

// peerNext is the earlier of at and the time when tend has something to do.
func (l *Leader) peerNext(p *peer, at time.Duration) time.Duration {
	if p.joining {
		at = min(at, p.joinEnd+1)
	}
	if p.holder {
		if l.commit > l.stable || p.revoked {
			at = min(at, p.expiry+1)
		}
		if p.revoked || p.ack < l.commit || p.stable < l.stable {
			at = min(at, p.probed+l.cfg.Resend)
		}
	}
	return at
}

// revoke asks a daemon to give up its lease; it stays a holder until it says
// Released or the lease has run out (R13).
func (l *Leader) revoke(p *peer) []Message {
	p.asking, p.joining = false, false
	if !p.holder {
		return nil
	}
	if l.cfg.mutant == mutant.StrikeEarly {
		p.strike()
		return nil
	}
	p.revoked, p.probed = true, l.now.Slow
	return []Message{{
		Kind: Revoke, From: l.self, To: p.id.Node, ToSession: p.id.Session, Term: l.term, ID: p.granted,
	}}
}

// forget drops the records of daemons that have long been silent.
func (l *Leader) forget() {
	const rounds = 10 // leases; long enough for a delayed message to have died
	l.peers = slices.DeleteFunc(l.peers, func(p *peer) bool {
		return !p.holder && !p.joining && l.now.Slow-p.seen > rounds*(l.cfg.Lease+l.cfg.Margin)
	})
}
