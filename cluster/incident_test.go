package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/fs"
)

func confEntry(i uint64, ids ...string) *raft.Log {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return &raft.Log{Index: i, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
}

// Raft publishes a snapshot that it received (sawSnapshot) and then empties the log.
func TestSnapshotConfigurationOutlivesTheLog(t *testing.T) {
	for _, first := range []uint64{1, 500} { // 500: the log was compacted before
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			confs := testConfs()
			s, err := openLogStore(t.TempDir(), confs, func(err error) { t.Logf("fatal: %v", err) })
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.StoreLogs(append([]*raft.Log{confEntry(1, "a")}, entries(2, 1000)...)); err != nil {
				t.Fatal(err)
			}
			if first > 1 {
				if err := s.DeleteRange(1, first-1); err != nil {
					t.Fatal(err)
				}
			}
			confs.sawSnapshot(60_000, raft.DecodeConfiguration(confEntry(0, "a", "b", "c").Data))
			if err := s.DeleteRange(first, 1000); err != nil {
				t.Fatal(err)
			}
			c, ok := confs.latest()
			if !ok || c.index != 60_000 {
				t.Fatalf("latest configuration: %+v %v, want the snapshot's at 60000", c, ok)
			}
		})
	}
}

func TestEmptiedLogOpens(t *testing.T) {
	dir := t.TempDir()
	s := openLog(t, dir)
	storeEntries(t, s, 1, 1000)
	if err := s.DeleteRange(1, 499); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(500, 1000); err != nil { // as installSnapshot does
		t.Fatal(err)
	}
	s.Close() // kill -9 before the next entry comes
	s, err := openLogStore(dir, testConfs(), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// Killed between "snapshot published" and "log reset": raft's next index is the
// snapshot's + 1, the log ends before it.
func TestStartAfterKilledInstall(t *testing.T) {
	c := newCluster(t, 1)
	c.ready()
	c.stop(0)
	n, err := Open(c.options(0))
	if err != nil {
		t.Fatal(err)
	}
	last, _ := n.logs.LastIndex()
	var l raft.Log
	n.logs.GetLog(last, &l)
	conf, _ := n.confs.latest()
	k, err := n.snaps.Create(1, last+100, l.Term, raft.Configuration{Servers: conf.servers}, uint64(conf.index), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (*checkpoint)(n).Persist(k); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	n.Close()
	c.start(0) // OnFatal reports "non-monotonic"
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	if err := c.nodes[0].AwaitReady(ctx); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// Persist's checkpoint is newer than raft's index; killed right after installing it.
func TestStartWithStateAheadOfSnapshot(t *testing.T) {
	c := newCluster(t, 1)
	c.ready()
	for i := range 20 {
		if _, err := c.nodes[0].Do(t.Context(), fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	c.stop(0)
	n, err := Open(c.options(0))
	if err != nil {
		t.Fatal(err)
	}
	last, _ := n.logs.LastIndex()
	first, _ := n.logs.FirstIndex()
	conf, _ := n.confs.latest()
	k, err := n.snaps.Create(1, last-5, 2, raft.Configuration{Servers: conf.servers}, uint64(conf.index), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (*checkpoint)(n).Persist(k); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.raft().Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	if err := n.logs.DeleteRange(first, last); err != nil { // removeOldLogs
		t.Fatal(err)
	}
	n.Close()
	n, err = Open(c.options(0))
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

// The only writer's command rides with the barrier of a new leader.
func TestWriteBesideTheBarrier(t *testing.T) {
	c := newCluster(t, 3)
	c.ready()
	worst := time.Duration(0)
	for i := range 12 {
		lead := c.leader()
		if lead < 0 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		w := c.nodes[(lead+1)%3]
		done := make(chan struct{})
		go func() { defer close(done); c.nodes[lead].raft().LeadershipTransfer().Error() }()
		for k := range 60 {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			_, err := w.Do(ctx, fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprintf("%d-%d", i, k)})
			cancel()
			worst = max(worst, time.Since(began))
			if err != nil {
				t.Fatalf("transfer %d, write %d: %v after %v", i, k, err, time.Since(began))
			}
		}
		<-done
	}
	t.Logf("worst %v", worst)
}

// One lost proposal among many falls out of the window of 1024 within a second.
func TestLostProposalStaysInTheWindow(t *testing.T) {
	c := newCluster(t, 1)
	c.ready()
	n := c.nodes[0].Node
	var mu sync.Mutex
	lost := false
	send := n.propose.send
	n.propose.mu.Lock()
	n.propose.send = func(l fs.NodeID, e [][]byte) {
		mu.Lock()
		if !lost && len(e) > 1 { // the network eats one message's first command
			lost, e = true, e[1:]
		}
		mu.Unlock()
		send(l, e)
	}
	n.propose.mu.Unlock()
	var wg sync.WaitGroup
	stop := time.Now().Add(2500 * time.Millisecond)
	for g := range 128 {
		wg.Go(func() {
			for i := 0; time.Now().Before(stop); i++ {
				if _, err := n.Do(t.Context(), fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprintf("%d-%d", g, i)}); err != nil {
					t.Errorf("mkdir %d-%d: %v", g, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("seq %d", n.propose.seq)
}

// After an answer that makes raft leave a pipeline, nobody takes answers any
// more. A push that then waits for room must not keep raft's own goroutine out
// for ever: the pipeline is closed.
func TestPushDoesNotWedgeThePipeline(t *testing.T) {
	inner := &stuckPipeline{room: 1, shut: make(chan struct{}), answers: make(chan raft.AppendFuture)}
	pt := &pushTransport{pipes: map[*pushPipe]struct{}{}}
	p := newPushPipe(inner, pt)
	go func() { <-p.Consumer() }() // raft takes the refusal, and leaves
	p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, Entries: []*raft.Log{{Index: 1, Term: 1}}}, new(raft.AppendEntriesResponse))
	pt.push(1) // the commit that comes next finds no room
	for p.mu.TryLock() {
		p.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	inner.answers <- refusal{}
	free := make(chan struct{})
	go func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(free)
	}()
	select {
	case <-free:
	case <-time.After(10 * time.Second):
		t.Error("a push holds the pipeline's lock for ever")
		close(inner.shut)
	}
}

// refusal is the answer of a follower that lacks the previous entry.
type refusal struct{ raft.AppendFuture }

func (refusal) Request() *raft.AppendEntriesRequest   { return &raft.AppendEntriesRequest{Term: 1} }
func (refusal) Response() *raft.AppendEntriesResponse { return &raft.AppendEntriesResponse{Term: 1} }

// stuckPipeline takes room requests and then blocks until it is closed, as
// raft's does when nobody takes its answers.
type stuckPipeline struct {
	room    int
	shut    chan struct{}
	answers chan raft.AppendFuture
}

func (s *stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if s.room == 0 {
		<-s.shut
		return nil, raft.ErrPipelineShutdown
	}
	s.room--
	return nil, nil
}

func (s *stuckPipeline) Consumer() <-chan raft.AppendFuture { return s.answers }
func (s *stuckPipeline) Close() error                       { close(s.shut); return nil }
