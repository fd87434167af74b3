package integration

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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
