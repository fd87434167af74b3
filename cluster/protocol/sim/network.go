package sim

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// deliver carries something from one node to another, perhaps late, twice, out
// of order or not at all. do runs on the daemon that runs there on arrival.
func (w *world) deliver(from, to *node, do func()) {
	w.stats.Messages++
	if from == to {
		w.after(10*time.Microsecond, func() { to.run(to.self.Session, do) })
		return
	}
	for n := 1; n > 0; n-- {
		if !w.healed && w.chance(w.p.dup) {
			n++
		}
		if w.cuts[from.index][to.index] > w.t || !w.healed && w.chance(w.p.loss) {
			w.stats.Lost++
			continue
		}
		d := w.between(w.p.delay/2, w.p.delay*3/2)
		if !w.healed && w.chance(w.p.slowLink) {
			d = w.between(d, w.p.slowMax)
		}
		w.after(d, func() { to.run(to.self.Session, do) })
	}
}

// send puts messages of the protocol on the network.
func (n *node) send(msgs []protocol.Message) {
	for _, m := range msgs {
		to := n.w.byID[m.To]
		if to == nil {
			continue
		}
		if n.w.p.codec {
			m = n.w.recode(m)
		}
		n.w.deliver(n, to, func() { to.receive(m) })
	}
}

func (w *world) recode(m protocol.Message) protocol.Message {
	b, err := m.MarshalBinary()
	if err != nil {
		w.fail("encoding: %v", err)
		return m
	}
	var d protocol.Message
	if err := d.UnmarshalBinary(b); err != nil || d != m {
		w.fail("decoding %+v: %+v, %v", m, d, err)
	}
	return d
}

// receive gives a message to the side that it is for.
func (n *node) receive(m protocol.Message) {
	if n.w.opt.Trace {
		n.w.tracef("%s ← %s", n.id, describe(m))
	}
	if !m.ForLeader() {
		n.send(n.member.Receive(n.now(), n.stored.term, m))
		if m.Kind == protocol.Grant {
			n.w.stats.Grants++
			n.w.checkNode(n)
		}
		if m.Kind == protocol.Revoke {
			n.w.stats.Revoked++
		}
		n.afterMember()
		return
	}
	if l := n.lead; l != nil {
		if m.Kind == protocol.AdoptAck {
			n.w.stats.Adopted++
		}
		n.send(l.core.Receive(n.now(), m))
		l.afterCore()
	}
}

// cut loses everything from a to b until then.
func (w *world) cut(a, b *node, until time.Duration) {
	w.cuts[a.index][b.index] = max(w.cuts[a.index][b.index], until)
}

// reaches reports whether two nodes can talk both ways.
func (w *world) reaches(a, b *node) bool {
	return a == b || w.cuts[a.index][b.index] <= w.t && w.cuts[b.index][a.index] <= w.t
}

func describe(m protocol.Message) string {
	names := []string{"?", "LeaseReq", "Round", "RoundAck", "Grant", "Deny", "Applied", "Stable", "Revoke", "Released", "Adopt", "AdoptAck", "Ping", "Pong"}
	s := names[m.Kind] + " from " + string(m.From.Node)
	for _, f := range []struct {
		name string
		v    uint64
	}{
		{"/", uint64(m.From.Session)}, {" term ", m.Term}, {" id ", m.ID}, {" index ", uint64(m.Index)},
		{" S ", uint64(m.Stable)}, {" voter term ", m.VoterTerm}, {" why ", uint64(m.Why)}, {" conf ", uint64(m.Conf)},
	} {
		if f.v != 0 {
			s += f.name + fs.Ino(f.v).String()
		}
	}
	if m.Age != 0 {
		s += " age " + m.Age.String()
	}
	return s
}
