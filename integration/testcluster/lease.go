package testcluster

import (
	"slices"
	"sync"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
)

// leaseEvery is how often a node is asked for its lease. leaseGap is the longest
// silence between two answers over which a lease is taken to have lasted: a node
// waits that long for a lost one before it answers from its last state.
const (
	leaseEvery = 20 * time.Millisecond
	leaseGap   = time.Second
)

// LeaseWatch knows when a node held a lease, by its own word. What a node shows
// without one is no claim to be current.
type LeaseWatch struct {
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu      sync.Mutex
	samples []leaseSample // in order of time
}

type leaseSample struct {
	asked, answered int64 // as probe.Now tells
	held            bool
}

// WatchLease asks the node again and again until Stop, over restarts too.
func (n *Node) WatchLease() *LeaseWatch {
	w := &LeaseWatch{stop: make(chan struct{})}
	at := Node{ID: n.ID, HTTP: n.HTTP} // the address stays; the rest changes under the test's hands
	w.wg.Go(func() {
		t := time.NewTicker(leaseEvery)
		defer t.Stop()
		for {
			last := false
			select {
			case <-w.stop:
				last = true
			case <-t.C:
			}
			s := leaseSample{asked: probe.Now()}
			st, err := at.Status()
			s.answered, s.held = probe.Now(), err == nil && st.Cluster.LeaseValid
			w.mu.Lock()
			w.samples = append(w.samples, s)
			w.mu.Unlock()
			if last {
				return
			}
		}
	})
	return w
}

// Stop ends the watch after one more question. It may be called again.
func (w *LeaseWatch) Stop() {
	w.once.Do(func() { close(w.stop) })
	w.wg.Wait()
}

// Held reports whether the node held a lease throughout a call from one time to
// another: the answers before, during and after it all say so. Call it after
// Stop, so that there is an answer after the call.
func (w *LeaseWatch) Held(from, to int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	after := slices.IndexFunc(w.samples, func(s leaseSample) bool { return s.asked >= to })
	before := -1
	for i, s := range w.samples {
		if s.answered > from {
			break
		}
		before = i
	}
	if after < 0 || before < 0 {
		return false
	}
	for i := before; i <= after; i++ {
		if !w.samples[i].held || i > before && time.Duration(w.samples[i].asked-w.samples[i-1].answered) > leaseGap {
			return false
		}
	}
	return true
}
