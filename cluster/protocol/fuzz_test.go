package protocol

import (
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// FuzzSteps feeds one Leader and the Members of its servers with arbitrary
// steps: deliveries of real messages in any order, any number of times or never,
// time, commits and applies. Nothing may panic, S may only grow and never pass
// what is committed, and I1 must hold at every step.
func FuzzSteps(f *testing.F) {
	f.Add([]byte("\x00\x10\x20\x30\x40\x50\x60\x70\x80\x90\xa0\xb0"))
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 2000 {
			return
		}
		s := newStage(t)
		for i := 0; i+1 < len(script); i += 2 {
			s.step(script[i], int(script[i+1]))
		}
	})
}

// stage is a cluster of three in one term, and the messages under way.
type stage struct {
	t       *testing.T
	now     time.Duration
	leader  *Leader
	members []*Member
	applied []fs.Index
	mail    []Message
	commit  fs.Index
	stable  fs.Index
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, applied: make([]fs.Index, 3), commit: 1}
	servers := []Server{{"n0", true}, {"n1", true}, {"n2", true}}
	for i, v := range servers {
		m := NewMember(Defaults(), MemberOptions{Self: ID{Node: v.ID, Session: fs.SessionID(i + 1)}}, at(0))
		m.SetServers(at(0), 1, servers)
		s.mail = append(s.mail, m.SetLeader(at(0), "n0", 1)...)
		s.members = append(s.members, m)
	}
	l, out := NewLeader(Defaults(), LeaderOptions{Self: ID{Node: "n0", Session: 1}, Term: 1, Conf: 1, Servers: servers}, at(0))
	s.leader = l
	s.mail = append(s.mail, out...)
	s.mail = append(s.mail, l.Barrier(at(0), 1)...)
	return s
}

func (s *stage) step(what byte, n int) {
	who := n % 3
	m := s.members[who]
	var out []Message
	switch what % 8 {
	case 0, 1, 2: // a message arrives; it stays under way unless what says so
		if len(s.mail) == 0 {
			return
		}
		i := n % len(s.mail)
		msg := s.mail[i]
		if what&8 == 0 {
			s.mail = append(s.mail[:i], s.mail[i+1:]...)
		}
		if msg.ForLeader() {
			out = s.leader.Receive(at(s.now), msg)
		} else {
			out = s.members[msg.To[1]-'0'].Receive(at(s.now), 1, msg)
		}
	case 3:
		s.now += time.Duration(n) * 10 * time.Millisecond
	case 4:
		s.commit++
		out = s.leader.Committed(at(s.now), s.commit, n)
	case 5:
		if s.applied[who] < s.commit {
			s.applied[who]++
			m.Pending(s.applied[who], []fs.Key{{Kind: fs.KeyAttr, Ino: fs.Ino(n)}})
			out = m.Applied(at(s.now), s.applied[who])
		}
	case 6:
		out = append(m.Tick(at(s.now)), s.leader.Tick(at(s.now))...)
	case 7:
		if ticket, want := m.Drop(); want {
			out = m.Dropped(at(s.now), ticket)
		} else if n > 250 {
			out = s.leader.Evict(at(s.now), m.self.Node)
		}
	}
	s.mail = append(s.mail, out...)
	if len(s.mail) > 500 {
		s.mail = s.mail[len(s.mail)-500:]
	}
	s.check()
}

func (s *stage) check() {
	now := s.leader.Stable()
	if now < s.stable || now > s.commit {
		s.t.Fatalf("S goes from %d to %d, committed is %d", s.stable, now, s.commit)
	}
	s.stable = now
	for i, m := range s.members {
		if _, ok := m.Lease(at(s.now)); ok && s.applied[i] < s.stable {
			s.t.Fatalf("I1: n%d has a lease and applied %d, S is %d", i, s.applied[i], s.stable)
		}
		if d := m.Next(at(s.now)); d < 0 {
			s.t.Fatalf("Next is %v", d)
		}
	}
}
