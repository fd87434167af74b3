package integration

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// Trials of each change: in the visibility test, one way and the other, and in
// the chain test.
var visibilityTrials = []int{400, 100}

const chainTrials = 40

// site is the nodes of a test, seen by one subtest through lanes of its own.
type site struct {
	mounts []string
	probes []*probe.Client
	lane   int
}

var lanes atomic.Int32

func newSite(c *testcluster.Cluster, ps []*probe.Client) site {
	s := site{probes: ps, lane: 2 * int(lanes.Add(1))}
	for _, n := range c.Nodes {
		s.mounts = append(s.mounts, n.Mount)
	}
	return s
}

// place is the directory rel on node i. The handle is the lane's: a lane has
// one trial at a time.
func (s site) place(i int, rel string) place {
	return place{dir: filepath.Join(s.mounts[i], rel), h: s.lane}
}

// do runs ops on node i and fails the test if one fails, or one of the first
// few if their number is given.
func (s site) do(t *testing.T, i int, ops []probe.Op, first ...int) []probe.Result {
	t.Helper()
	rs := s.probes[i].Go(s.lane, ops...).Wait()
	must := rs
	if len(first) > 0 {
		must = rs[:first[0]]
	}
	for _, r := range must {
		if err := r.Err(); err != nil {
			t.Fatalf("%s: %v", s.probes[i].Name, err)
		}
	}
	return rs
}

// everybody starts f's operations on all nodes at once and returns the answers
// of each.
func (s site) everybody(lane int, f func(i int) []probe.Op) [][]probe.Result {
	ps := make([]*probe.Pending, len(s.probes))
	for i, p := range s.probes {
		ps[i] = p.Go(lane, f(i)...)
	}
	rs := make([][]probe.Result, len(ps))
	for i, p := range ps {
		rs[i] = p.Wait()
	}
	return rs
}

// TestNextCallSeesTheChange does each mutating call on one node after all have
// looked at everything twice (the second look is what comes from a cache), and
// looks again from all nodes as soon as the call has returned. The writer, and
// which look comes first, rotate; in every second trial the first looks are made
// by the very thread that made the change.
//
// A kernel that is told of a change too late, or of too little of it, fails the
// look that asks for what was forgotten: a listing (the directory's pages), a
// descriptor (the inode behind a name that is gone), an absence, a second name of
// the same inode, a name below a directory that moved.
//
// By default both ways together are 14,500 trials with some 200,000 looks; the
// run for acceptance is WPFS_TEST_SCALE=3.
func TestNextCallSeesTheChange(t *testing.T) {
	for i, w := range ways() {
		t.Run(w.name, func(t *testing.T) { nextCallSees(t, w.set, scaled(t, visibilityTrials[i])) })
	}
}

func nextCallSees(t *testing.T, set []string, n int) {
	c, ps := start(t, testcluster.Config{Set: set})
	var stale, looked atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, ch := range changes() {
			t.Run(ch.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(c, ps)
				base := fmt.Sprintf("see-%d", s.lane)
				s.do(t, 0, []probe.Op{probe.Mkdir(filepath.Join(s.mounts[0], base))})
				for trial := range n {
					v := newTrial(s, ch, base, trial)
					v.run(t)
					stale.Add(int64(v.stale))
					looked.Add(int64(v.looked))
					if t.Failed() {
						return
					}
				}
			})
		}
	})
	t.Logf("%d changes × %d trials: %d looks, %d stale", len(changes()), n, looked.Load(), stale.Load())
}

// TestNobodySeesOldAfterSomebodySawNew is the test of two phases: all nodes
// look without pause while one changes something. Once any look anywhere has
// returned the new state, no look that starts later may return the old one,
// even though the call that makes the change has not returned yet.
func TestNobodySeesOldAfterSomebodySawNew(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	n := scaled(t, chainTrials)
	calls, caught := 0, 0
	for _, ch := range changes() {
		t.Run(ch.name, func(t *testing.T) {
			s := newSite(c, ps)
			base := fmt.Sprintf("chain-%d", s.lane)
			s.do(t, 0, []probe.Op{probe.Mkdir(filepath.Join(s.mounts[0], base))})
			for trial := range n {
				n, saw := chainTrial(t, s, ch, base, trial)
				calls += n
				if saw {
					caught++
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	t.Logf("%d changes × %d trials: %d looks; the change was caught in the act in %d trials", len(changes()), n, calls, caught)
	if caught == 0 {
		t.Error("in no trial did anybody look before and after the change: the test shows nothing")
	}
}

// chainTrial watches one look on all nodes while the change is made. It returns
// how many looks there were, and whether they saw both the old and the new.
func chainTrial(t *testing.T, s site, ch change, base string, trial int) (calls int, saw bool) {
	t.Helper()
	const lead, tail = 4 * time.Millisecond, 12 * time.Millisecond
	writer := trial % len(s.probes)
	dir := filepath.Join(base, fmt.Sprint(trial))
	setup := []probe.Op{probe.Mkdir(filepath.Join(s.mounts[writer], dir))}
	if ch.setup != nil {
		setup = append(setup, ch.setup(s.place(writer, dir))...)
	}
	s.do(t, writer, setup)
	l := ch.looks[trial%len(ch.looks)]
	for l.parts || l.holds || l.want == nil {
		trial++
		l = ch.looks[trial%len(ch.looks)]
	}
	look := func() string { return s.probes[writer].Go(s.lane, l.op(s.place(writer, dir))).Wait()[0].Value() }
	before := look()
	at := probe.Now() + int64(lead)
	act := ch.act(s.place(writer, dir))
	act[0].At = at
	acting := s.probes[writer].Go(s.lane, act...)
	seen := s.everybody(s.lane+1, func(i int) []probe.Op {
		return []probe.Op{probe.Watch(l.op(s.place(i, dir)), at+int64(tail))}
	})
	acted := acting.Wait()
	for _, r := range acted {
		if err := r.Err(); err != nil {
			t.Fatalf("%s: %v", s.probes[writer].Name, err)
		}
	}
	after := look()
	var sightings []sighting
	for i, rs := range seen {
		saw = saw || len(rs[0].Spans) > 1
		for _, sp := range rs[0].Spans {
			calls += sp.Calls
			if i != writer || !ch.content {
				sightings = append(sightings, sighting{who: s.probes[i].Name, Span: sp})
			}
		}
	}
	for _, v := range backwards(sightings, before, after, acted[len(acted)-1].End) {
		t.Errorf("trial %d, written on %s: %s: %s", trial, s.probes[writer].Name, l.op(s.place(writer, dir)).Call, v)
	}
	if ch.after != nil {
		s.do(t, writer, ch.after(s.place(writer, dir)))
	}
	return calls, saw
}

// sighting is a run of equal answers on one node.
type sighting struct {
	who string
	probe.Span
}

// backwards finds the contradictions in what the nodes saw of one change: an
// older answer in a call that began after a call with a newer one had ended, or
// anything but the new state in a call that began after the change had returned.
//
// Between old and new there is a third kind of answer. lstat(2) first finds the
// inode and then asks for its attributes, a listing takes several calls, and a
// read may meet a truncation; so a call in the middle of the change may put the
// old and the new together, as it may on a local file system. It counts as
// newer than the old and older than the new.
func backwards(ss []sighting, before, after string, returned int64) []string {
	rank := func(s sighting) int {
		switch s.Value {
		case after:
			return 2
		case before:
			return 0
		}
		return 1
	}
	var out []string
	for _, old := range ss {
		if rank(old) < 2 && old.LastStart > returned {
			out = append(out, fmt.Sprintf("%s sees %.120s %v after the change returned", old.who, old.Value, time.Duration(old.LastStart-returned)))
		}
		for _, young := range ss {
			if rank(young) > rank(old) && old.LastStart > young.FirstEnd {
				out = append(out, fmt.Sprintf("%s sees %.120s %v after %s had seen %.120s",
					old.who, old.Value, time.Duration(old.LastStart-young.FirstEnd), young.who, young.Value))
			}
		}
	}
	return out
}
