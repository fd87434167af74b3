package integration

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// What is promised when a node dies or stands still.
const (
	leaderLostMax = 4 * time.Second // a writer's pause when the leader is killed
	// A paused node is waited for until its lease has surely ended: lease 3 s
	// and a tenth of it as margin. The slack is for this machine: with two
	// cores for all agents and writers, a call takes up to some hundred
	// milliseconds of its own.
	pausedMax  = 3300 * time.Millisecond
	pauseSlack = 700 * time.Millisecond
	pauseFor   = 6 * time.Second
	// staleByPolicy is how long a node without a lease waits for one before it
	// may answer from its last state.
	staleByPolicy = time.Second
)

const (
	killRounds  = 4
	lanesEach   = 2  // writers on each node
	progress    = 60 // operations of each writer before and after a fault
	progressMax = time.Minute
)

func isErrno(err, errno error) bool { return errors.Is(err, errno) }

// load starts writers on all nodes but those left out. stop ends them and waits.
func load(c *testcluster.Cluster, ps []*probe.Client, rel string, l *ledger, without ...int) (ws []*writer, stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	for i, p := range ps {
		if slices.Contains(without, i) {
			continue
		}
		for range lanesEach {
			w := &writer{p: p, lane: int(lanes.Add(1)) * 2, dir: filepath.Join(c.Nodes[i].Mount, rel), l: l}
			ws = append(ws, w)
			wg.Go(func() { w.run(end) })
		}
	}
	return ws, sync.OnceFunc(func() { close(end); wg.Wait() })
}

// TestLeaderKilledUnderLoad kills the leader again and again while all nodes
// write. Writers on the other nodes see no error and no pause above four
// seconds, and nothing that was acknowledged is lost, on no node.
func TestLeaderKilledUnderLoad(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	for round := range scaled(t, killRounds) {
		rel := fmt.Sprint("round", round)
		must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, rel)))
		leader, err := c.Leader()
		if err != nil {
			t.Fatal(err)
		}
		dead := slices.Index(c.Nodes, leader)
		l := newLedger()
		ws, stop := load(c, ps, rel, l)
		defer stop()
		awaitProgress(t, ws, progress, progressMax)
		killed := probe.Now()
		if err := leader.Kill(); err != nil {
			t.Fatal(err)
		}
		var living []*writer
		for _, w := range ws {
			if w.p != ps[dead] {
				living = append(living, w)
			}
		}
		awaitProgress(t, living, progress, progressMax)
		if err := leader.Start(); err != nil {
			t.Fatal(err)
		}
		awaitProgress(t, ws, progress, progressMax)
		stop()
		for _, w := range ws {
			worst, _ := w.slowest(killed)
			t.Logf("round %d: %s died; %s lane %d: longest call %v", round, leader.ID, w.p.Name, w.lane, worst.Took().Round(time.Millisecond))
			for _, err := range w.errors() {
				if w.p != ps[dead] || !unclear(err) {
					t.Errorf("round %d, %s died: %v", round, leader.ID, err)
				}
			}
			if w.p != ps[dead] && worst.Took() > leaderLostMax {
				t.Errorf("round %d, %s died: %s of %s took %v, more than %v", round, leader.ID, worst.Call, w.p.Name, worst.Took(), leaderLostMax)
			}
		}
		for i, p := range ps {
			l.verify(t, p, filepath.Join(c.Nodes[i].Mount, rel))
		}
		if t.Failed() {
			return
		}
	}
	sameTrees(t, c, ps, ".")
}

// TestPausedNode freezes a node with SIGSTOP: a follower, then the leader. The
// writers on the others pause once, for no longer than a lease, and the frozen
// node's first answers after SIGCONT are fresh.
func TestPausedNode(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			leader, err := c.Leader()
			if err != nil {
				t.Fatal(err)
			}
			frozen := slices.Index(c.Nodes, leader)
			limit := leaderLostMax + pauseSlack
			if role == "follower" {
				frozen = (frozen + 1) % len(c.Nodes)
				limit = pausedMax + pauseSlack
			}
			must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, role)))
			pauseNode(t, c, ps, role, frozen, limit)
		})
	}
}

// pauseNode freezes one node under load from the others and checks writers and
// readers.
func pauseNode(t *testing.T, c *testcluster.Cluster, ps []*probe.Client, rel string, frozen int, limit time.Duration) {
	t.Helper()
	n := c.Nodes[frozen]
	l := newLedger()
	ws, stopWriters := load(c, ps, rel, l, frozen)
	defer stopWriters()
	k := startCounter(t, c, ps, rel, (frozen+1)%len(ps))
	defer k.stop()
	awaitProgress(t, ws, progress, progressMax)

	watch := k.watch(ps[frozen], n.Mount)
	defer watch.stop()
	lease := n.WatchLease()
	defer lease.Stop()
	for watch.count() < watchLanes { // each lane has looked
		time.Sleep(time.Millisecond)
	}
	paused := probe.Now()
	if err := n.Pause(); err != nil {
		t.Fatal(err)
	}
	watch.during(k, n.Mount, paused, pauseFor)
	time.Sleep(pauseFor) // the fault itself, not a wait for something
	resumed := probe.Now()
	if err := n.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitHealthy(progressMax); err != nil {
		t.Fatal(err)
	}
	awaitProgress(t, ws, progress, progressMax)
	stopWriters()
	k.stop()
	watch.stop()

	for _, w := range ws {
		worst, over := w.slowest(paused)
		t.Logf("%s lane %d: longest call %v, %d over a second", w.p.Name, w.lane, worst.Took().Round(time.Millisecond), over)
		for _, err := range w.errors() {
			t.Errorf("while %s stood still: %v", n.ID, err)
		}
		if worst.Took() > limit {
			t.Errorf("%s of %s took %v, more than %v", worst.Call, w.p.Name, worst.Took(), limit)
		}
		if over > 1 {
			t.Errorf("%s lane %d was delayed %d times, want once", w.p.Name, w.lane, over)
		}
	}
	lease.Stop()
	watch.judge(t, k, lease, resumed)
	for i, p := range ps {
		l.verify(t, p, filepath.Join(c.Nodes[i].Mount, rel))
	}
}

// counter is a file whose content counts up, and a directory that gains an
// entry with each count. Whoever looks at them can tell how old its view is.
type counter struct {
	rel  string
	halt func()

	mu    sync.Mutex
	acked []probe.Result // End is when value i was acknowledged, i the index
}

// startCounter counts on node by.
func startCounter(t *testing.T, c *testcluster.Cluster, ps []*probe.Client, rel string, by int) *counter {
	t.Helper()
	k := &counter{rel: rel + "-counter"}
	base := filepath.Join(c.Nodes[by].Mount, k.rel)
	must(t, ps[by], probe.Mkdir(base), probe.Mkdir(filepath.Join(base, "entries")), probe.WriteFile(filepath.Join(base, "value"), []byte("00000000")))
	end := make(chan struct{})
	var wg sync.WaitGroup
	lane := int(lanes.Add(1)) * 2
	wg.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			tmp, to := filepath.Join(base, "tmp"), filepath.Join(base, "value")
			rs := ps[by].Go(lane, probe.Mkdir(filepath.Join(base, "entries", fmt.Sprintf("%08d", i))),
				probe.WriteFile(tmp, fmt.Appendf(nil, "%08d", i)), probe.Rename(tmp, to, 0)).Wait()
			for _, r := range rs {
				if err := r.Err(); err != nil {
					t.Errorf("counter: %s: %v", ps[by].Name, err)
					return
				}
			}
			k.mu.Lock()
			k.acked = append(k.acked, rs[len(rs)-1])
			k.mu.Unlock()
		}
	})
	k.halt = sync.OnceFunc(func() { close(end); wg.Wait() })
	return k
}

func (k *counter) stop() { k.halt() }

// ackedBefore is the highest value that was acknowledged before the time at.
func (k *counter) ackedBefore(at int64) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, _ := slices.BinarySearchFunc(k.acked, at, func(r probe.Result, at int64) int {
		if r.End < at {
			return -1
		}
		return 1
	})
	return n
}

// counterWatch is a node that looks at the counter all the time, on lanes that
// begin their calls at different moments.
type counterWatch struct {
	halt func()
	p    *probe.Client
	name string
	late sync.WaitGroup

	mu   sync.Mutex
	seen []probe.Result
}

// watchLanes bounds how many calls are under way on a frozen mount.
const watchLanes = 4

func (k *counter) watch(p *probe.Client, mount string) *counterWatch {
	w := &counterWatch{p: p, name: p.Name}
	base := filepath.Join(mount, k.rel)
	end := make(chan struct{})
	var wg sync.WaitGroup
	for i := range watchLanes {
		lane := int(lanes.Add(1)) * 2
		op := probe.ReadFile(filepath.Join(base, "value"))
		if i%2 == 1 {
			op = probe.Readdir(filepath.Join(base, "entries"))
		}
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(time.Millisecond):
				}
				r := p.Go(lane, op).Wait()[0]
				w.mu.Lock()
				w.seen = append(w.seen, r)
				w.mu.Unlock()
			}
		})
	}
	w.halt = sync.OnceFunc(func() { close(end); wg.Wait() })
	return w
}

// during makes one call each half second of a pause. They hang until its end,
// and then must show what was written until they began.
func (w *counterWatch) during(k *counter, mount string, from int64, d time.Duration) {
	const step = 500 * time.Millisecond
	for at := step; at < d; at += step {
		op := probe.ReadFile(filepath.Join(mount, k.rel, "value"))
		op.At = from + int64(at)
		q := w.p.Go(int(lanes.Add(1))*2, op)
		w.late.Go(func() {
			r := q.Wait()[0]
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, r)
		})
	}
}

// count is how many answers there were.
func (w *counterWatch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

func (w *counterWatch) stop() {
	w.halt()
	w.late.Wait()
}

// judge compares each answer with what had been acknowledged when its call
// began. An answer may be old only if the node says of itself that it has no
// lease, and not within the first second after SIGCONT: for so long it must wait
// for one before its policy decides.
func (w *counterWatch) judge(t *testing.T, k *counter, lease *testcluster.LeaseWatch, resumed int64) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	after, failed, policy := 0, 0, 0
	for _, r := range w.seen {
		if r.End > resumed {
			after++
		}
		if err := r.Err(); err != nil {
			failed++
			if !unclear(err) {
				t.Errorf("%s: %v", w.name, err)
			}
			continue
		}
		got, err := counterValue(r)
		if err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		want := k.ackedBefore(r.Start)
		switch {
		case got >= want:
		case time.Duration(r.End-resumed) > staleByPolicy && !lease.Held(r.Start, r.End):
			policy++
		default:
			t.Errorf("%s: %s showed %d although %d had been acknowledged %v before the call, which began %v after SIGCONT and took %v",
				w.name, r.Call, got, want, time.Duration(r.Start-k.acked[want-1].End), time.Duration(r.Start-resumed), r.Took())
		}
	}
	t.Logf("%s: %d answers, %d of them after SIGCONT, %d errors, %d old by policy", w.name, len(w.seen), after, failed, policy)
	if after == 0 {
		t.Errorf("%s gave no answer after SIGCONT", w.name)
	}
}

// counterValue is the count that an answer shows.
func counterValue(r probe.Result) (int, error) {
	s := strings.TrimSpace(string(r.Data))
	if r.Call == probe.CallReaddir {
		if len(r.Names) == 0 {
			return 0, nil
		}
		s = r.Names[len(r.Names)-1]
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%s shows %q: %w", r.Call, s, err)
	}
	return n, nil
}
