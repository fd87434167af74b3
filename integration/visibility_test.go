package integration

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// visibilityTrials of each change, one way and the other.
var visibilityTrials = []int{250, 100}

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
// By default both ways together are 10,150 trials with some 140,000 looks; the
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
