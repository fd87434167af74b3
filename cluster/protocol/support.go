package protocol

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// support is a voter's memory of the leaders whose rounds it has acked. A lease
// is only granted after a round that a majority acked, so a new leader that
// hears from a majority how long ago each of them last supported a lower term
// knows when the last lease of former leaders must end (R10). All times are
// Slow: an age may only be told too small.
type support struct {
	term   uint64        // the highest term supported
	at     time.Duration // when it was supported last
	before time.Duration // when a lower term may have been supported last
	conf   fs.Index      // configuration that this node knows
	voters map[fs.NodeID]bool
	mutant mutant.Mutant
}

// newSupport assumes that the node's last daemon, which nobody remembers,
// supported a leader until this one started.
func newSupport(cfg Config, now Instant) support {
	if cfg.mutant == mutant.AgeForgotten {
		return support{at: now.Slow - time.Hour, before: now.Slow - time.Hour, mutant: cfg.mutant}
	}
	return support{at: now.Slow, before: now.Slow, mutant: cfg.mutant}
}

// setServers takes note of a configuration. When the voters change the node
// takes it for support of a lower term: rounds under the former voters need not
// have met a majority of the new ones, but all of them ended before the new
// configuration was proposed.
func (s *support) setServers(now Instant, index fs.Index, servers []Server) {
	if index < s.conf {
		return
	}
	voters := map[fs.NodeID]bool{}
	same := true
	for _, v := range servers {
		if v.Voter {
			voters[v.ID] = true
			same = same && s.voters[v.ID]
		}
	}
	switch {
	case s.mutant == mutant.AgeForgotten && s.conf == 0:
	case !same || len(voters) != len(s.voters):
		s.at, s.before = now.Slow, now.Slow
	}
	s.conf, s.voters = index, voters
}

// answer acks a round. The ack supports the leader only if Raft's term, read
// now, is the leader's; the leader checks that.
func (s *support) answer(m *Member, raftTerm uint64, msg Message) Message {
	ack := Message{
		Kind: RoundAck, From: m.self, To: msg.From.Node, Term: msg.Term, ID: msg.ID,
		VoterTerm: raftTerm, Fast: m.now.Fast, Slow: m.now.Slow,
	}
	if raftTerm != msg.Term {
		return ack
	}
	if msg.Term > s.term {
		s.term, s.before = msg.Term, s.at
	}
	s.at = m.now.Slow
	ack.Age, ack.Conf = s.at-s.before, s.conf
	return ack
}
