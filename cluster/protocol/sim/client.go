package sim

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// write is one mutation by an application.
type write struct {
	node    *node
	command command
	key     int
	began   time.Duration
	floor   fs.Index // of its key when it began
	answer  fs.Index // entry that answers it; 0: not known yet
	done    bool     // returned, or its daemon has died
}

// read is one call that reads, on its way through the daemon.
type read struct {
	node    *node
	key     int
	floor   fs.Index // when it began
	mount   *kernel
	version uint64 // of the kernel's entry when the request began
	until   time.Duration
}

func (w *world) keysOf(e entry) []fs.Key {
	if e.command.session == 0 {
		return nil
	}
	return []fs.Key{key(e.key)}
}

func key(i int) fs.Key { return fs.Key{Kind: fs.KeyAttr, Ino: fs.RootIno + 1 + fs.Ino(i)} }

// clientStep lets an application somewhere do something, and then the next.
func (w *world) clientStep() {
	if w.t < w.p.quietAt {
		w.after(w.between(0, 2*w.p.think), w.clientStep)
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	k := w.rng.IntN(w.p.keys)
	if w.chance(w.p.writes) {
		if n.alive && !n.removed && !n.witness {
			n.beginWrite(k)
		}
		return
	}
	n.beginRead(k)
	if w.chance(0.5) { // the same question elsewhere at once
		w.nodes[w.rng.IntN(len(w.nodes))].beginRead(k)
	}
}

func (n *node) beginRead(k int) {
	w := n.w
	for _, c := range n.caches() {
		if v, ok := c.read(k, n.jiffies()); ok {
			w.stats.KernelReads++
			w.returned(n, k, v, w.floor[k], "the kernel")
			if c == n.mount {
				return
			}
		}
	}
	if !n.alive {
		return
	}
	r := &read{node: n, key: k, floor: w.floor[k], mount: n.mount, version: n.mount.entries[k].version, until: w.t + w.p.lease/3}
	n.do(0, r.look)
}

// look reads the state, then decides, then replies: three steps with time
// between them.
func (r *read) look() {
	n := r.node
	began, value := n.now(), n.last[r.key]
	n.then(func() { r.decide(began, value) })
}

func (r *read) decide(began protocol.Instant, value fs.Index) {
	n, w := r.node, r.node.w
	keys := [1]fs.Key{key(r.key)}
	verdict, wait := n.member.Visible(began, n.now(), keys[:])
	switch {
	case verdict == protocol.Show:
		computed := n.now()
		d := n.member.Timeout(computed, keys[:])
		n.then(func() { r.reply(value, computed, d) })
	case w.t > r.until:
		// The policy decides now (R18); nothing is promised.
	default:
		if verdict == protocol.WaitStable && wait > n.state {
			w.broken("I9: a read on %s waits for %d, state is %d", n.id, wait, n.state)
		}
		n.do(w.between(0, w.p.lease/30), r.look)
	}
}

// reply writes the answer to the kernel, which may keep it, and to the process.
func (r *read) reply(value fs.Index, computed protocol.Instant, timeout time.Duration) {
	n, w := r.node, r.node.w
	w.stats.Reads++
	if timeout > 0 && r.mount.keep(r.key, value, r.version, n.jiffies()+timeout) {
		if w.cfg.Late(computed, n.now()) {
			r.mount.invalidate(r.key)
		} else {
			w.checkKept(n, timeout)
		}
	}
	w.returned(n, r.key, value, r.floor, "the daemon")
	w.checkKernels(n, r.key)
}

func (n *node) beginWrite(k int) {
	w := n.w
	n.seq++
	o := &write{
		node: n, command: command{n.self.Session, n.seq}, key: k, began: w.t, floor: w.floor[k],
	}
	w.writes = append(w.writes, o)
	w.tracef("%s writes key %d, %v", n.id, k, o.command)
	n.do(0, o.propose)
}

// propose sends the command to the leader, again and again until the answer.
func (o *write) propose() {
	n, w := o.node, o.node.w
	if o.done || o.answer != 0 {
		return
	}
	if l := n.leader; l != nil {
		w.deliver(n, l.node, func() {
			if l := l.node.lead; l != nil { // whatever it leads by now
				l.accept(o)
			}
		})
	}
	n.do(w.between(w.p.lease/6, w.p.lease/3), o.propose)
}

func (l *lead) accept(o *write) {
	bytes := 200
	if l.w.chance(0.02) {
		bytes = 3 << 20
	}
	i := l.propose(entry{command: o.command, key: o.key, bytes: bytes})
	l.waiting = append(l.waiting, waiter{i, o})
	l.afterCore()
}

// result is the leader's answer: the entry is stable.
func (n *node) result(o *write, index, stable fs.Index) {
	n.member.LearnStable(stable)
	if n.self.Session == o.command.session {
		n.answer(o, index)
	}
	n.afterMember()
}

func (n *node) answer(o *write, index fs.Index) {
	if o.done || o.answer != 0 {
		return
	}
	o.answer = index
	n.finishing = append(n.finishing, o)
}

// finishWrites returns the calls of writers that may have their answer.
func (n *node) finishWrites() {
	keep := n.finishing[:0]
	for _, o := range n.finishing {
		if !n.member.CanAnswer(o.answer) {
			keep = append(keep, o)
			continue
		}
		o.done = true
		n.w.wrote(o)
	}
	n.finishing = keep
}
