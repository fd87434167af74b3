package protocol

import (
	"slices"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// rounds are the numbered questions to all voters whether they still follow
// this term (R8). An ack of one round counts for all rounds before it.
type rounds struct {
	number uint64
	last   time.Duration // Slow, when it began
	acked  map[fs.NodeID]uint64
	ends   map[fs.NodeID]time.Duration // Slow: no lease that the voter helped to a lower term is in use after
	span   time.Duration               // Lease + Margin
}

func newRounds(cfg Config) rounds {
	span := cfg.Lease + cfg.Margin
	if cfg.mutant == mutant.NoMargin {
		span = cfg.Lease
	}
	return rounds{acked: map[fs.NodeID]uint64{}, ends: map[fs.NodeID]time.Duration{}, span: span}
}

func (r *rounds) forgetAges() { clear(r.ends) }

// beginRound asks all voters of the latest configuration.
func (l *Leader) beginRound() []Message {
	l.rounds.number++
	l.rounds.last = l.now.Slow
	var out []Message
	for _, v := range l.servers {
		if v.Voter || l.cfg.mutant == mutant.NonVotersCount {
			out = append(out, Message{
				Kind: Round, From: l.self, To: v.ID, Term: l.term, ID: l.rounds.number, Lease: l.cfg.Lease,
			})
		}
	}
	return out
}

// acked counts a RoundAck. Only the voter's own word, given after the round
// arrived, that it still follows this term is evidence.
func (l *Leader) acked(msg Message) []Message {
	if msg.Term != l.term || msg.VoterTerm != l.term {
		return nil
	}
	v := msg.From.Node
	l.rounds.acked[v] = max(l.rounds.acked[v], min(msg.ID, l.rounds.number))
	if p := l.find(msg.From); p != nil {
		p.clock.sample(l.cfg, l.now, msg)
	}
	if msg.Conf == l.conf {
		end := l.now.Slow - msg.Age + l.rounds.span
		if e, ok := l.rounds.ends[v]; !ok || end < e {
			l.rounds.ends[v] = end
		}
		l.shortenWait()
	}
	var out []Message
	if l.rounds.wanted(l) && l.rounds.idle(l) {
		out = l.beginRound()
	}
	return append(out, l.advance()...)
}

// completed is the highest round that a majority of the voters has acked.
func (r *rounds) completed(l *Leader) uint64 {
	var buf [16]uint64
	acks, voters := buf[:0], 0
	for _, v := range l.servers {
		if v.Voter {
			voters++
		}
		if v.Voter || l.cfg.mutant == mutant.NonVotersCount {
			acks = append(acks, r.acked[v.ID])
		}
	}
	if voters == 0 {
		return 0
	}
	slices.Sort(acks)
	if quorum := voters/2 + 1; quorum <= len(acks) {
		return acks[len(acks)-quorum]
	}
	return 0
}

// shortenWait applies the refinement of R10: every lease of a former leader was
// granted with the support of a majority, which shares a voter with the
// majority that has answered now. The latest end told by any of them is
// therefore not before the last such lease's.
func (l *Leader) shortenWait() {
	var buf [16]time.Duration
	ends, voters := buf[:0], 0
	for _, v := range l.servers {
		if !v.Voter {
			continue
		}
		voters++
		if e, ok := l.rounds.ends[v.ID]; ok {
			ends = append(ends, e)
		}
	}
	quorum := voters/2 + 1
	if voters == 0 || len(ends) < quorum {
		return
	}
	slices.Sort(ends)
	if l.cfg.mutant == mutant.LargestAge {
		l.wait = min(l.wait, ends[0])
		return
	}
	l.wait = min(l.wait, ends[quorum-1])
}

// wanted reports whether a request waits for a round that was not completed.
func (r *rounds) wanted(l *Leader) bool {
	done := r.completed(l)
	for _, p := range l.peers {
		if p.asking && p.need > done {
			return true
		}
	}
	return false
}

// idle reports whether a round may begin: none is under way, or it is so old
// that something was probably lost.
func (r *rounds) idle(l *Leader) bool {
	return r.completed(l) >= r.number || l.now.Slow-r.last >= l.cfg.Resend
}

// overdue is wanted, and the last round has been given its time.
func (r *rounds) overdue(l *Leader) bool {
	return l.now.Slow-r.last >= l.cfg.Resend && r.wanted(l)
}
