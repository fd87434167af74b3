package sim

import (
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// returned judges a value that an application has got: it must not be older
// than what was known to anybody when the call began.
func (w *world) returned(n *node, k int, value, floor fs.Index, by string) {
	if value < floor {
		w.fail("%s of %s returned %d for key %d, but %d was known: %s", by, n.id, value, k, floor, w.why[k])
		return
	}
	if value > w.maxS {
		w.broken("I2: %s of %s returned %d for key %d, S is %d", by, n.id, value, k, w.maxS)
	}
	w.raise(k, value, func() string { return "read through " + by + " of " + string(n.id) })
}

// wrote judges a write that has returned.
func (w *world) wrote(o *write) {
	w.stats.Writes++
	if !o.node.disturbed {
		w.stats.StallMax = max(w.stats.StallMax, w.t-o.began)
	}
	at := w.first[o.command]
	switch {
	case at == 0:
		w.fail("write %v was answered but never chosen", o.command)
	case at <= o.floor:
		w.fail("write %v took effect at %d, but %d was known before it began", o.command, at, o.floor)
	case at > w.maxS:
		w.broken("I3: write %v at %d returned, S is %d", o.command, at, w.maxS)
	}
	w.raise(o.key, at, func() string { return "written by " + string(o.node.id) })
}

// raise notes that from now on no read of key may be older than value, and
// looks whether one could be. What no read can show now, none can show later:
// caches and leases only run out, and what enters them is looked at then.
func (w *world) raise(k int, value fs.Index, why func() string) {
	if value <= w.floor[k] {
		return
	}
	w.floor[k], w.why[k] = value, why()
	w.tracef("key %d is known to be at %d: %s", k, value, w.why[k])
	for _, n := range w.nodes {
		w.checkKernels(n, k)
		if n.alive && !n.frozen {
			w.checkDaemon(n, k)
		}
	}
}

// checkKernels fails if a kernel of n would answer a read of k too old.
func (w *world) checkKernels(n *node, k int) {
	for _, c := range n.caches() {
		if v, ok := c.read(k, n.jiffies()); ok && v < w.floor[k] {
			w.fail("the kernel of %s would return %d for key %d, but %d was known: %s", n.id, v, k, w.floor[k], w.why[k])
		}
	}
}

// checkDaemon fails if the daemon of n would show a value of k that is too old.
func (w *world) checkDaemon(n *node, k int) {
	keys := [1]fs.Key{key(k)}
	if v, _ := n.member.Visible(n.now(), n.now(), keys[:]); v == protocol.Show && n.last[k] < w.floor[k] {
		w.fail("the daemon of %s would return %d for key %d, but %d was known: %s", n.id, n.last[k], k, w.floor[k], w.why[k])
	}
}

// checkNode looks at all keys of a daemon that has just got a lease or woken up.
func (w *world) checkNode(n *node) {
	for k := range w.floor {
		w.checkDaemon(n, k)
	}
	if _, ok := n.member.Lease(n.now()); ok && n.member.AppliedIndex() < w.maxS {
		w.broken("I1: %s has a lease and applied %d, S is %d", n.id, n.member.AppliedIndex(), w.maxS)
	}
}

// checkStable judges a leader's new S: I4, and I1 everywhere.
func (w *world) checkStable(l *lead, s fs.Index) {
	if s > fs.Index(len(w.chosen)) {
		w.fail("I4: S of term %d is %d, chosen are %d", l.term, s, len(w.chosen))
	}
	if s <= w.maxS {
		return
	}
	w.maxS = s
	for _, n := range w.nodes {
		if !n.alive {
			continue
		}
		if _, ok := n.member.Lease(n.now()); ok && n.member.AppliedIndex() < s {
			w.broken("I1: %s has a lease and applied %d, S becomes %d", n.id, n.member.AppliedIndex(), s)
		}
	}
}

// checkKept judges what the kernel was allowed to keep: I5.
func (w *world) checkKept(n *node, timeout time.Duration) {
	if _, dropping := n.member.Drop(); dropping {
		return // the caches are dropped before anybody is told that the lease is gone
	}
	left, ok := n.member.Lease(n.now())
	if !ok || timeout > left {
		w.broken("I5: %s let the kernel keep for %v, of the lease %v are left", n.id, timeout, left)
	}
}

// checkOnce judges the state machine's window of results: I8.
func (w *world) checkOnce(n *node, c command) {
	if n.results[c] != w.first[c] {
		w.fail("I8: %v took effect at %d on %s, at %d elsewhere", c, n.results[c], n.id, w.first[c])
	}
}

// checkEnd judges the end of the run, long after the last fault: everything
// must work again.
func (w *world) checkEnd() {
	for _, o := range w.writes {
		if !o.done {
			w.fail("liveness: write %v on %s at %v has not returned", o.command, o.node.id, o.began)
		}
	}
	for _, n := range w.nodes {
		if n.removed {
			continue
		}
		if _, ok := n.member.Lease(n.now()); !ok && !n.witness {
			w.fail("liveness: %s has no lease (refused: %d)", n.id, n.member.Refused())
		}
		if !n.witness && n.member.Stable() < fs.Index(len(w.chosen)) {
			w.fail("liveness: %s knows S %d of %d", n.id, n.member.Stable(), len(w.chosen))
		}
	}
}
