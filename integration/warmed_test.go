package integration

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// lookEvery is how often each look is made while a fault lasts.
const lookEvery = 150 * time.Millisecond

// warmed is one trial of every change, up to the change itself: everything is
// set up, held open and in the caches of all nodes. What happens to the cluster
// before the changes are made, and while, is the test's.
type warmed struct {
	trials []*warmTrial
	target int // the node that the fault is about
	writer int
}

type warmTrial struct {
	*trial
	before   []probe.Result // on the target
	returned int64          // when the change had; 0 before
	took     time.Duration
	err      error

	watching []*watched
}

// watched is one look that is made again and again, on a lane of its own: one
// that blocks must not keep others from being made.
type watched struct {
	l    look
	was  probe.Result
	dead bool // on a mount whose daemon is gone
	*probe.Pending
}

// root is the handle under which the target's observer holds the directory of
// the trial. It leads there even when the mount is not on its path any more.
func (p place) root() int { return 1_000_099 + 100*p.h }

// newWarmed sets the trials up. rel tells them apart from others.
func newWarmed(t *testing.T, c *testcluster.Cluster, ps []*probe.Client, rel string, target, writer int) *warmed {
	t.Helper()
	w := &warmed{target: target, writer: writer}
	for _, ch := range changes() {
		s := newSite(c, ps)
		base := fmt.Sprintf("%s-%d", rel, s.lane)
		s.do(t, writer, []probe.Op{probe.Mkdir(filepath.Join(s.mounts[writer], base))})
		v := &warmTrial{trial: newTrial(s, ch, base, writer)}
		v.setUp(t)
		p := v.place(target)
		s.do(t, target, []probe.Op{probe.Open(p.root(), p.dir, unix.O_RDONLY, 0)})
		v.s.everybody(s.lane, v.warm)
		w.trials = append(w.trials, v)
	}
	return w
}

// warm makes all looks on the target again, all at once: what they leave in a
// cache may be there for no longer than a lease.
func (w *warmed) warm() {
	ps := make([]*probe.Pending, len(w.trials))
	for i, v := range w.trials {
		ps[i] = v.s.probes[w.target].Go(v.s.lane, v.ask(w.target)...)
	}
	for i, v := range w.trials {
		v.before = ps[i].Wait()
	}
}

// How to look at the target's mount.
type manner struct {
	// underDir looks names up from the trial's directory, which was opened
	// before, and not from the mount point down.
	underDir bool
	// dead says that the daemon of the mount is gone; deadHeld, that it is for
	// the descriptors that were opened before.
	dead, deadHeld bool
}

// watch makes every look on the target once every lookEvery from the time at on,
// for d.
func (w *warmed) watch(at int64, d time.Duration, m manner) {
	for _, v := range w.trials {
		for j, l := range v.looks {
			op := l.op(v.place(w.target))
			if m.underDir && !l.holds {
				op = l.op(place{h: v.s.lane})
				op.Under = v.place(w.target).root()
			}
			var ops []probe.Op
			for after := time.Duration(0); after <= d; after += lookEvery {
				op.At = at + int64(after)
				ops = append(ops, op)
			}
			v.watching = append(v.watching, &watched{l: l, was: v.before[j], dead: m.dead || m.deadHeld && l.holds,
				Pending: v.s.probes[w.target].Go(2*int(lanes.Add(1)), ops...)})
		}
	}
}

// change makes all changes at once, at the time at, and waits for them. A writer
// may lose its own lease on a machine that is too busy; what it could not change
// then is left out.
func (w *warmed) change(t *testing.T, n *testcluster.Node, at int64, limit time.Duration) {
	t.Helper()
	lease := n.WatchLease()
	defer lease.Stop()
	var wg sync.WaitGroup
	for _, v := range w.trials {
		act := v.ch.act(v.place(w.writer))
		act[0].At = at
		acting := v.s.probes[w.writer].Go(v.s.lane, act...)
		wg.Go(func() {
			rs := acting.Wait()
			for _, r := range rs {
				if v.err = r.Err(); v.err != nil {
					return
				}
			}
			v.returned = rs[len(rs)-1].End
			v.took = time.Duration(v.returned - at)
		})
	}
	wg.Wait()
	lease.Stop()
	longest, undone := time.Duration(0), 0
	for _, v := range w.trials {
		switch {
		case v.err != nil && unclear(v.err) && !lease.Held(at, probe.Now()):
			undone++
		case v.err != nil:
			t.Errorf("%s: %v", v.ch.name, v.err)
		}
		longest = max(longest, v.took)
	}
	t.Logf("%d changes on %s waited for up to %v, %d not made for lack of a lease", len(w.trials), n.ID, longest.Round(time.Millisecond), undone)
	if undone > len(w.trials)/2 {
		t.Error("most changes were not made: the test shows nothing")
	}
	if longest > limit {
		t.Errorf("a change took %v, more than %v", longest, limit)
	}
}

// judge waits for all looks and wants none that began after its change had
// returned to show the old state. It may fail, as calls on a dead mount do.
// Answers of a daemon are excused if it had no lease, by its own word, and
// serves its last state by policy; not before it has waited for a lease since
// resumed (0: since before everything).
func (w *warmed) judge(t *testing.T, policy string, lease *testcluster.LeaseWatch, resumed int64) {
	t.Helper()
	lease.Stop()
	allowed := func(q *watched, r probe.Result) bool {
		return policy == "stale" && !q.dead && time.Duration(r.End-resumed) > staleByPolicy && !lease.Held(r.Start, r.End)
	}
	cached, fresh, failed, excused := 0, 0, 0, 0
	for _, v := range w.trials {
		for _, q := range v.watching {
			for _, r := range q.Wait() {
				switch err := r.Err(); {
				case q.l.want == nil:
				case v.err != nil || r.Start <= v.returned:
					if r.End <= v.returned && r.Value() == q.was.Value() {
						cached++
					}
				case r.Lost != "":
					t.Errorf("%s: %v", v.ch.name, err)
				case err != nil && unclear(err):
					failed++
				case q.l.want(q.was, r):
					fresh++
				case allowed(q, r):
					excused++
				default:
					t.Errorf("%s: a look that began %v after the change had returned, and took %v: %s", v.ch.name,
						time.Duration(r.Start-v.returned), r.Took(), describe(v.place(w.target), q.l, q.was, r))
				}
			}
		}
		v.watching = nil
	}
	t.Logf("looks on %s: %d old ones while the changes waited; afterwards %d new, %d failed, %d old by policy",
		w.trials[0].s.probes[w.target].Name, cached, fresh, failed, excused)
}

// close lets go of everything. What was opened on a mount that is dead fails.
func (w *warmed) close(t *testing.T) {
	t.Helper()
	for _, v := range w.trials {
		for i, p := range v.s.probes {
			p.Go(v.s.lane, v.holding(i, func(h int, _ string) probe.Op { return probe.Close(h) })...).Wait()
		}
		v.s.probes[w.target].Go(v.s.lane, probe.Close(v.place(w.target).root())).Wait()
		if v.ch.after != nil && v.returned != 0 {
			v.s.do(t, w.writer, v.ch.after(v.place(w.writer)))
		}
	}
}
