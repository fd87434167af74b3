package integration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

const (
	historyFor     = 60 // seconds
	historyLanes   = 2  // on each node
	historyObjects = 6  // that are in use at a time
	historyEpoch   = 3 * time.Second
	historyMax     = 1500 // operations on one object: the checker's cost grows exponentially,
	unclearMax     = 6    // most of all with those that may have happened at any time later, or not at all
	checkMax       = 60 * time.Second
	faultEvery     = 9 * time.Second
	faultFor       = 3 * time.Second
)

// history is what the lanes did, by object.
type history struct {
	mu      sync.Mutex
	ops     map[string][]porcupine.Operation
	unclear map[string]int // of these
}

// never is the return time of an operation without a clear outcome: it may have
// happened at any time after its call, or not at all, which is the same as
// after everything else.
const never = math.MaxInt64

func (h *history) add(object string, o porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops[object] = append(h.ops[object], o)
	if o.Output.(output).unknown {
		h.unclear[object]++
	}
}

// full tells whether the checker has enough to do with an object.
func (h *history) full(object string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops[object]) >= historyMax || h.unclear[object] >= unclearMax
}

// TestHistoriesAreLinearizable records real system calls from all nodes while
// agents are killed and frozen, and has porcupine decide whether each object
// behaved as one copy would.
func TestHistoriesAreLinearizable(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	h := &history{ops: map[string][]porcupine.Operation{}, unclear: map[string]int{}}
	root := "history"
	must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, root)))
	d := time.Duration(scaled(t, historyFor)) * time.Second
	end := time.Now().Add(d)
	for i := range objectCount(d) {
		for _, k := range kinds {
			must(t, ps[0], k.prepare(filepath.Join(c.Nodes[0].Mount, root), i)...)
		}
	}
	var leases []*testcluster.LeaseWatch
	for _, n := range c.Nodes {
		w := n.WatchLease()
		defer w.Stop()
		leases = append(leases, w)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i, p := range ps {
		locks := &nodeLocks{m: map[string]*sync.RWMutex{}}
		for j := range historyLanes {
			l := &historian{locks: locks, p: p, lane: int(lanes.Add(1)) * 2, id: i*historyLanes + j, base: filepath.Join(c.Nodes[i].Mount, root),
				h: h, rng: rand.New(rand.NewPCG(uint64(i), uint64(j))), began: began}
			wg.Go(func() { l.run(end) })
		}
	}
	faults := nemesis(t, c, end)
	wg.Wait()
	for _, w := range leases {
		w.Stop()
	}
	for _, n := range c.Nodes {
		if err := n.WaitHealthy(progressMax); err != nil {
			t.Fatal(err)
		}
	}
	h.dropUnleased(t, leases)
	h.check(t, faults)
	sameTrees(t, c, ps, root)
}

// objectCount is how many objects of each kind are used in the time d.
func objectCount(d time.Duration) int {
	return int(d/historyEpoch+1) * historyObjects
}

// nemesis kills and freezes nodes in turn until end, the leader and others, and
// returns what it did. It leaves all nodes running.
func nemesis(t *testing.T, c *testcluster.Cluster, end time.Time) []string {
	t.Helper()
	var did []string
	for i := 0; time.Until(end) > faultEvery; i++ {
		time.Sleep(faultEvery - faultFor)
		leader, err := c.Leader()
		if err != nil {
			t.Fatal(err)
		}
		n := leader
		if i%4 >= 2 {
			n = c.Nodes[(slices.Index(c.Nodes, leader)+1+i%2)%len(c.Nodes)]
		}
		what, back := "kill -9", n.Start
		do := n.Kill
		if i%2 == 1 {
			what, do, back = "SIGSTOP", n.Pause, n.Resume
		}
		did = append(did, fmt.Sprintf("%s of %s (leader: %v)", what, n.ID, n == leader))
		if err := do(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(faultFor)
		if err := back(); err != nil {
			t.Fatal(err)
		}
	}
	return did
}

// nodeLocks keep the lanes of one node apart while one of them writes in place:
// until its close, what it writes is seen on its own node and nowhere else, as
// the promise for content says. Lanes of different nodes meet without locks.
type nodeLocks struct {
	mu sync.Mutex
	m  map[string]*sync.RWMutex
}

func (n *nodeLocks) lock(object string, in input) (unlock func()) {
	n.mu.Lock()
	l := n.m[object]
	if l == nil {
		l = new(sync.RWMutex)
		n.m[object] = l
	}
	n.mu.Unlock()
	if in.what == "write" {
		l.Lock()
		return l.Unlock
	}
	l.RLock()
	return l.RUnlock
}

// historian is one lane that makes history.
type historian struct {
	locks *nodeLocks // of its node
	p     *probe.Client
	lane  int
	id    int
	base  string
	h     *history
	rng   *rand.Rand
	began time.Time
	n     int
}

func (l *historian) run(end time.Time) {
	for time.Now().Before(end) {
		k := kinds[l.rng.IntN(len(kinds))]
		i := int(time.Since(l.began)/historyEpoch)*historyObjects + l.rng.IntN(historyObjects)
		object := fmt.Sprintf("%s%d", k.name, i)
		if l.h.full(object) {
			time.Sleep(time.Millisecond)
			continue
		}
		l.n++
		op, in := k.choose(l.rng, filepath.Join(l.base, object), fmt.Sprintf("%04d-%012d", l.id, l.n))
		if !l.one(object, op, in) {
			l.awaitMount(end)
		}
	}
}

// one does an operation and books it. It reports false if the mount does not
// answer.
func (l *historian) one(object string, op probe.Op, in input) bool {
	ops := []probe.Op{op}
	if in.what == "replace" { // the content is made beside, and only the rename counts
		tmp := probe.WriteFile(op.Path, []byte(in.value))
		ops = []probe.Op{tmp, op}
	}
	unlock := l.locks.lock(object, in)
	rs := l.p.Go(l.lane, ops...).Wait()
	unlock()
	if len(rs) == 2 && rs[0].Err() != nil {
		return false // nothing has happened to the object
	}
	r := rs[len(rs)-1]
	out := output{errno: r.Errno, value: string(r.Data) + r.Str}
	returned := r.End
	reads := in.what == "read"
	if err := r.Err(); r.Lost != "" || err != nil && unclear(err) {
		if reads {
			return false
		}
		out, returned = output{unknown: true}, never
	}
	l.h.add(object, porcupine.Operation{ClientId: l.id, Input: in, Call: r.Start, Output: out, Return: returned})
	return !out.unknown
}

func (l *historian) awaitMount(end time.Time) {
	for time.Now().Before(end) {
		if l.p.Go(l.lane, probe.Lstat(l.base)).Wait()[0].Err() == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// dropUnleased leaves out the reads of nodes that, by their own word, had no
// lease: they answer from their last state, as their policy says, and claim
// nothing.
func (h *history) dropUnleased(t *testing.T, leases []*testcluster.LeaseWatch) {
	t.Helper()
	reads, dropped := 0, 0
	for object, ops := range h.ops {
		h.ops[object] = slices.DeleteFunc(ops, func(o porcupine.Operation) bool {
			if o.Input.(input).what != "read" {
				return false
			}
			reads++
			if leases[o.ClientId/historyLanes].Held(o.Call, o.Return) {
				return false
			}
			dropped++
			return true
		})
	}
	t.Logf("%d of %d reads are left out: their node had no lease", dropped, reads)
	if dropped > reads/2 {
		t.Errorf("most reads are left out: the test shows nothing")
	}
}

// check runs the checker on each object.
func (h *history) check(t *testing.T, faults []string) {
	t.Helper()
	total, unknown, undecided := 0, 0, 0
	for object, ops := range h.ops {
		k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return strings.HasPrefix(object, k.name) })]
		total += len(ops)
		for _, o := range ops {
			if o.Output.(output).unknown {
				unknown++
			}
		}
		markRaced(ops)
		m := k.model()
		res, info := porcupine.CheckOperationsVerbose(m, ops, checkMax)
		switch res {
		case porcupine.Unknown:
			undecided++
		case porcupine.Illegal:
			t.Errorf("%s: its %d operations are not linearizable", object, len(ops))
			if dir := os.Getenv(testcluster.EnvKeep); dir != "" {
				file := filepath.Join(dir, object+".html")
				if err := porcupine.VisualizePath(m, info, file); err != nil {
					t.Error(err)
				}
				t.Logf("%s: a picture is in %s", object, file)
			}
		}
	}
	t.Logf("%d operations on %d objects, %d of unclear outcome, %d histories undecided; faults: %q",
		total, len(h.ops), unknown, undecided, faults)
	if undecided*200 >= len(h.ops) {
		t.Errorf("the checker could not decide %d of %d histories, want less than 0.5 %%", undecided, len(h.ops))
	}
}
