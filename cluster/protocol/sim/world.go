// Package sim runs the consistency core in a world that is hostile and exactly
// repeatable: virtual clocks that drift and jump, a network that loses, delays,
// duplicates, reorders and cuts one way, daemons that freeze, die and come back,
// leaders that change without the old one being told, members that come and go,
// and kernels that keep answering from their caches.
//
// One seed is one run: it chooses the shape of the cluster, the faults and
// every step. The world plays the driver's part as doc.go of package protocol
// tells it, and judges by what applications see: no read may be older than a
// write that has returned or a value that was read before, by anybody,
// anywhere. It also checks the invariants I1 to I5, I8 and I9, and that the
// cluster works again after the faults are over.
package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// Options choose a run.
type Options struct {
	Seed    uint64
	Mutant  mutant.Mutant // the rule to break; None for the real protocol
	Virtual time.Duration // length of the run; 0: 60 s
	Trace   bool          // keep what happened, line by line
	// Observe judges by what applications see alone. Otherwise a broken
	// invariant ends the run as well, which is often earlier.
	Observe bool
	focus   string        // a name in focuses; "" is none
	adjust  func(*params) // for scenarios: called on the chosen parameters
	script  func(*world)  // for scenarios: called at time 0
}

// Result tells how a run went.
type Result struct {
	Seed      uint64
	Violation string // "" if there was none
	Trace     []string
	Stats     Stats
}

// Stats count what happened, to show that the run was not idle.
type Stats struct {
	Events, Messages, Lost         int
	Reads, KernelReads, Writes     int
	Grants, Leaders, Adopted       int
	Revoked                        int
	Crashes, Freezes, Cuts, Config int
	StallMax                       time.Duration // longest write on a node that was neither frozen nor cut off
	LeaseGap                       time.Duration // longest time without a lease, of a daemon that had one
}

// world is one run.
type world struct {
	opt   Options
	rng   *rand.Rand
	p     params
	cfg   protocol.Config
	t     time.Duration // real time, that nobody in the world can read
	queue eventQueue
	nodes []*node
	byID  map[fs.NodeID]*node

	chosen   []entry // the replicated log: entry i is at i-1
	maxTerm  uint64
	newest   *lead                // elected last
	first    map[command]fs.Index // where a command took effect
	sessions uint64

	cuts    [][]time.Duration // until when messages from → to are lost
	healed  bool
	writes  []*write
	floor   []fs.Index // per key: no later read may be older
	why     []string   // per key: what raised the floor
	maxS    fs.Index
	stats   Stats
	trace   []string
	failure string
}

// Run plays one seed to its end or to the first violation.
func Run(o Options) Result {
	if o.Virtual == 0 {
		o.Virtual = 60 * time.Second
	}
	w := &world{
		opt: o, rng: rand.New(rand.NewPCG(o.Seed, 0x77706673)),
		byID: map[fs.NodeID]*node{}, first: map[command]fs.Index{},
	}
	w.p = choose(w.rng, o.Virtual)
	if f := focuses[o.focus]; f != nil {
		f(&w.p)
	}
	if o.adjust != nil {
		o.adjust(&w.p)
	}
	w.cfg = w.p.config().Mutated(o.Mutant)
	w.floor, w.why = make([]fs.Index, w.p.keys), make([]string, w.p.keys)
	w.tracef("seed %d: %s", o.Seed, w.p)
	w.build()
	if o.script != nil {
		o.script(w)
	}
	for w.failure == "" {
		e, ok := w.queue.pop()
		if !ok || e.at > o.Virtual {
			break
		}
		w.t = e.at
		w.stats.Events++
		e.do()
	}
	if w.failure == "" {
		w.t = o.Virtual
		w.checkEnd()
	}
	return Result{Seed: o.Seed, Violation: w.failure, Trace: w.trace, Stats: w.stats}
}

// build makes the first configuration and starts everything.
func (w *world) build() {
	var servers []protocol.Server
	for i := range w.p.nodes {
		n := w.addNode()
		n.witness = w.p.witness && i == w.p.voters-1
		servers = append(servers, protocol.Server{ID: n.id, Voter: i < w.p.voters})
	}
	w.chosen = append(w.chosen, entry{servers: servers})
	for _, n := range w.nodes {
		n.stored.commit, n.stored.logEnd = 1, 1
		n.start(false)
	}
	w.after(w.p.delay, func() { w.campaign(w.nodes[0]) })
	w.after(w.p.think, w.clientStep)
	w.startFaults()
	w.after(w.p.healAt, w.heal)
}

// after runs do when d has passed.
func (w *world) after(d time.Duration, do func()) { w.queue.push(w.t+d, do) }

func (w *world) tracef(format string, args ...any) {
	if w.opt.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%12.6f ", w.t.Seconds())+fmt.Sprintf(format, args...))
	}
}

// fail ends the run; the first failure is kept.
func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf("at %.6f s: ", w.t.Seconds()) + fmt.Sprintf(format, args...)
		w.tracef("VIOLATION %s", w.failure)
	}
}

// broken reports a broken invariant; see Options.Observe.
func (w *world) broken(format string, args ...any) {
	if !w.opt.Observe {
		w.fail(format, args...)
	}
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between draws from [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration { return draw(w.rng, lo, hi) }

func draw(r *rand.Rand, lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// event is something that happens at a time; seq orders equal times.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

// eventQueue is a binary heap of events.
type eventQueue struct {
	heap []event
	seq  uint64
}

func (q *eventQueue) less(a, b int) bool {
	x, y := &q.heap[a], &q.heap[b]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}

func (q *eventQueue) push(at time.Duration, do func()) {
	q.seq++
	q.heap = append(q.heap, event{at, q.seq, do})
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *eventQueue) pop() (event, bool) {
	if len(q.heap) == 0 {
		return event{}, false
	}
	top, last := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[last]
	q.heap[last].do = nil
	q.heap = q.heap[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && q.less(c+1, c) {
			c++
		}
		if !q.less(c, i) {
			break
		}
		q.heap[i], q.heap[c] = q.heap[c], q.heap[i]
		i = c
	}
	return top, true
}
