package protocol

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// MemberOptions tell a new Member who it is and what it comes up with.
type MemberOptions struct {
	Self    ID
	Applied fs.Index // last index in the state that this daemon starts from
	// Clean: CleanExit was true when the last daemon of this node ended, or the
	// machine was booted since. Otherwise an earlier mount may still answer from
	// the kernel's cache, and AdoptAck waits for L+M (R13b).
	Clean bool
	// Witness: this node shows nothing to anybody and asks for no lease, so
	// that writers never wait for it. It still votes.
	Witness bool
	Seed    uint64 // for the jitter of renewals; different on each node
}

// Member is what every daemon has: the lease of this node, the keys in flight,
// and the voter's answers to rounds.
type Member struct {
	cfg  Config
	self ID
	now  Instant // the latest reading seen
	rng  uint64

	leader     fs.NodeID // whom to ask; "" if unknown
	leaderTerm uint64
	honoured   uint64 // F: no Grant or Adopt of a lower term counts
	lease      lease
	req        request
	lastID     uint64        // requests are numbered from 1
	askAt      time.Duration // Fast: when the next request is due
	refused    Why
	needed     fs.Index // WhyBehind: ask again when applied is here
	ended      bool     // asks for no lease: Witness, or after Release

	support support
	drop    dropping

	applied fs.Index
	stable  fs.Index
	flight  flight
}

// lease is in use from since until expiry on this node's Fast clock. A Grant
// that comes in time prolongs it; since stays.
type lease struct {
	held   bool
	id     uint64
	term   uint64
	since  time.Duration
	expiry time.Duration
}

// request is the LeaseReq that may be answered.
type request struct {
	open   bool
	id     uint64
	sentAt time.Duration // Fast, of the first sending: the lease counts from here (R1)
	last   time.Duration // Fast, of the last sending
}

// Verdict is the answer to "may I show what I have just read?".
type Verdict uint8

// The verdicts.
const (
	// Show: the values may be shown.
	Show Verdict = iota + 1
	// WaitStable: a key is in flight. Wait until Stable reaches the index that
	// came with the verdict, then read again.
	WaitStable
	// NoLease: there was no valid lease all the while. Wait for one if Lease
	// says so, then read again; after a second the node's policy decides (R18).
	NoLease
)

// NewMember returns the member side of a daemon that starts at now.
func NewMember(cfg Config, opt MemberOptions, now Instant) *Member {
	floor := opt.Applied
	if cfg.mutant == mutant.RestartForgets {
		floor = 0
	}
	return &Member{
		cfg: cfg, self: opt.Self, now: now, rng: opt.Seed, askAt: now.Fast,
		applied: opt.Applied,
		flight:  newFlight(cfg.PendingMax, floor),
		ended:   opt.Witness,
		support: newSupport(cfg, now),
		drop:    newDropping(cfg, opt.Clean, now),
	}
}

// SetLeader tells which node the driver believes to lead term ("" if unknown).
// A wrong belief costs time, never safety. It returns a LeaseReq at once when
// the leader is new.
func (m *Member) SetLeader(now Instant, leader fs.NodeID, term uint64) []Message {
	m.step(now)
	if leader == m.leader && term == m.leaderTerm {
		return nil
	}
	m.leader, m.leaderTerm = leader, term
	m.req.open = false
	m.askAt = m.now.Fast
	return m.ask()
}

// SetServers tells the latest configuration that this node has in its log, at
// index, committed or not. Call it at start and at each change. Until it was
// called, and while the leader's configuration is another, the node's RoundAcks
// carry no usable age: then a new leader waits the full time (R10).
func (m *Member) SetServers(now Instant, index fs.Index, servers []Server) {
	m.step(now)
	m.support.setServers(m.now, index, servers)
}

// Tick sends what is due.
func (m *Member) Tick(now Instant) []Message {
	m.step(now)
	return append(m.ask(), m.settleDebts()...)
}

// Next tells how long after now Tick is wanted; 0 is at once.
func (m *Member) Next(now Instant) time.Duration {
	next := time.Hour
	if m.mayAsk() {
		at := m.askAt
		if m.req.open {
			at = m.req.last + m.cfg.Retry
		}
		next = min(next, at-now.Fast)
	}
	if m.drop.owesAfter(now) {
		next = min(next, m.drop.adult-now.Slow)
	}
	return max(next, 0)
}

// Receive handles a message for which ForLeader is false and which is addressed
// to this node. raftTerm is Raft's current term, read after the message arrived
// and while holding the driver's mutex: a Round is answered with it (R8).
func (m *Member) Receive(now Instant, raftTerm uint64, msg Message) []Message {
	m.step(now)
	if msg.To != m.self.Node || msg.ToSession != 0 && msg.ToSession != m.self.Session {
		return nil // for an earlier daemon of this node
	}
	switch msg.Kind {
	case Round:
		if msg.Lease != m.cfg.Lease {
			return nil // the leader's waits would not cover our leases
		}
		return []Message{m.support.answer(m, raftTerm, msg)}
	case Grant:
		return m.granted(msg)
	case Deny:
		m.denied(msg)
	case Stable:
		m.LearnStable(msg.Stable)
		if msg.Again {
			return []Message{m.ack(msg.From.Node)}
		}
	case Revoke:
		return m.revoked(msg)
	case Ping:
		if m.now.Slow < m.drop.adult {
			return nil // AdoptAck would come too late to be of use
		}
		return []Message{{Kind: Pong, From: m.self, To: msg.From.Node, Term: msg.Term}}
	case Adopt:
		return m.adopted(msg)
	}
	return nil
}

// step notes the time, which never goes back.
func (m *Member) step(now Instant) { m.now = m.now.later(now) }

func (m *Member) mayAsk() bool { return m.leader != "" && !m.ended && !m.drop.wanted }

// ask sends a LeaseReq if one is due. An unanswered one is repeated under its
// number and first time for half a lease, so that answers slower than Retry
// still find it open; what it then yields would hardly be worth having.
func (m *Member) ask() []Message {
	t := m.now.Fast
	switch {
	case !m.mayAsk():
		return nil
	case m.req.open && t-m.req.last < m.cfg.Retry:
		return nil
	case m.req.open && t-m.req.sentAt <= m.cfg.Lease/2:
		m.req.last = t
	case !m.req.open && t < m.askAt:
		return nil
	default:
		m.lastID++
		m.req = request{open: true, id: m.lastID, sentAt: t, last: t}
	}
	return []Message{{
		Kind: LeaseReq, From: m.self, To: m.leader, Term: m.leaderTerm, ID: m.req.id, Index: m.applied,
		Stable: m.stable, Lease: m.cfg.Lease, Fast: m.now.Fast, Slow: m.now.Slow,
	}}
}

// granted starts or prolongs the lease, counted from the sending of the very
// request that is answered (R1).
func (m *Member) granted(msg Message) []Message {
	m.LearnStable(msg.Stable)
	match := msg.ID == m.req.id || m.cfg.mutant == mutant.AnyGrant
	if !m.req.open || !match || msg.Term < m.honoured || !m.mayAsk() {
		return nil
	}
	start := m.req.sentAt
	if m.cfg.mutant == mutant.LeaseFromReceipt {
		start = m.now.Fast
	}
	m.req.open = false
	m.refused, m.needed = 0, 0
	m.honoured = msg.Term
	since := m.now.Fast
	if m.valid() {
		since = m.lease.since
	}
	m.lease = lease{held: true, id: msg.ID, term: msg.Term, since: since, expiry: start + msg.Lease}
	m.askAt = start + m.jitter(m.cfg.Renew)
	return m.ask()
}

func (m *Member) denied(msg Message) {
	m.LearnStable(msg.Stable)
	if !m.req.open || msg.ID != m.req.id {
		return
	}
	m.req.open = false
	m.refused, m.needed = msg.Why, msg.Index
	m.askAt = m.now.Fast + max(msg.Wait, m.jitter(m.cfg.Retry))
}

// jitter shortens d by up to 20 % (R17).
func (m *Member) jitter(d time.Duration) time.Duration {
	m.rng += 0x9e3779b97f4a7c15 // splitmix64
	z := m.rng
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return d - time.Duration(float64(d)*0.2*float64(z>>11)/(1<<53))
}

// Closing marks keys that entry index is about to change, before the kernel's
// caches are invalidated: they are still shown, in their old state, but Timeout
// is 0 for them, so that nothing is handed out behind the invalidation's back.
// A driver whose timeouts are all 0 need not call it.
func (m *Member) Closing(index fs.Index, keys []fs.Key) {
	for _, k := range keys {
		m.flight.closing[k] = max(m.flight.closing[k], index)
	}
}

// Pending marks keys as changed by entry index. The driver calls it before the
// state switches to index (and after the kernel was invalidated: a handler that
// waits for S ≥ index must not be in the invalidation's way, I9). From then on
// Visible holds them back until S reaches index. Calls come in log order; keys
// is not kept.
func (m *Member) Pending(index fs.Index, keys []fs.Key) {
	m.flight.add(index, keys)
	m.flight.settle(m.stable)
}

// Applied tells that the state is at index and the kernel holds nothing older.
// It returns the ack; acks are cumulative, so one call for a batch is enough.
func (m *Member) Applied(now Instant, index fs.Index) []Message {
	m.step(now)
	m.applied = max(m.applied, index)
	if m.leader == "" {
		return nil
	}
	out := []Message{m.ack(m.leader)}
	if m.refused == WhyBehind && !m.req.open && m.applied >= m.needed {
		m.refused, m.askAt = 0, m.now.Fast
		out = append(out, m.ask()...)
	}
	return out
}

func (m *Member) ack(to fs.NodeID) Message {
	return Message{Kind: Applied, From: m.self, To: to, Index: m.applied, Stable: m.stable}
}

// Restoring marks everything as changed by index: the whole state is about to
// be replaced by one at index (a snapshot), and which of its keys are in flight
// is unknown. Like Pending the driver calls it before readers can see the new
// state, and Applied afterwards, when the kernel's caches are dropped as well.
func (m *Member) Restoring(index fs.Index) {
	m.flight.floor = max(m.flight.floor, index)
	clear(m.flight.closing)
}

// Visible decides whether values of keys may be shown that were read from the
// state after began and before now: the lease has been valid all the time, and
// no key is in flight. A lease that is valid only now proves nothing about a
// state that was read before it was granted. With WaitStable comes the index to
// wait for. It does not allocate.
func (m *Member) Visible(began, now Instant, keys []fs.Key) (Verdict, fs.Index) {
	m.step(now)
	if !m.valid() || began.Fast < m.lease.since && m.cfg.mutant != mutant.LeaseAfterRead {
		return NoLease, 0
	}
	if m.cfg.mutant == mutant.Expose {
		return Show, 0
	}
	if i := m.flight.waitFor(m.stable, keys); i > 0 {
		return WaitStable, i
	}
	return Show, 0
}

func (m *Member) valid() bool { return m.lease.held && m.now.Fast < m.lease.expiry }

// Timeout is the longest time that the kernel may cache what was read of keys
// (R4): 0 without lease and for keys in flight. Call it after Visible, and see
// Config.Late for what to do after the reply was written.
func (m *Member) Timeout(now Instant, keys []fs.Key) time.Duration {
	m.step(now)
	if !m.valid() || !m.flight.cacheable(m.stable, keys) {
		return 0
	}
	if m.cfg.mutant == mutant.KernelUnbounded {
		return m.cfg.KernelMax
	}
	return max(0, min(m.lease.expiry-m.now.Fast-m.cfg.KernelSlack, m.cfg.KernelMax))
}

// CanAnswer reports whether the writer of entry index may get its answer: this
// node has applied it, and it is stable. The leader's result carries the proof
// of the second; pass it to LearnStable. Failed operations obey the same rule
// (R20, R21).
func (m *Member) CanAnswer(index fs.Index) bool {
	return m.applied >= index && (m.stable >= index || m.cfg.mutant == mutant.AnswerUnstable)
}

// LearnStable tells that a leader said S ≥ index elsewhere than in a Message,
// such as beside the result of a command. Once true it is true for ever.
func (m *Member) LearnStable(index fs.Index) {
	if index > m.stable {
		m.stable = index
		m.flight.settle(index)
	}
}

// Lease tells how much of the lease is left; ok is false without a valid one.
func (m *Member) Lease(now Instant) (left time.Duration, ok bool) {
	m.step(now)
	if !m.valid() {
		return 0, false
	}
	return m.lease.expiry - m.now.Fast, true
}

// Stable is the highest S that this node knows of. It only grows.
func (m *Member) Stable() fs.Index { return m.stable }

// AppliedIndex is the highest index passed to Applied, or what it started with.
func (m *Member) AppliedIndex() fs.Index { return m.applied }

// Term is the highest term whose Grant or Adopt this node has honoured.
func (m *Member) Term() uint64 { return m.honoured }

// Refused tells why the leader refused the last request, 0 if it did not.
func (m *Member) Refused() Why { return m.refused }
