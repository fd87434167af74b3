package integration

import (
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
