package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// trio is a cluster of nodes in this process, over real TCP and real disks.
type trio struct {
	t     testing.TB
	peers []Peer
	dirs  []string
	nodes []*running
}

type running struct {
	*Node
	cancel context.CancelFunc
	done   chan error
}

// ports finds n pairs of neighbouring free ports.
func ports(t testing.TB, n int) []int {
	t.Helper()
	var out []int
	for len(out) < n {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p+1))
		if err == nil {
			out = append(out, p)
			defer b.Close()
		}
		defer a.Close()
	}
	return out
}

func newCluster(t testing.TB, size int) *trio {
	t.Helper()
	c := &trio{t: t}
	for i, p := range ports(t, size) {
		c.peers = append(c.peers, Peer{fs.NodeID(fmt.Sprintf("n%d", i+1)), fmt.Sprintf("127.0.0.1:%d", p)})
		c.dirs = append(c.dirs, t.TempDir())
	}
	c.nodes = make([]*running, size)
	for i := range c.nodes {
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	return c
}

func testLogger(t testing.TB) *slog.Logger {
	var w io.Writer = io.Discard
	if os.Getenv("WPFS_TEST_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (c *trio) options(i int) Options {
	return Options{
		ID: c.peers[i].ID, Cluster: "test", DataDir: c.dirs[i], Bind: c.peers[i].Addr,
		Peers: c.peers, Protocol: protocol.Defaults(), Logger: testLogger(c.t),
		OnFatal: func(err error) { c.t.Errorf("node %s: fatal: %v", c.peers[i].ID, err) },
	}
}

func (c *trio) start(i int) {
	c.t.Helper()
	n, err := Open(c.options(i))
	if err != nil {
		c.t.Fatalf("open node %d: %v", i, err)
	}
	c.nodes[i] = run(n)
}

func run(n *Node) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{n, cancel, make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	return r
}

func (c *trio) stop(i int) {
	if c.nodes[i] == nil {
		return
	}
	c.nodes[i].cancel()
	if err := <-c.nodes[i].done; err != nil && !errors.Is(err, context.Canceled) {
		c.t.Errorf("node %d ended: %v", i, err)
	}
	c.nodes[i] = nil
}

func (c *trio) ready() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i, n := range c.nodes {
		if n == nil {
			continue
		}
		if err := n.AwaitReady(ctx); err != nil {
			c.t.Fatalf("node %d is not ready: %+v", i, n.Status())
		}
	}
}

func (r *running) lookup(t *testing.T, name string) (fs.Attr, error) {
	t.Helper()
	var a fs.Attr
	_, err := r.Read(t.Context(), func(v fs.View) (err error) { a, err = v.Lookup(fs.RootIno, name); return err })
	return a, err
}

func (c *trio) leader() int {
	for i, n := range c.nodes {
		if n != nil && n.leads() {
			return i
		}
	}
	return -1
}

// What Do has returned on one node, the next Read on every other sees.
func TestWriteIsVisibleEverywhere(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	for i := range 60 {
		w := c.nodes[i%3]
		name := fmt.Sprintf("f%d", i)
		if _, err := w.Do(t.Context(), fs.Create{Parent: fs.RootIno, Name: name, Mode: 0o644, Excl: true}); err != nil {
			t.Fatalf("create %s: %v", name, err)
		}
		for j, r := range c.nodes {
			if _, err := r.lookup(t, name); err != nil {
				t.Errorf("%s, made by node %d, on node %d: %v", name, i%3, j, err)
			}
		}
		if _, err := c.nodes[(i+1)%3].Do(t.Context(), fs.Unlink{Parent: fs.RootIno, Name: name}); err != nil {
			t.Fatalf("unlink %s: %v", name, err)
		}
		for j, r := range c.nodes {
			if _, err := r.lookup(t, name); !errors.Is(err, fs.ErrNotFound) {
				t.Errorf("%s, removed, on node %d: %v", name, j, err)
			}
		}
	}
}

// Of many nodes that create one name exclusively, one wins.
func TestOneWinner(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	for round := range 20 {
		var mu sync.Mutex
		won := 0
		var wg sync.WaitGroup
		for _, n := range c.nodes {
			wg.Go(func() {
				_, err := n.Do(t.Context(), fs.Create{Parent: fs.RootIno, Name: fmt.Sprint(round), Excl: true})
				switch {
				case err == nil:
					mu.Lock()
					won++
					mu.Unlock()
				case !errors.Is(err, fs.ErrExist):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("round %d has %d winners", round, won)
		}
	}
}

// The leader goes without a word while all write: nobody gets an error, nothing
// that was acknowledged is lost, nothing is applied twice.
func TestLeaderDies(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	lead := c.leader()
	if lead < 0 {
		t.Fatal("nobody leads")
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	made := make([]int, 3)
	pause := make([]time.Duration, 3)
	for i, n := range c.nodes {
		if i == lead {
			continue
		}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				_, err := n.Do(context.Background(), fs.Create{Parent: fs.RootIno, Name: fmt.Sprintf("%d-%d", i, made[i]), Excl: true})
				if err != nil {
					t.Errorf("node %d, create %d: %v", i, made[i], err)
					return
				}
				made[i]++
				pause[i] = max(pause[i], time.Since(began))
			}
		})
	}
	time.Sleep(300 * time.Millisecond) // some writes before
	c.stop(lead)
	before := time.Now()
	for c.leader() < 0 && time.Since(before) < 20*time.Second {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(5 * time.Second) // longer than the leases of the old leader
	close(stop)
	wg.Wait()
	c.start(lead)
	c.ready()
	for i := range c.nodes {
		for k := range made[i] {
			for j, r := range c.nodes {
				if _, err := r.lookup(t, fmt.Sprintf("%d-%d", i, k)); err != nil {
					t.Fatalf("node %d's create %d of %d on node %d: %v", i, k, made[i], j, err)
				}
			}
		}
	}
	t.Logf("created %v, longest pauses %v", made, pause)
}

// All nodes stop and start again: everything is there, and they agree.
func TestRestartKeepsEverything(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	for i := range 50 {
		if _, err := c.nodes[i%3].Do(t.Context(), fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprint(i), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.ready()
	for i := range 50 {
		for j, r := range c.nodes {
			if _, err := r.lookup(t, fmt.Sprint(i)); err != nil {
				t.Errorf("directory %d on node %d: %v", i, j, err)
			}
		}
	}
}

// A node with an empty disk joins, gets everything, and becomes a voter.
func TestJoin(t *testing.T) {
	c := newCluster(t, 1)
	c.ready()
	for i := range 20 {
		if _, err := c.nodes[0].Do(t.Context(), fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if f := c.nodes[0].raft().Snapshot(); f.Error() != nil { // so that the others start from one
		t.Fatal(f.Error())
	}
	for i, p := range ports(t, 2) {
		c.peers = append(c.peers, Peer{fs.NodeID(fmt.Sprintf("j%d", i)), fmt.Sprintf("127.0.0.1:%d", p)})
		c.dirs = append(c.dirs, t.TempDir())
		o := c.options(i + 1)
		o.Peers, o.Join = nil, []string{c.peers[0].Addr}
		n, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, run(n))
	}
	c.ready()
	for i := range 20 {
		for j, r := range c.nodes {
			if _, err := r.lookup(t, fmt.Sprint(i)); err != nil {
				t.Errorf("directory %d on node %d: %v", i, j, err)
			}
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for voters := 0; voters != 3; {
		voters = 0
		for _, m := range c.nodes[0].Members() {
			if m.Voter {
				voters++
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("members: %+v", c.nodes[0].Members())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Rule R27: a voter that lost its disk may not come back under its name.
func TestForgottenNodeIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	c.stop(0)
	c.dirs[0] = t.TempDir()
	n, err := Open(c.options(0))
	if err != nil {
		t.Fatal(err)
	}
	r := run(n)
	defer r.cancel()
	select {
	case err := <-r.done:
		if !errors.Is(err, ErrForgotten) {
			t.Errorf("run: %v, want %v", err, ErrForgotten)
		}
	case <-time.After(20 * time.Second):
		t.Error("the node takes part")
	}
}
