package sim

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// entry is one entry of the log: a write, a configuration, or a barrier.
type entry struct {
	command command // session 0: none
	key     int
	bytes   int
	servers []protocol.Server // not nil: a configuration
}

// lead is one won term: Raft's leader and the protocol's. Raft is modelled as in
// section 4.7 of the reference: an entry is chosen when a majority of voters
// whose terms are not higher has stored it, a leader is elected by a majority,
// and has everything that is chosen.
type lead struct {
	w    *world
	node *node
	term uint64
	core *protocol.Leader

	base    fs.Index // entries up to here are former leaders'
	tail    []entry  // entries after base
	stored  map[int]fs.Index
	acked   map[int]fs.Index // what it has heard of stored
	commit  fs.Index
	own     fs.Index // first entry of its own term
	barrier fs.Index // the same, until it is committed
	conf    fs.Index
	servers []protocol.Server

	waiting []waiter
	timer   time.Duration
	shown   fs.Index // S as of the last look
	evicted *node    // is being removed
}

// waiter is a writer that waits for S.
type waiter struct {
	index fs.Index
	op    *write
}

// configBefore finds the newest configuration among the first n chosen entries.
func (w *world) configBefore(n fs.Index) (fs.Index, []protocol.Server) {
	for i := n; i >= 1; i-- {
		if s := w.chosen[i-1].servers; s != nil {
			return i, s
		}
	}
	return 0, nil
}

// inherits is what of n's log is not chosen yet; as leader it proposes that again.
func (w *world) inherits(n *node) []entry {
	l, chosen := n.stored.logOf, fs.Index(len(w.chosen))
	if l == nil || n.stored.logEnd <= chosen {
		return nil
	}
	return l.tail[chosen-l.base : n.stored.logEnd-l.base]
}

// newer reports whether a's log is newer than b's, so that a gives b no vote.
func newer(a, b disk) bool {
	term := func(d disk) uint64 {
		if d.logOf == nil {
			return 0
		}
		return d.logOf.term
	}
	return term(a) > term(b) || term(a) == term(b) && a.logEnd > b.logEnd
}

// campaign lets n try to win a new term, now or never: the voters that it
// reaches give their votes at once, whoever they follow.
func (w *world) campaign(n *node) {
	if !n.alive || n.frozen || n.removed {
		return
	}
	tail := w.inherits(n)
	conf, servers := w.configBefore(fs.Index(len(w.chosen)))
	for i, e := range tail {
		if e.servers != nil {
			conf, servers = fs.Index(len(w.chosen)+i+1), e.servers
		}
	}
	var votes []*node
	voters, self := 0, false
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		v := w.byID[s.ID]
		self = self || v == n
		if v.alive && !v.frozen && w.reaches(n, v) && !newer(v.stored, n.stored) {
			votes = append(votes, v)
		}
	}
	if !self || len(votes) < voters/2+1 {
		return
	}
	if !w.healed && w.chance(0.5) { // a bare majority leaves old followers behind
		w.rng.Shuffle(len(votes), func(i, j int) { votes[i], votes[j] = votes[j], votes[i] })
		votes = votes[:voters/2+1]
	}
	w.maxTerm++
	l := &lead{
		w: w, node: n, term: w.maxTerm, base: fs.Index(len(w.chosen)), tail: append([]entry(nil), tail...),
		stored: map[int]fs.Index{}, acked: map[int]fs.Index{}, conf: conf, servers: servers, timer: -1,
	}
	for _, v := range votes {
		v.stored.term = l.term
	}
	n.stored.term = l.term
	l.own = l.last() + 1
	w.newest = l
	w.tracef("%s is elected in term %d by %d of %d", n.id, l.term, len(votes), voters)
	n.heard = w.t
	n.do(w.between(0, w.p.delay), l.begin)
}

// begin is when the winner learns that it has won.
func (l *lead) begin() {
	n, w := l.node, l.w
	if n.stored.term != l.term {
		return
	}
	w.stats.Leaders++
	n.lead = l
	n.follow(l)
	core, msgs := protocol.NewLeader(w.cfg, protocol.LeaderOptions{
		Self: n.self, Term: l.term, Conf: l.conf, Servers: l.servers,
	}, n.now())
	l.core = core
	n.send(msgs)
	l.commit = n.stored.commit
	l.barrier = l.own
	l.propose(entry{})
	l.afterCore()
	l.heartbeat()
}

func (l *lead) last() fs.Index { return l.base + fs.Index(len(l.tail)) }

func (l *lead) current() bool { return l.node.lead == l }

// propose appends an entry and sends it to everybody.
func (l *lead) propose(e entry) fs.Index {
	l.tail = append(l.tail, e)
	if e.servers != nil {
		l.conf, l.servers = l.last(), e.servers
		l.node.send(l.core.SetServers(l.node.now(), l.conf, e.servers))
	}
	if l.node.stored.term == l.term {
		l.store(l.node, l.last())
		l.heard(l.node, l.last())
	}
	l.replicate()
	return l.last()
}

// replicate sends what there is, with the commit index, to every server.
func (l *lead) replicate() {
	for _, s := range l.servers {
		if v := l.w.byID[s.ID]; v != l.node {
			upto, commit := l.last(), l.commit
			l.w.deliver(l.node, v, func() { v.append(l, upto, commit) })
		}
	}
}

func (l *lead) heartbeat() {
	if !l.current() {
		return
	}
	l.replicate()
	l.node.do(max(l.w.p.election/4, 2*l.w.p.delay), l.heartbeat)
}

// append is a follower's side of replicate.
func (n *node) append(l *lead, upto, commit fs.Index) {
	w := n.w
	if l.term < n.stored.term {
		w.deliver(n, l.node, func() { l.rejected() })
		return
	}
	if l.term > n.stored.term {
		n.stored.term = l.term
		if old := n.lead; old != nil && old.term < l.term {
			n.do(w.between(0, w.p.lease), old.stepDown)
		}
	}
	n.heard = w.t
	n.follow(l)
	l.store(n, upto)
	n.learnCommit(commit)
	w.deliver(n, l.node, func() {
		if l.current() {
			l.heard(n, upto)
		}
	})
}

// store puts the leader's log up to index on a follower's disk.
func (l *lead) store(n *node, upto fs.Index) {
	if n.stored.logOf == l && n.stored.logEnd >= upto {
		return
	}
	n.stored.logOf, n.stored.logEnd = l, upto
	l.stored[n.index] = upto
	l.choose()
}

// rejected is news of a newer term; the leader may miss it (4.7: stepping down
// is never forced).
func (l *lead) rejected() {
	if l.current() && (l.w.healed || l.w.chance(l.w.p.stepDown)) {
		l.stepDown()
	}
}

func (l *lead) stepDown() {
	if l.current() {
		l.w.tracef("%s steps down from term %d", l.node.id, l.term)
		l.node.lead = nil
	}
}

// quorum is the highest index that a majority of voters has reached.
func (l *lead) quorum(have map[int]fs.Index) fs.Index {
	var at []fs.Index
	for _, s := range l.servers {
		if !s.Voter {
			continue
		}
		i := have[l.w.byID[s.ID].index]
		at = append(at, i)
		for j := len(at) - 1; j > 0 && at[j] > at[j-1]; j-- {
			at[j], at[j-1] = at[j-1], at[j]
		}
	}
	return at[len(at)/2]
}

// choose moves what a majority has stored into the log of all logs, together
// with an entry of the leader's own term. A deposed leader may still do that
// with entries that its successor has inherited.
func (l *lead) choose() {
	w := l.w
	q := l.quorum(l.stored)
	if q <= fs.Index(len(w.chosen)) || q < l.own {
		return
	}
	for i := fs.Index(len(w.chosen)); i < q; i++ {
		e := l.tail[i-l.base]
		if m := w.newest; m != l && (i >= m.last() || m.tail[i-m.base].command != e.command) {
			w.fail("the model of Raft is wrong: term %d chooses %d after term %d was elected", l.term, i+1, m.term)
			return
		}
		w.chosen = append(w.chosen, e)
		if _, ok := w.first[e.command]; !ok && e.command.session != 0 {
			w.first[e.command] = fs.Index(len(w.chosen))
		}
	}
}

// heard counts a follower's answer and tells the core what is committed.
func (l *lead) heard(v *node, upto fs.Index) {
	l.acked[v.index] = max(l.acked[v.index], upto)
	c := min(l.quorum(l.acked), fs.Index(len(l.w.chosen)))
	if c <= l.commit || c < l.base {
		return
	}
	bytes := 0
	for i := max(l.commit, l.base); i < c; i++ {
		bytes += l.tail[i-l.base].bytes
	}
	l.commit = c
	now := l.node.now()
	l.node.send(l.core.Committed(now, c, bytes))
	if l.barrier != 0 && c >= l.barrier {
		l.node.send(l.core.Barrier(now, l.barrier))
		l.barrier = 0
	}
	l.node.learnCommit(c)
	l.replicate() // the commit nudge
	l.afterCore()
}

// follow passes on who leads.
func (n *node) follow(l *lead) {
	if n.leader == l {
		return
	}
	n.leader, n.leaderTerm = l, l.term
	n.send(n.member.SetLeader(n.now(), l.node.id, l.term))
	n.afterMember()
}

// watchLeader lets a voter that hears of no leader campaign.
func (n *node) watchLeader() {
	w := n.w
	patience := w.between(w.p.election, 2*w.p.election)
	n.do(patience-min(patience, w.t-n.heard), func() {
		switch {
		case w.t-n.heard < patience:
		case n.lead != nil && n.stored.term <= n.lead.term:
			n.heard = w.t
		default:
			n.heard = w.t
			w.campaign(n)
		}
		n.watchLeader()
	})
}

// afterCore does what a driver does after every call of its Leader.
func (l *lead) afterCore() {
	if !l.current() {
		return
	}
	n, w := l.node, l.w
	if s := l.core.Stable(); s > l.shown {
		l.shown = s
		w.tracef("%s in term %d: S = %d", n.id, l.term, s)
		w.checkStable(l, s)
		keep := l.waiting[:0]
		for _, x := range l.waiting {
			if x.index > s {
				keep = append(keep, x)
				continue
			}
			w.deliver(n, x.op.node, func() { x.op.node.result(x.op, x.index, s) })
		}
		l.waiting = keep
	}
	l.removeDrained()
	l.arm()
}

// arm sees to it that Tick is called when Next says so.
func (l *lead) arm() {
	n, w := l.node, l.w
	at := w.t + time.Duration(float64(l.core.Next(n.now()))/n.rate) + time.Microsecond
	if l.timer >= w.t && l.timer <= at {
		return
	}
	l.timer = at
	n.do(at-w.t, func() {
		if !l.current() || l.timer > w.t {
			return
		}
		l.timer = -1
		n.send(l.core.Tick(n.now()))
		l.afterCore()
	})
}
