package integration

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

const (
	// faultSlack is beyond what is promised: all changes of a test are made at
	// once, on a machine that others use too. What it must tell apart is a lease
	// and the half minute after which a call gives up.
	faultSlack = 3 * time.Second
	changeWait = 300 * time.Millisecond // from a fault to the changes: well within the lease
	// lonelyFor is when a node surely has nobody left to give it a lease and is
	// not waiting for one any more: 3 s of lease, and up to 5 s of waiting.
	lonelyFor = 9 * time.Second
)

// TestLostLease is what a kernel's caches may do when their daemon cannot tell
// it to forget: answer, until the change that makes them wrong has returned, and
// not once after that. For each way to lose a lease everything is warmed on one
// node, every change is made on another, and looks go on all the time.
//
// It finds timeouts that outlive the lease they were given under (a daemon that
// took the lease for longer than it was, or gave a whole timeout at its end), a
// leader that lets writers go before the lease of a silent node has run out, and
// one that takes the word of a new process for the mount of its dead predecessor.
func TestLostLease(t *testing.T) {
	for _, policy := range []string{"stale", "fail"} {
		t.Run(policy, func(t *testing.T) {
			c, ps := start(t, testcluster.Config{Set: []string{"cluster.on_lease_lost=" + policy}})
			// One policy has the leader lose its lease, the other a follower; they
			// have no influence on each other.
			for _, f := range []struct {
				name string
				run  func(t *testing.T, k *leaseCase)
			}{
				{"paused", leasePaused}, {"killed", leaseKilled}, {"killed and started at once", leaseRestarted}, {"lonely", leaseLonely},
			} {
				t.Run(f.name, func(t *testing.T) { f.run(t, newLeaseCase(t, c, ps, policy)) })
			}
		})
	}
}

// leaseCase is one fault of one node.
type leaseCase struct {
	c      *testcluster.Cluster
	ps     []*probe.Client
	policy string
	n      *testcluster.Node // the target
	limit  time.Duration     // of a change
	lease  *testcluster.LeaseWatch
	*warmed
}

func newLeaseCase(t *testing.T, c *testcluster.Cluster, ps []*probe.Client, policy string) *leaseCase {
	t.Helper()
	for _, n := range c.Nodes {
		if err := n.WaitHealthy(progressMax); err != nil {
			t.Fatal(err)
		}
	}
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	target := slices.Index(c.Nodes, leader)
	k := &leaseCase{c: c, ps: ps, policy: policy, limit: leaderLostMax + faultSlack}
	if policy == "fail" {
		target = (target + 1) % len(c.Nodes)
		k.limit = pausedMax + faultSlack
	}
	k.n = c.Nodes[target]
	k.warmed = newWarmed(t, c, ps, "lease-"+policy, target, (target+1)%len(c.Nodes))
	t.Cleanup(func() { k.close(t) })
	k.lease = k.n.WatchLease()
	t.Cleanup(k.lease.Stop)
	k.warm()
	return k
}

// everywhere wants all nodes to show the new state in the end, by paths. A node
// that loses its lease once more is asked again.
func (k *leaseCase) everywhere(t *testing.T) {
	t.Helper()
	for i, n := range k.c.Nodes {
		deadline := time.Now().Add(progressMax)
		for {
			if err := n.WaitHealthy(time.Until(deadline)); err != nil {
				t.Error(err)
				break
			}
			lease := n.WatchLease()
			began := probe.Now()
			wrong := k.wrong(i)
			lease.Stop()
			if len(wrong) == 0 {
				break
			}
			if lease.Held(began, probe.Now()) || time.Now().After(deadline) {
				for _, what := range wrong {
					t.Errorf("in the end on %s: %s", n.ID, what)
				}
				break
			}
		}
	}
}

// wrong is what node i shows and should not.
func (k *leaseCase) wrong(i int) (wrong []string) {
	for _, v := range k.trials {
		if v.err != nil {
			continue
		}
		for j, r := range v.s.probes[i].Go(v.s.lane, v.ask(i)...).Wait() {
			if l := v.looks[j]; l.want != nil && !l.holds && !l.want(v.before[j], r) {
				wrong = append(wrong, fmt.Sprintf("%s: %s", v.ch.name, describe(v.place(i), l, v.before[j], r)))
			}
		}
	}
	return wrong
}

// leasePaused: the mount of a frozen daemon answers from its caches, or not
// before the daemon goes on.
func leasePaused(t *testing.T, k *leaseCase) {
	paused := probe.Now()
	if err := k.n.Pause(); err != nil {
		t.Fatal(err)
	}
	k.watch(paused, pauseFor-time.Second, manner{})
	k.change(t, k.c.Nodes[k.writer], paused+int64(changeWait), k.limit)
	k.watch(probe.Now(), 0, manner{}) // as some of the others may hang since before the change
	time.Sleep(time.Duration(paused + int64(pauseFor) - probe.Now()))
	resumed := probe.Now()
	if err := k.n.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := k.n.WaitHealthy(progressMax); err != nil {
		t.Fatal(err)
	}
	k.judge(t, k.policy, k.lease, resumed)
	k.everywhere(t)
}

// leaseKilled: the mount of a daemon that is gone.
func leaseKilled(t *testing.T, k *leaseCase) {
	killed := probe.Now()
	k.watch(killed, pauseFor, manner{dead: true})
	if err := k.n.Kill(); err != nil {
		t.Fatal(err)
	}
	k.change(t, k.c.Nodes[k.writer], killed+int64(changeWait), k.limit)
	k.judge(t, k.policy, k.lease, 0)
	if err := k.n.Start(); err != nil {
		t.Fatal(err)
	}
	k.everywhere(t)
}

// leaseRestarted: programs that were there before hold the mount of the dead
// daemon, while a new one has a lease already (rule R13b).
func leaseRestarted(t *testing.T, k *leaseCase) {
	killed := probe.Now()
	k.watch(killed, pauseFor, manner{underDir: true, dead: true})
	if err := k.n.Kill(); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { // ends with the start of the node, which is waited for below
		err := k.n.Start()
		t.Logf("%s is there again %v after it was killed", k.n.ID, time.Duration(probe.Now()-killed).Round(time.Millisecond))
		started <- err
	}()
	k.change(t, k.c.Nodes[k.writer], killed+int64(changeWait), k.limit)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	k.watch(probe.Now(), time.Second, manner{deadHeld: true})
	k.judge(t, k.policy, k.lease, 0)
	k.everywhere(t)
}

// leaseLonely: the others stand still. The node cannot know whether they go on
// without it, and does what its policy says.
func leaseLonely(t *testing.T, k *leaseCase) {
	lonely := probe.Now()
	others := slices.DeleteFunc(slices.Clone(k.c.Nodes), func(n *testcluster.Node) bool { return n == k.n })
	for _, n := range others {
		if err := n.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	k.watch(lonely, time.Second, manner{})
	at := lonely + int64(lonelyFor)
	k.judgeLonely(t, at)
	if b, code, err := k.n.Get("/healthz"); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("/healthz of a lonely node: %d %s (%v), want 503", code, b, err)
	} else {
		t.Logf("/healthz of a lonely node: %s", b)
	}
	for _, n := range others {
		if err := n.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range k.c.Nodes {
		if err := n.WaitHealthy(progressMax); err != nil {
			t.Fatal(err)
		}
	}
	// What it showed without a lease must be forgotten with the first change.
	k.change(t, k.c.Nodes[k.writer], probe.Now(), k.limit)
	k.watch(probe.Now(), time.Second, manner{})
	k.judge(t, k.policy, k.lease, 0)
	k.everywhere(t)
}

// judgeLonely makes all looks, and changes that must be refused, at a time when
// the policy has decided.
func (k *leaseCase) judgeLonely(t *testing.T, at int64) {
	t.Helper()
	errno := map[string]unix.Errno{"stale": unix.EROFS, "fail": unix.EIO}[k.policy]
	dir := k.trials[0].place(k.target).dir
	changes := []probe.Op{probe.CreateExcl(filepath.Join(dir, "lonely"), nil), probe.Mkdir(filepath.Join(dir, "lonely")),
		probe.Symlink("x", filepath.Join(dir, "lonely")), probe.Chmod(dir, 0o700), probe.Rename(dir, dir+".lonely", 0), probe.Setxattr(dir, "user.lonely", nil)}
	looks := make([][]*probe.Pending, len(k.trials))
	for i, v := range k.trials {
		for _, op := range v.ask(k.target) {
			op.At = at
			looks[i] = append(looks[i], k.ps[k.target].Go(2*int(lanes.Add(1)), op))
		}
	}
	for _, op := range changes {
		op.At = at
		if r := k.ps[k.target].Go(2*int(lanes.Add(1)), op).Wait()[0]; r.Lost != "" || r.Errno != errno {
			t.Errorf("a change on a lonely node: %s gave %v, want %s", op.Call, r.Err(), probe.ErrnoName(errno))
		}
	}
	n := 0
	for i, v := range k.trials {
		for j, q := range looks[i] {
			want, r := v.before[j].Value(), q.Wait()[0]
			if k.policy == "fail" {
				want = probe.ErrnoName(unix.EIO)
			}
			if n++; r.Value() != want {
				t.Errorf("%s: a look on a lonely node: %s, want %.200s", v.ch.name, describe(v.place(k.target), v.looks[j], v.before[j], r), want)
			}
		}
	}
	t.Logf("a lonely node with policy %s: %d looks, %d changes", k.policy, n, len(changes))
}
