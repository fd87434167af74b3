package integration

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// The run for acceptance, 10,000 trials and more, is WPFS_TEST_SCALE=18.
const (
	chainTrials = 20 // of each change
	// A trial is watched from chainLead before its change to twice the time that
	// the change before it took, within these limits: on a busy machine a change
	// takes longer, and a watch that ends before it shows nothing.
	chainLead                  = 4 * time.Millisecond
	chainTailMin, chainTailMax = 12 * time.Millisecond, 80 * time.Millisecond
	// loadPrefix begins the names that the load makes beside what is watched.
	loadPrefix = "load-"
)

// TestNobodySeesOldAfterSomebodySawNew is the test of two phases: all nodes
// look without pause while one changes something. Once any look anywhere has
// returned the new state, no look that starts later may return the old one,
// even though the call that makes the change has not returned yet.
//
// With caches this finds the node that shows the new, to whoever asks it, before
// all others have made their kernels forget the old. The load makes it likely:
// calls in the very directory hold its lock on every node, so that the names
// cannot be forgotten at once, and calls elsewhere keep the daemons busy.
func TestNobodySeesOldAfterSomebodySawNew(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	n := scaled(t, chainTrials)
	load := startChainLoad(t, c, ps)
	calls, caught := 0, 0
	for _, ch := range changes() {
		t.Run(ch.name, func(t *testing.T) {
			s := newSite(c, ps)
			base := fmt.Sprintf("chain-%d", s.lane)
			s.do(t, 0, []probe.Op{probe.Mkdir(filepath.Join(s.mounts[0], base))})
			ct := &chain{s: s, ch: ch, base: base, load: load, tail: chainTailMin}
			for trial := range n {
				ct.trial(t, trial)
				if t.Failed() {
					break
				}
			}
			calls += ct.calls
			caught += ct.caught
		})
	}
	load.stop()
	t.Logf("%d changes × %d trials: %d looks; the change was caught in the act in %d trials; %d calls of load beside them",
		len(changes()), n, calls, caught, load.calls.Load())
	if caught == 0 {
		t.Error("in no trial did anybody look before and after the change: the test shows nothing")
	}
}

// chain is the trials of one change.
type chain struct {
	s    site
	ch   change
	base string
	load *chainLoad
	tail time.Duration

	calls  int // looks
	caught int // trials in which somebody saw both the old and the new
}

// pick is the look of a trial: each in its turn, but those that the load would
// disturb or that cannot be judged by themselves.
func (k *chain) pick(trial int) look {
	for {
		l := k.ch.looks[trial%len(k.ch.looks)]
		call := l.op(place{dir: "/"}).Call
		ofDir := call == probe.CallStat && l.op(place{dir: "/"}).Path == "/" || call == probe.CallFstat && l.held == ""
		if l.want != nil && !l.parts && !l.keeps && !ofDir {
			return l
		}
		trial++
	}
}

// trial watches one look on all nodes while the change is made.
func (k *chain) trial(t *testing.T, nth int) {
	t.Helper()
	v := newTrial(k.s, k.ch, k.base, nth)
	v.setUp(t)
	k.load.beside(v.dir)
	l := k.pick(nth)
	op := func(i int) probe.Op {
		op := l.op(v.place(i))
		op.Skip = loadPrefix
		return op
	}
	writer := k.s.probes[v.writer]
	look := func() string { return writer.Go(k.s.lane, op(v.writer)).Wait()[0].Value() }
	before := look()
	at := probe.Now() + int64(chainLead)
	act := k.ch.act(v.place(v.writer))
	act[0].At = at
	acting := writer.Go(k.s.lane, act...)
	seen := k.s.everybody(k.s.lane+1, func(i int) []probe.Op {
		return []probe.Op{probe.Watch(op(i), at+int64(k.tail))}
	})
	acted := acting.Wait()
	for _, r := range acted {
		if err := r.Err(); err != nil {
			t.Fatalf("%s: %v", writer.Name, err)
		}
	}
	returned := acted[len(acted)-1].End
	k.tail = min(max(2*time.Duration(returned-at), chainTailMin), chainTailMax)
	ss, saw := k.sightings(v, seen)
	if saw {
		k.caught++
	}
	for _, bad := range backwards(ss, before, look(), returned) {
		t.Errorf("trial %d, written on %s: %s: %s", nth, writer.Name, op(v.writer).Call, bad)
	}
	v.tearDown(t)
}

// sightings are the runs of equal answers that count, and whether somebody saw
// more than one.
func (k *chain) sightings(v *trial, seen [][]probe.Result) (ss []sighting, saw bool) {
	for i, rs := range seen {
		saw = saw || len(rs[0].Spans) > 1
		for _, sp := range rs[0].Spans {
			k.calls += sp.Calls
			if i != v.writer || !k.ch.content {
				ss = append(ss, sighting{who: k.s.probes[i].Name, Span: sp})
			}
		}
	}
	return ss, saw
}

// chainLoad makes files, renames, reads and removes them on all nodes: on one
// lane in the directory of the trial under way, on the other in one of its own.
type chainLoad struct {
	dir   atomic.Value // string, below the mounts
	calls atomic.Int64
	stop  func()
}

// beside moves the load of the trials' directories to the next one.
func (l *chainLoad) beside(dir string) { l.dir.Store(dir) }

func startChainLoad(t *testing.T, c *testcluster.Cluster, ps []*probe.Client) *chainLoad {
	t.Helper()
	l := &chainLoad{}
	const own = "chain-load"
	must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, own)))
	l.beside(own)
	end := make(chan struct{})
	var wg sync.WaitGroup
	for i, p := range ps {
		for _, follows := range []bool{true, false} {
			lane, mount := 2*int(lanes.Add(1)), c.Nodes[i].Mount
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-end:
						return
					default:
					}
					dir := own
					if follows {
						dir = l.dir.Load().(string)
					}
					for _, r := range p.Go(lane, loadOps(filepath.Join(mount, dir), fmt.Sprint(lane, "-", n))...).Wait() {
						l.calls.Add(1)
						if err := r.Err(); err != nil {
							t.Errorf("load: %s: %v", p.Name, err)
							return
						}
					}
				}
			})
		}
	}
	l.stop = sync.OnceFunc(func() { close(end); wg.Wait() })
	t.Cleanup(l.stop)
	return l
}

// loadOps is the life of one file, looked at on the way.
func loadOps(dir, name string) []probe.Op {
	a, b := filepath.Join(dir, loadPrefix+name+"a"), filepath.Join(dir, loadPrefix+name+"b")
	return []probe.Op{probe.CreateExcl(a, []byte(name)), probe.Lstat(a), probe.Rename(a, b, 0), probe.Readdir(dir), probe.ReadFile(b), probe.Unlink(b)}
}

// sighting is a run of equal answers on one node.
type sighting struct {
	who string
	probe.Span
}

// backwards finds the contradictions in what the nodes saw of one change: an
// older answer in a call that began after a call with a newer one had ended, or
// anything but the new state in a call that began after the change had returned.
//
// Between old and new there is a third kind of answer. lstat(2) first finds the
// inode and then asks for its attributes, a listing takes several calls, and a
// read may meet a truncation; so a call in the middle of the change may put the
// old and the new together, as it may on a local file system. It counts as
// newer than the old and older than the new.
func backwards(ss []sighting, before, after string, returned int64) []string {
	rank := func(s sighting) int {
		switch s.Value {
		case after:
			return 2
		case before:
			return 0
		}
		return 1
	}
	var out []string
	for _, old := range ss {
		if rank(old) < 2 && old.LastStart > returned {
			out = append(out, fmt.Sprintf("%s sees %.120s %v after the change returned", old.who, old.Value, time.Duration(old.LastStart-returned)))
		}
		for _, young := range ss {
			if rank(young) > rank(old) && old.LastStart > young.FirstEnd {
				out = append(out, fmt.Sprintf("%s sees %.120s %v after %s had seen %.120s",
					old.who, old.Value, time.Duration(old.LastStart-young.FirstEnd), young.who, young.Value))
			}
		}
	}
	return out
}
