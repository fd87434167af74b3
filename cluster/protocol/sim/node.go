package sim

import (
	"fmt"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// node is one machine with its clocks, kernels and, while it runs, a daemon.
type node struct {
	w     *world
	index int
	id    fs.NodeID

	rate float64       // of all its clocks
	jump time.Duration // steps of REALTIME forward: in Fast only
	lost time.Duration // a stopped guest's clocks have missed this much

	mount  *kernel   // of the running daemon
	ghosts []*kernel // of daemons that died
	stored disk

	// the daemon
	witness     bool
	alive       bool
	clean       bool // the last one ended by Release
	removed     bool // from the configuration: never comes back
	self        protocol.ID
	member      *protocol.Member
	lead        *lead // what it leads, or believes to
	state       fs.Index
	last        []fs.Index // per key: entry that changed it last
	results     map[command]fs.Index
	applying    bool
	frozen      bool
	thawAt      time.Duration
	backlog     []func()
	memberTimer time.Duration
	dropping    bool
	heard       time.Duration // when a leader was heard last
	leader      *lead         // that it believes in
	leaderTerm  uint64
	finishing   []*write
	seq         uint64
	leased      bool          // has had a lease
	disturbed   bool          // its writers are not counted for StallMax
	leaseless   time.Duration // since when there was no lease
}

// disk survives the daemon: what Raft and the state machine keep.
type disk struct {
	term   uint64
	commit fs.Index // entries known to be committed
	state  fs.Index // applied, as of the last crash
	logOf  *lead    // the log is the first logEnd entries of this leader's
	logEnd fs.Index
}

// command names one write for exactly once.
type command struct {
	session fs.SessionID
	seq     uint64
}

func (w *world) addNode() *node {
	i := len(w.nodes)
	n := &node{w: w, index: i, id: fs.NodeID(fmt.Sprintf("n%d", i)), rate: 1, clean: true}
	if w.p.drift > 0 {
		// Extremes find more than the middle does.
		n.rate = 1 + w.p.drift*[]float64{-1, 1, 2*w.rng.Float64() - 1}[w.rng.IntN(3)]
	}
	w.nodes = append(w.nodes, n)
	w.byID[n.id] = n
	for f := range w.cuts {
		w.cuts[f] = append(w.cuts[f], 0)
	}
	w.cuts = append(w.cuts, make([]time.Duration, i+1))
	return n
}

// jiffies is the clock that the kernel counts timeouts with.
func (n *node) jiffies() time.Duration {
	return time.Duration(float64(n.w.t)*n.rate) - n.lost
}

func (n *node) now() protocol.Instant {
	j := n.jiffies()
	return protocol.Instant{Fast: j + n.jump, Slow: j}
}

// start runs a daemon on what the disk holds.
func (n *node) start(clean bool) {
	w := n.w
	w.sessions++
	n.alive, n.frozen, n.applying, n.dropping = true, false, false, false
	n.self = protocol.ID{Node: n.id, Session: fs.SessionID(w.sessions)}
	n.mount = newKernel(w.p.keys)
	n.lead, n.leader, n.leaderTerm = nil, nil, 0
	n.backlog, n.finishing = nil, nil
	n.memberTimer = -1
	n.heard, n.leased, n.leaseless = w.t, false, w.t
	n.last, n.results = make([]fs.Index, w.p.keys), map[command]fs.Index{}
	n.state = 0
	n.member = protocol.NewMember(w.cfg, protocol.MemberOptions{
		Self: n.self, Applied: n.stored.state, Clean: clean || w.t == 0,
		Witness: n.witness, Seed: w.rng.Uint64(),
	}, n.now())
	for n.state < n.stored.state {
		n.enter(n.state + 1)
	}
	n.tellServers()
	n.armMember()
	n.watchLeader()
	w.tracef("%s starts as %d at %d, term %d", n.id, n.self.Session, n.state, n.stored.term)
	if n.state < n.stored.commit {
		n.do(w.between(0, w.p.delay), n.apply)
	}
}

// do runs f on this daemon after d, later if it is frozen then, and never if it
// has died.
func (n *node) do(d time.Duration, f func()) {
	session := n.self.Session
	n.w.after(d, func() { n.run(session, f) })
}

func (n *node) run(session fs.SessionID, f func()) {
	switch {
	case !n.alive || n.self.Session != session:
	case n.frozen:
		n.backlog = append(n.backlog, f)
	default:
		f()
	}
}

// pause is the time between two steps of one handler.
func (n *node) pause() time.Duration {
	if !n.w.healed && n.w.chance(n.w.p.slowStep) {
		return n.w.between(0, n.w.p.stepMax)
	}
	return 0
}

// then runs f after a pause, at once if there is none.
func (n *node) then(f func()) {
	if d := n.pause(); d > 0 {
		n.do(d, f)
		return
	}
	f()
}

// armMember sees to it that Tick is called when Next says so.
func (n *node) armMember() {
	w := n.w
	d := n.member.Next(n.now())
	at := w.t + time.Duration(float64(d)/n.rate) + time.Microsecond
	if n.memberTimer >= w.t && n.memberTimer <= at {
		return
	}
	n.memberTimer = at
	n.do(at-w.t, func() {
		if n.memberTimer > w.t {
			return // another timer was set
		}
		n.memberTimer = -1
		n.send(n.member.Tick(n.now()))
		n.afterMember()
	})
}

// afterMember does what a driver does after every call of its Member.
func (n *node) afterMember() {
	n.dropCaches()
	n.finishWrites()
	n.noteLease()
	n.armMember()
}

// dropCaches obeys Member.Drop.
func (n *node) dropCaches() {
	ticket, want := n.member.Drop()
	if !want || n.dropping {
		return
	}
	n.dropping = true
	n.then(func() {
		n.mount.dropAll()
		n.then(func() {
			n.dropping = false
			n.w.tracef("%s dropped its caches", n.id)
			n.send(n.member.Dropped(n.now(), ticket))
			n.afterMember()
		})
	})
}

func (n *node) noteLease() {
	_, ok := n.member.Lease(n.now())
	if !ok {
		if n.leaseless < 0 {
			n.leaseless = n.w.t
		}
		return
	}
	if n.leaseless >= 0 && n.leased {
		n.w.stats.LeaseGap = max(n.w.stats.LeaseGap, n.w.t-n.leaseless)
	}
	n.leased, n.leaseless = true, -1
}

// tellServers passes on the newest configuration that was applied.
func (n *node) tellServers() {
	for i := n.state; i >= 1; i-- {
		if s := n.w.chosen[i-1].servers; s != nil {
			n.member.SetServers(n.now(), i, s)
			return
		}
	}
}

// learnCommit tells that the log is committed up to index.
func (n *node) learnCommit(index fs.Index) {
	index = min(index, fs.Index(len(n.w.chosen)))
	if index > n.stored.commit {
		n.stored.commit = index
	}
	n.apply()
}

// apply brings the state to the next committed entry in the order of 4.4:
// closing, invalidation, pending and switch, ack.
func (n *node) apply() {
	if n.applying || n.state >= n.stored.commit {
		return
	}
	n.applying = true
	i := n.state + 1
	if n.stored.commit-i > 8 && n.w.chance(0.3) {
		n.restore(n.stored.commit)
		return
	}
	e := n.w.chosen[i-1]
	n.member.Closing(i, n.w.keysOf(e))
	if n.w.cfg.Mutant() == mutant.AckEarly {
		n.send(n.member.Applied(n.now(), i))
	}
	n.then(func() {
		if e.command.session != 0 {
			n.mount.invalidate(e.key)
		}
		n.member.Pending(i, n.w.keysOf(e))
		n.enter(i)
		if e.servers != nil {
			n.member.SetServers(n.now(), i, e.servers)
		}
		n.then(func() {
			n.applying = false
			if n.state < n.stored.commit && !n.w.chance(0.3) {
				n.apply() // one ack for the batch
				return
			}
			n.send(n.member.Applied(n.now(), i))
			n.afterMember()
			n.apply()
		})
	})
}

// restore replaces the state by a snapshot at index.
func (n *node) restore(index fs.Index) {
	n.w.tracef("%s restores a snapshot at %d", n.id, index)
	n.then(func() {
		n.mount.dropAll()
		n.member.Restoring(index)
		for n.state < index {
			n.enter(n.state + 1)
		}
		n.tellServers()
		n.then(func() {
			n.applying = false
			n.send(n.member.Applied(n.now(), index))
			n.afterMember()
			n.apply()
		})
	})
}

// enter switches the state to index: the state machine, with its window of
// results that makes commands exactly once (I8).
func (n *node) enter(index fs.Index) {
	e := n.w.chosen[index-1]
	n.state = index
	c := e.command
	if c.session == 0 {
		return
	}
	if _, again := n.results[c]; !again {
		n.results[c] = index
		n.last[e.key] = index
	}
	n.w.checkOnce(n, c)
	if n.w.cfg.Mutant() == mutant.AnswerUnstable {
		for _, o := range n.w.writes {
			if o.command == c && o.node == n && c.session == n.self.Session {
				n.answer(o, index)
			}
		}
	}
}

// kill ends the daemon as kill -9 does; its kernel goes on answering.
func (n *node) kill() {
	w := n.w
	w.tracef("%s dies at %d", n.id, n.state)
	n.alive, n.clean = false, false
	n.ghosts = append(n.ghosts, n.mount)
	n.mount = nil
	n.lead = nil
	n.stored.state = n.state
	if n.state > 0 && w.chance(0.5) {
		n.stored.state -= min(n.state, fs.Index(w.rng.IntN(4))) // the store's tail was not synced
	}
	for _, o := range w.writes {
		if o.command.session == n.self.Session {
			o.done = true // its process has died with it
		}
	}
}

// caches are all kernels that may answer on this node.
func (n *node) caches() []*kernel {
	keep := n.ghosts[:0]
	for _, k := range n.ghosts {
		if !k.idle(n.jiffies()) {
			keep = append(keep, k)
		}
	}
	n.ghosts = keep
	if n.mount == nil {
		return n.ghosts
	}
	return append(n.ghosts[:len(n.ghosts):len(n.ghosts)], n.mount)
}

// freeze stops the daemon (SIGSTOP); clocks, kernel and sockets go on.
func (n *node) freeze(d time.Duration) {
	if !n.alive {
		return
	}
	w := n.w
	w.stats.Freezes++
	w.tracef("%s freezes for %v", n.id, d)
	n.frozen, n.disturbed = true, true
	n.thawAt = max(n.thawAt, w.t+d)
	session := n.self.Session
	w.after(d, func() {
		if n.self.Session == session && n.frozen && w.t >= n.thawAt {
			n.thaw()
		}
	})
}

func (n *node) thaw() {
	n.w.tracef("%s thaws", n.id)
	n.frozen = false
	n.w.checkNode(n)
	for len(n.backlog) > 0 && n.alive && !n.frozen {
		f := n.backlog[0]
		n.backlog = n.backlog[1:]
		f()
	}
}
