package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
)

// calm is a cluster of five with three voters, the default figures, quick
// messages and no faults but the script's.
func calm(p *params) {
	*p = params{
		nodes: 5, voters: 3, keys: 2, lease: 3 * time.Second, margin: 0.1, drift: 0.01,
		kernel: true, adopt: true, delay: time.Millisecond, think: 5 * time.Millisecond, writes: 0.3,
		election: time.Second, healAt: time.Hour, quietAt: 55 * time.Second, stepDown: 1,
	}
}

// play runs a script in a calm cluster, with the figures bent by adjust.
func play(t *testing.T, adjust func(*params), script func(*world)) Result {
	t.Helper()
	o := Options{Seed: 1, script: script, adjust: func(p *params) {
		calm(p)
		if adjust != nil {
			adjust(p)
		}
	}}
	r := Run(o)
	if r.Violation != "" {
		o.Trace = true
		trace := Run(o).Trace
		t.Fatalf("%s\n%s", r.Violation, strings.Join(trace[max(0, len(trace)-60):], "\n"))
	}
	t.Logf("%+v", r.Stats)
	return r
}

// at runs do at a time of the script, when a leader is settled.
func (w *world) at(at time.Duration, do func()) { w.after(at-w.t, do) }

// other is some node that does not lead; voter chooses which sort.
func (w *world) other(voter bool) *node {
	for _, s := range w.newest.servers {
		if n := w.byID[s.ID]; n != w.newest.node && s.Voter == voter {
			return n
		}
	}
	return nil
}

const slack = 150 * time.Millisecond // messages, ticks and drift

// TestStalls: how long writers wait at most, for each kind of incident (R10,
// R15, R16), and that the incident was felt at all.
func TestStalls(t *testing.T) {
	span := 3300 * time.Millisecond // L + M
	cases := []struct {
		name     string
		adjust   func(*params)
		script   func(*world)
		from, to time.Duration // the longest write
		gap      time.Duration // the longest time without lease of a living daemon
	}{
		{
			name: "nothing happens", script: func(*world) {},
			from: 0, to: 50 * time.Millisecond, gap: 0,
		},
		{
			name:   "a learner freezes: its lease is waited out, once",
			script: func(w *world) { w.at(5*time.Second, func() { w.other(false).freeze(20 * time.Second) }) },
			from:   2 * time.Second, to: span + slack, gap: 20 * time.Second,
		},
		{
			name: "a learner dies and comes back at once: its predecessor's lease is waited out",
			script: func(w *world) {
				w.at(5*time.Second, func() {
					n := w.other(false)
					n.kill()
					w.after(100*time.Millisecond, func() { n.restart() })
				})
			},
			from: 2 * time.Second, to: span + slack, gap: 0,
		},
		{
			name:   "the leader dies: L and M in all, the election is part of it (R10 with ages)",
			script: func(w *world) { w.at(5*time.Second, func() { w.newest.node.kill() }) },
			from:   2 * time.Second, to: span + slack, gap: 0,
		},
		{
			name:   "the leadership is handed over: Adopt spares the wait",
			script: func(w *world) { w.at(5*time.Second, func() { w.swapTo(w.other(true)) }) },
			from:   0, to: 1100 * time.Millisecond, gap: 50 * time.Millisecond,
		},
		{
			name:   "the same without Adopt",
			adjust: func(p *params) { p.adopt = false },
			script: func(w *world) { w.at(5*time.Second, func() { w.swapTo(w.other(true)) }) },
			from:   2 * time.Second, to: span + slack, gap: 0,
		},
		{
			name: "a learner stops in good order: nobody waits",
			script: func(w *world) {
				w.at(5*time.Second, func() { w.stop(w.other(false)) })
			},
			from: 0, to: 100 * time.Millisecond, gap: time.Hour,
		},
		{
			name: "a learner stutters: it is revoked, and ever more rarely let in again",
			script: func(w *world) {
				n := w.nodes[4] // a learner
				for at := 5 * time.Second; at < 50*time.Second; at += 800 * time.Millisecond {
					w.at(at, func() { n.freeze(700 * time.Millisecond) })
				}
			},
			from: 300 * time.Millisecond, to: 1200 * time.Millisecond, gap: time.Hour,
		},
		{
			name: "the leader and a learner are cut off together: the others go on",
			script: func(w *world) {
				w.at(5*time.Second, func() { w.isolate(20*time.Second, w.newest.node, w.other(false)) })
			},
			from: 2 * time.Second, to: span + slack, gap: 25 * time.Second,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := play(t, c.adjust, func(w *world) {
				c.script(w)
				w.at(50*time.Second, w.heal)
			})
			if s := r.Stats.StallMax; s < c.from || s > c.to {
				t.Errorf("the longest write took %v, want between %v and %v", s, c.from, c.to)
			}
			if g := r.Stats.LeaseGap; g > c.gap {
				t.Errorf("a daemon was without lease for %v, want at most %v", g, c.gap)
			}
		})
	}
}

// swapTo hands the leadership over; the old leader hears of it.
func (w *world) swapTo(n *node) {
	old := w.newest
	w.campaign(n)
	if w.newest != old {
		old.stepDown()
	}
}

// isolate cuts some nodes off from all others, both ways.
func (w *world) isolate(d time.Duration, some ...*node) {
	in := map[*node]bool{}
	for _, n := range some {
		in[n], n.disturbed = true, true
	}
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if in[a] != in[b] {
				w.cut(a, b, w.t+d)
			}
		}
	}
}

// TestStutterDamping: a node that lags again and again costs writers less and
// less, because it is let in again after ever longer times (R15).
func TestStutterDamping(t *testing.T) {
	var revoked [2]int
	r := play(t, nil, func(w *world) {
		for at := 5 * time.Second; at < 50*time.Second; at += 800 * time.Millisecond {
			w.at(at, func() { w.nodes[4].freeze(700 * time.Millisecond) })
		}
		w.at(27*time.Second, func() { revoked[0] = w.stats.Revoked })
		w.at(50*time.Second, w.heal)
	})
	revoked[1] = r.Stats.Revoked - revoked[0]
	if revoked[0] < 2 || revoked[1] >= revoked[0] {
		t.Errorf("Revoke came %d times in the first half and %d times in the second", revoked[0], revoked[1])
	}
}

// TestStoppedGuest: a guest whose clocks stand still while the world goes on
// shows stale values for the rest of its lease. That is the limit of the
// promise (R7), and the simulator must see it: this is the check of the checks.
func TestStoppedGuest(t *testing.T) {
	r := Run(Options{Seed: 1, Observe: true, adjust: calm, script: func(w *world) {
		w.at(5*time.Second, func() {
			n := w.other(false)
			n.freeze(4 * time.Second)
			n.lost += 4 * time.Second
		})
	}})
	if !strings.Contains(r.Violation, "would return") {
		t.Errorf("the stale read of a stopped guest was not seen: %q", r.Violation)
	}
}

// TestClockRates: a clock whose rate is off by more than a per cent is refused
// leases (R3), a step is not a rate, and nobody is refused without reason.
func TestClockRates(t *testing.T) {
	on := func(p *params) { p.rates, p.drift = true, 0.002 }
	cases := []struct {
		name string
		rate float64
		jump time.Duration
		bad  bool
	}{
		{name: "fine", rate: 1.003},
		{name: "too slow", rate: 0.98, bad: true},
		{name: "too fast", rate: 1.02, bad: true},
		{name: "a step of an hour", rate: 1, jump: time.Hour},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var bad int
			var refused protocol.Why
			Run(Options{Seed: 1, adjust: func(p *params) { calm(p); on(p) }, script: func(w *world) {
				n := w.nodes[4]
				n.setRate(c.rate)
				w.at(20*time.Second, func() { n.jump += c.jump })
				w.at(50*time.Second, func() {
					bad, refused = len(w.newest.core.BadClocks()), n.member.Refused()
				})
			}})
			if c.bad && (bad != 1 || refused != protocol.WhyClock) || !c.bad && (bad != 0 || refused != 0) {
				t.Errorf("%d bad clocks, refused for %d", bad, refused)
			}
		})
	}
}

// setRate changes a node's clock at the start of a run.
func (n *node) setRate(r float64) { n.rate = r }
