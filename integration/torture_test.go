package integration

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// The run for acceptance is WPFS_TEST_SCALE=3: a minute each way.
const (
	tortureFor     = 20 // seconds
	tortureWorkers = 8  // on each of two nodes
	tortureDirs    = 3  // that all of them share
	tortureNames   = 4  // of each worker in each directory: few, so that names come back
	tortureSteps   = 4  // of a worker between two conversations with its probe
	tortureHot     = 6  // names that all workers fight for
	raceEvery      = 50 * time.Millisecond
	toldMax        = 5 // violations that a worker describes
)

// ways are the two ways in which a node makes its kernel forget a name while
// some call holds the directory: with the epoch of Linux 6.16, and without.
func ways() []way {
	return []way{{name: "as the kernel offers"}, {name: "without epoch", set: []string{"mount.debug_no_epoch=true"}}}
}

type way struct {
	name string
	set  []string
}

// TestTorture has eight workers on each of two nodes change three directories
// that all share, and look at each change through another node's mount with the
// very next system call of the same thread.
//
// What it is made to find, in a file system whose kernels cache names,
// absences, attributes, listings and pages:
//   - a change that is acknowledged before every kernel has forgotten the old: the
//     look that follows has no time to be saved by chance;
//   - two nodes that wait for each other's directory locks for ever, each with a
//     change of its own under way in the directory whose name it must forget
//     (the hang detector looks at the workers and at the agents);
//   - a way out of that deadlock that forgets too little: all workers share the
//     directories, so nearly every change meets a locked directory;
//   - an answer of before the change that reaches a kernel after it was told to
//     forget, and is cached then (looks run all the time beside the changes);
//   - a kernel that answers EEXIST or ENOENT from its cache instead of asking, or
//     creates what another node has created already (the next change of a name
//     often comes from another node with no look between).
//
// Each worker has names of its own, so that it knows what every look must show;
// beside them all fight for some names, where any outcome that a local file
// system could give will do.
func TestTorture(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) { torture(t, w.set) })
	}
}

func torture(t *testing.T, set []string) {
	c, ps := start(t, testcluster.Config{Set: set})
	for i := range tortureDirs {
		must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, tortureDir(i))))
	}
	var pids []int
	for i, p := range ps {
		pids = append(pids, p.PID(), c.Nodes[i].PID)
	}
	hangs := testcluster.DetectHangs(stormCallMax, nil, pids...)
	ws := tortureAll(c, ps, time.Duration(scaled(t, tortureFor))*time.Second)
	for _, h := range hangs.Stop() {
		t.Errorf("a task hangs: %v", h)
	}
	var n tally
	for _, w := range ws {
		n.changes += w.n.changes
		n.looks += w.n.looks
		n.bad += w.n.bad
		n.busy += w.n.busy
		for _, what := range w.told {
			t.Error(what)
		}
	}
	races, tries := ws[0].races.judge(t)
	t.Logf("%d changes, %d looks judged, %d violations; %d tries for %d names had one winner each; %d times ESTALE for a directory that was moved",
		n.changes, n.looks, n.bad, tries, races, n.busy)
	if tries <= races {
		t.Error("no two workers tried to make the same name: the test shows nothing about winners")
	}
	if t.Failed() {
		return
	}
	want := map[string]bool{}
	for _, w := range ws {
		for rel := range w.has {
			want[rel] = true
		}
	}
	for i := range tortureDirs {
		for _, e := range sameTrees(t, c, ps, tortureDir(i)) {
			rel := filepath.Join(tortureDir(i), e.Path)
			if own := strings.HasPrefix(e.Path, ownPrefix) && !strings.Contains(e.Path, "/"); own && !want[rel] {
				t.Errorf("%s is there in the end but was removed", rel)
			}
			delete(want, rel)
		}
	}
	for rel := range want {
		t.Errorf("%s was acknowledged and is not there in the end", rel)
	}
}

func tortureDir(i int) string { return fmt.Sprint("torture-", i) }

// tortureAll runs all workers to their end.
func tortureAll(c *testcluster.Cluster, ps []*probe.Client, d time.Duration) []*torturer {
	var mounts []string
	for _, n := range c.Nodes {
		mounts = append(mounts, n.Mount)
	}
	races := &races{began: time.Now(), m: map[int]*race{}}
	var ws []*torturer
	var wg sync.WaitGroup
	until := time.Now().Add(d)
	for home := range 2 {
		for i := range tortureWorkers {
			w := &torturer{p: ps[home], lane: int(lanes.Add(1)) * 2, home: home, mounts: mounts, races: races,
				prefix: fmt.Sprintf("%s%d-%d-", ownPrefix, home, i), has: map[string]*thing{},
				rng: rand.New(rand.NewPCG(uint64(home), uint64(i)))}
			ws = append(ws, w)
			wg.Go(func() { w.run(until) })
		}
	}
	wg.Wait()
	return ws
}

// races are the names that workers try to make, each made at most once and never
// removed: one of a moment, so that tries meet.
type races struct {
	began time.Time

	mu sync.Mutex
	m  map[int]*race
}

type race struct {
	tries int
	won   []string
	ino   uint64
}

func (r *races) now() int { return int(time.Since(r.began) / raceEvery) }

// tried books a try that won or found the name taken.
func (r *races) tried(k int, by string, won bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[k] == nil {
		r.m[k] = &race{}
	}
	r.m[k].tries++
	if won {
		r.m[k].won = append(r.m[k].won, by)
	}
}

// saw compares an inode number with what others saw under the name.
func (r *races) saw(k int, ino uint64) (first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[k].ino == 0 {
		r.m[k].ino = ino
	}
	return r.m[k].ino
}

// judge wants one winner for each name.
func (r *races) judge(t *testing.T) (names, tries int) {
	t.Helper()
	for k, one := range r.m {
		tries += one.tries
		if len(one.won) != 1 {
			t.Errorf("race %d: %d tries, won by %q, want one", k, one.tries, one.won)
		}
	}
	return len(r.m), tries
}
