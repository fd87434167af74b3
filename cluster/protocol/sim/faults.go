package sim

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// startFaults begins every kind of fault that the seed has chosen.
func (w *world) startFaults() {
	kinds := []struct {
		mean time.Duration
		do   func()
	}{
		{w.p.freeze, w.freezeOne}, {w.p.crash, w.crashOne}, {w.p.power, w.powerLoss},
		{w.p.stop, w.stopOne},
		{w.p.cut, w.cutSome}, {w.p.campaign, w.campaignOne}, {w.p.jump, w.jumpOne},
		{w.p.reconf, w.changeConfig}, {w.p.swap, w.swapLeader},
	}
	for _, k := range kinds {
		if k.mean > 0 {
			w.again(k.mean, k.do)
		}
	}
}

// again does something at random intervals until the world is healed.
func (w *world) again(mean time.Duration, do func()) {
	w.after(w.between(mean/4, mean*7/4), func() {
		if !w.healed {
			do()
			w.again(mean, do)
		}
	})
}

// anyone prefers the leader a little.
func (w *world) anyone() *node {
	if w.newest != nil && w.chance(0.3) {
		return w.newest.node
	}
	return w.nodes[w.rng.IntN(len(w.nodes))]
}

func (w *world) span() time.Duration { return w.between(w.p.faultMax/20, w.p.faultMax) }

func (w *world) freezeOne() { w.anyone().freeze(w.span()) }

// crashOne kills a daemon, and starts it again soon: while its mount's caches
// last, often.
func (w *world) crashOne() {
	n := w.anyone()
	if !n.alive || n.removed {
		return
	}
	w.stats.Crashes++
	n.kill()
	d := w.span()
	if w.chance(0.5) {
		d /= 10
	}
	w.after(d, func() { n.restart() })
}

// powerLoss kills many daemons at one instant, sometimes all (R44). Their mounts
// answer on, as if only the daemons had been killed: that is the harder case.
func (w *world) powerLoss() {
	all := w.chance(0.5)
	back := w.span() / 4
	for _, n := range w.nodes {
		if n.alive && !n.removed && (all || w.chance(0.6)) {
			w.stats.Crashes++
			n.kill()
			w.after(back+w.between(0, back), func() { n.restart() })
		}
	}
}

// restart starts a daemon again, and sometimes stops it while it is young.
func (n *node) restart() {
	w := n.w
	if n.alive || n.removed {
		return
	}
	n.start(n.clean)
	if !w.healed && w.p.stop > 0 && w.chance(0.2) {
		n.do(w.between(0, w.p.lease/4), func() { w.stop(n) })
	}
}

func (w *world) stopOne() { w.stop(w.anyone()) }

// stop ends a daemon in good order (R16), and starts the next one soon.
func (w *world) stop(n *node) {
	if !n.alive || n.frozen || n.removed {
		return
	}
	w.tracef("%s stops", n.id)
	n.member.Release(n.now())
	n.afterMember()
	session := n.self.Session
	wait := w.between(0, w.p.lease/8) + w.between(0, 2*w.p.stepMax) + time.Millisecond
	w.after(wait, func() {
		if n.alive && n.self.Session == session {
			clean := n.member.CleanExit(n.now())
			n.kill()
			n.clean = clean
		}
	})
	w.after(wait+w.span()/8, func() { n.restart() })
}

// cutSome loses messages between two groups, or of one node, one way or both.
func (w *world) cutSome() {
	w.stats.Cuts++
	until := w.t + w.span()
	one := w.anyone()
	group := w.rng.IntN(2) == 0
	oneWay, out := w.chance(0.4), w.chance(0.5)
	side := make([]bool, len(w.nodes))
	for i := range side {
		side[i] = group && w.rng.IntN(2) == 0 || i == one.index
	}
	w.tracef("cut %v until %v, one way %v, outwards %v", side, until, oneWay, out)
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if side[a.index] && !side[b.index] {
				if !oneWay || out {
					w.cut(a, b, until)
				}
				if !oneWay || !out {
					w.cut(b, a, until)
				}
			}
		}
	}
}

func (w *world) campaignOne() { w.campaign(w.nodes[w.rng.IntN(len(w.nodes))]) }

// swapLeader is a planned transfer: the old leader hears of it at once.
func (w *world) swapLeader() {
	old := w.newest
	before := w.maxTerm
	w.campaign(w.nodes[w.rng.IntN(len(w.nodes))])
	if old != nil && w.maxTerm > before {
		old.stepDown()
	}
}

// jumpOne steps REALTIME forward, as NTP may.
func (w *world) jumpOne() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	n.jump += w.span()
	w.tracef("%s jumps to %v", n.id, n.jump)
}

// changeConfig removes a server, adds a new one, or turns a voter into a
// learner or back. One change at a time, by a leader whose barrier is committed.
func (w *world) changeConfig() {
	l := w.newest
	if l == nil || !l.current() || l.core == nil || l.barrier != 0 || l.conf > l.commit || l.evicted != nil {
		return
	}
	w.stats.Config++
	voters := 0
	for _, s := range l.servers {
		if s.Voter {
			voters++
		}
	}
	pick := w.rng.IntN(len(l.servers))
	s := l.servers[pick]
	switch w.rng.IntN(3) {
	case 0:
		n := w.byID[s.ID]
		if len(l.servers) > 3 && n != l.node && (!s.Voter || voters > 2) {
			l.evicted = n
			if w.chance(0.3) { // it is removed because it does not answer
				n.freeze(w.span())
			}
			l.node.send(l.core.Evict(l.node.now(), n.id))
			l.afterCore()
		}
	case 1:
		if len(l.servers) < 7 && len(w.nodes) < 12 {
			n := w.addNode()
			n.start(true)
			l.reconfigure(append(clone(l.servers), protocol.Server{ID: n.id}))
		}
	case 2:
		if w.byID[s.ID] == l.node || s.Voter && voters <= 2 {
			return
		}
		next := clone(l.servers)
		next[pick].Voter = !s.Voter
		l.reconfigure(next)
	}
}

func clone(s []protocol.Server) []protocol.Server { return append([]protocol.Server(nil), s...) }

func (l *lead) reconfigure(servers []protocol.Server) {
	l.w.tracef("%s proposes %v", l.node.id, servers)
	l.propose(entry{servers: servers})
	l.afterCore()
}

// removeDrained takes an evicted node out once it cannot hold a lease (R14).
func (l *lead) removeDrained() {
	n := l.evicted
	if n == nil || l.conf > l.commit || l.barrier != 0 || !l.core.Drained(l.node.now(), n.id) {
		return
	}
	l.evicted = nil
	var rest []protocol.Server
	for _, s := range l.servers {
		if s.ID != n.id {
			rest = append(rest, s)
		}
	}
	l.reconfigure(rest)
}

// heal ends all faults. Nodes that are in no configuration stay away.
func (w *world) heal() {
	w.tracef("everything heals")
	w.healed = true
	for _, c := range w.cuts {
		clear(c)
	}
	w.settleMembership()
	for _, n := range w.nodes {
		n.restart()
		if n.frozen {
			n.thaw()
		}
	}
}

// settleMembership ends, again and again, daemons of nodes that were removed
// (4.4: a removed node mounts nothing), which may be decided after the healing.
func (w *world) settleMembership() {
	_, servers := w.configBefore(fs.Index(len(w.chosen)))
	in := map[fs.NodeID]bool{}
	for _, s := range servers {
		in[s.ID] = true
	}
	pending := false
	for _, l := range []*lead{w.newest} {
		pending = l != nil && l.conf > fs.Index(len(w.chosen))
	}
	for _, n := range w.nodes {
		if !in[n.id] && !pending && !n.removed {
			n.removed = true
			if n.alive {
				n.kill()
			}
		}
	}
	w.after(w.p.lease/2, w.settleMembership)
}
