package protocol

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// dropping is the way out of a lease before its time: the lease is given up at
// once, the driver drops the kernel's caches, and only then the leader hears
// Released or AdoptAck.
type dropping struct {
	wanted  bool
	ticket  uint64
	debts   []Message     // to be sent when the caches are gone
	adopted uint64        // highest term for whose Adopt the caches were dropped
	adult   time.Duration // Slow: AdoptAck may be sent from here on (R13b)
}

func newDropping(cfg Config, clean bool, now Instant) dropping {
	if clean || cfg.mutant == mutant.YoungAdopts {
		return dropping{adult: now.Slow}
	}
	return dropping{adult: now.Slow + cfg.Lease + cfg.Margin}
}

// owesAfter reports whether debts wait for nothing but the daemon's age.
func (d *dropping) owesAfter(now Instant) bool { return !d.wanted && len(d.debts) > 0 }

// forsake gives up the lease and every request on its way, and owes debt.
func (m *Member) forsake(debt Message) {
	m.lease.held = false
	m.req.open = false
	if !m.drop.wanted {
		m.drop.wanted = true
		m.drop.ticket++
	}
	m.drop.owe(debt)
}

func (d *dropping) owe(debt Message) {
	for i, o := range d.debts {
		if o.Kind == debt.Kind && o.To == debt.To {
			d.debts[i] = debt
			return
		}
	}
	d.debts = append(d.debts, debt)
}

// revoked gives up the lease unless it is one that the leader cannot mean: of a
// newer term or request than the one it revokes.
func (m *Member) revoked(msg Message) []Message {
	newer := m.lease.term > msg.Term || m.lease.term == msg.Term && m.lease.id > msg.ID
	if m.lease.held && newer {
		return nil
	}
	m.forsake(Message{Kind: Released, From: m.self, To: msg.From.Node, Term: msg.Term, ID: m.lastID})
	m.askAt = m.now.Fast + m.jitter(m.cfg.Retry)
	return nil
}

// adopted gives up the lease in favour of a new leader, which then need not
// wait for it. The answer to a repeated Adopt leaves leases of its term alone.
func (m *Member) adopted(msg Message) []Message {
	if msg.Term < m.honoured {
		return nil
	}
	m.honoured = msg.Term
	ack := Message{Kind: AdoptAck, From: m.self, To: msg.From.Node, Term: msg.Term, Index: m.applied}
	if m.drop.adopted == msg.Term {
		m.drop.owe(ack)
		return m.settleDebts()
	}
	if m.cfg.mutant == mutant.AdoptKeepsKernel {
		m.lease.held, m.req.open, m.drop.adopted = false, false, msg.Term
		return append([]Message{ack}, m.ask()...)
	}
	m.forsake(ack)
	m.askAt = m.now.Fast
	return nil
}

// Release gives the lease back for a graceful stop (R16) and asks for no other.
// The driver then drops the kernel's caches as Drop says and sends what Dropped
// returns.
func (m *Member) Release(now Instant) {
	m.step(now)
	m.ended = true
	m.forsake(Message{Kind: Released, From: m.self, To: m.leader, Term: m.leaderTerm, ID: m.lastID})
}

// Drop reports whether the kernel's caches must be dropped (after Revoke, Adopt
// or Release; the lease is already gone) and the ticket to hand to Dropped. The
// driver sees to it that no reply whose timeout was computed before reaches the
// kernel afterwards, or that the kernel does not cache it.
func (m *Member) Drop() (ticket uint64, want bool) { return m.drop.ticket, m.drop.wanted }

// Dropped tells that all kernel caches were dropped after Drop returned ticket.
// It returns Released or AdoptAck, and a LeaseReq. An old ticket does nothing.
func (m *Member) Dropped(now Instant, ticket uint64) []Message {
	m.step(now)
	if !m.drop.wanted || ticket != m.drop.ticket {
		return nil
	}
	m.drop.wanted = false
	for _, d := range m.drop.debts {
		if d.Kind == AdoptAck {
			m.drop.adopted = max(m.drop.adopted, d.Term)
		}
	}
	return append(m.settleDebts(), m.ask()...)
}

// CleanExit reports whether the daemon that ends now leaves no mount behind that
// could answer from the kernel's cache: it was released, the caches are dropped,
// and it is old enough that no mount of an earlier daemon can answer either.
// Only then the driver may leave a mark for the next daemon's Clean.
func (m *Member) CleanExit(now Instant) bool {
	m.step(now)
	adult := m.now.Slow >= m.drop.adult || m.cfg.mutant == mutant.YoungCleanExit
	return m.ended && !m.lease.held && !m.drop.wanted && adult
}

// settleDebts sends what was owed, but AdoptAck only when the mount of an
// earlier daemon cannot answer any more.
func (m *Member) settleDebts() []Message {
	if m.drop.wanted || len(m.drop.debts) == 0 {
		return nil
	}
	var out, keep []Message
	for _, d := range m.drop.debts {
		switch {
		case d.Kind == AdoptAck && m.now.Slow < m.drop.adult:
			keep = append(keep, d)
			continue
		case d.Kind == AdoptAck:
			d.Index = m.applied
		case d.To == fs.NodeID(""):
			continue // nobody is known to lead: the lease runs out by itself
		}
		out = append(out, d)
	}
	m.drop.debts = keep
	return out
}
