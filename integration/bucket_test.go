package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// The run for acceptance is WPFS_TEST_SCALE=18: three minutes without the bucket.
const (
	awaySeconds  = 10 // without the bucket
	faultSeconds = 3  // of each other fault
	drainMax     = 5 * time.Minute
)

// bucketFaults are the ways in which a bucket fails that is not simply gone.
var bucketFaults = []struct {
	name  string
	fault testcluster.S3Fault
}{
	{"500", testcluster.S3Fault{Status: http.StatusInternalServerError}},
	{"503 every second time", testcluster.S3Fault{Status: http.StatusServiceUnavailable, Every: 2}},
	{"403 every third time", testcluster.S3Fault{Status: http.StatusForbidden, Every: 3}},
	{"lost answers", testcluster.S3Fault{Method: http.MethodPut, Lose: true, Every: 2}},
	{"slow", testcluster.S3Fault{Slow: 2 * time.Second}},
	{"stalls", testcluster.S3Fault{Stall: true}},
	{"refuses", testcluster.S3Fault{Refuse: true}},
}

// proxied starts a cluster whose bucket is behind a proxy that can fail.
func proxied(t *testing.T, set ...string) (*testcluster.Cluster, []*probe.Client, *testcluster.S3, *testcluster.S3Proxy) {
	t.Helper()
	mounts(t)
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s3.Stop() })
	proxy, err := session.StartProxy(s3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	c, ps := start(t, testcluster.Config{S3: proxy.URL(), Env: s3.Env(), Set: set})
	return c, ps, s3, proxy
}

// bucketLoad is a writer: files of all sizes, one after the other, and what must be in
// them for ever.
type bucketLoad struct {
	p    *probe.Client
	base string
	rng  *rand.Rand

	mu     sync.Mutex
	want   map[string][]byte
	bytes  int
	faults []error
	worst  time.Duration
}

func newBucketLoad(p *probe.Client, base string, seed uint64) *bucketLoad {
	return &bucketLoad{p: p, base: base, rng: rand.New(rand.NewPCG(seed, 7)), want: map[string][]byte{}}
}

// step writes a new file, or an old one anew.
func (l *bucketLoad) step() {
	size := 100 + l.rng.IntN(8<<10) // inline
	if l.rng.IntN(3) == 0 {
		size = 40<<10 + l.rng.IntN(600<<10)
	}
	b := make([]byte, size)
	var key [32]byte
	key[0], key[1], key[2] = byte(l.rng.IntN(256)), byte(l.rng.IntN(256)), byte(l.rng.IntN(256))
	rand.NewChaCha8(key).Read(b)
	name := fmt.Sprintf("%s-%d", l.p.Name, len(l.want))
	if n := len(l.want); n > 20 && l.rng.IntN(5) == 0 {
		name = fmt.Sprintf("%s-%d", l.p.Name, l.rng.IntN(n))
	}
	r := l.p.Call(probe.WriteFile(filepath.Join(l.base, name), b))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := r.Err(); err != nil {
		l.faults = append(l.faults, err)
		return
	}
	l.want[name], l.bytes = b, l.bytes+size
	l.worst = max(l.worst, time.Duration(r.End-r.Start))
}

// during runs the loads while f does.
func during(loads []*bucketLoad, f func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, l := range loads {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					l.step()
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	f()
	close(stop)
	wg.Wait()
}

// fine fails the test if a writer met an error.
func fine(t *testing.T, when string, loads ...*bucketLoad) {
	t.Helper()
	for _, l := range loads {
		for _, err := range l.faults {
			t.Errorf("%s: %s: %v", when, l.p.Name, err)
		}
		t.Logf("%s: %s has written %d files, %d MiB; the slowest took %v", when, l.p.Name, len(l.want), l.bytes>>20, l.worst.Round(time.Millisecond))
		l.worst = 0
	}
	if t.Failed() {
		t.FailNow()
	}
}

// verify reads every file of every load on a node.
func verify(t *testing.T, when string, p *probe.Client, base string, loads ...*bucketLoad) {
	t.Helper()
	for _, l := range loads {
		for name, want := range l.want {
			r := p.Call(probe.ReadFile(filepath.Join(base, name)))
			if err := r.Err(); err != nil || string(r.Data) != string(want) {
				t.Fatalf("%s: %s: %d bytes of %d, %v", when, name, len(r.Data), len(want), err)
			}
		}
	}
}

// TestBucketAway writes on two nodes while the bucket fails in every way there
// is, and then is gone for a while. No program hears of it, everything arrives in
// the bucket afterwards, and the bucket alone gives every byte back.
func TestBucketAway(t *testing.T) {
	c, ps, s3, proxy := proxied(t)
	loads := []*bucketLoad{newBucketLoad(ps[0], c.Nodes[0].Mount, 1), newBucketLoad(ps[1], c.Nodes[1].Mount, 2)}
	for _, f := range bucketFaults {
		proxy.Fail(f.fault)
		during(loads, func() { time.Sleep(faultSeconds * time.Second) })
		proxy.Heal()
		hit, _ := proxy.Counts()
		fine(t, f.name, loads...)
		t.Logf("%s: %d requests hit so far", f.name, hit)
	}
	if hit, _ := proxy.Counts(); hit == 0 {
		t.Fatal("no request met a fault")
	}
	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	away := time.Duration(scaled(t, awaySeconds)) * time.Second
	during(loads, func() { time.Sleep(away) })
	fine(t, fmt.Sprintf("%v without a bucket", away), loads...)
	st, err := c.Nodes[0].Status()
	if err != nil {
		t.Fatal(err)
	}
	if !st.Healthy || st.Content.UploadBytes == 0 || !st.Content.ObjectSuspended || len(st.Warnings) == 0 {
		t.Errorf("while the bucket is away: healthy %v, %d bytes wait, suspended %v, warnings %q",
			st.Healthy, st.Content.UploadBytes, st.Content.ObjectSuspended, st.Warnings)
	}
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.Nodes[0].WaitDurable(drainMax); err != nil {
		t.Fatal(err)
	}
	t.Logf("the backlog has drained %v after the bucket came back", time.Since(began).Round(100*time.Millisecond))
	for _, n := range c.Nodes {
		emptyCache(t, n)
	}
	startAll(t, c)
	// Bodies that break off half-way are gone on with.
	proxy.Fail(testcluster.S3Fault{Method: http.MethodGet, Cut: true, Every: 3})
	verify(t, "from the bucket alone", ps[2], c.Nodes[2].Mount, loads...)
	proxy.Heal()
	verify(t, "afterwards", ps[0], c.Nodes[0].Mount, loads...)
}

// TestWriterDiesWithoutBucket: a node that wrote while the bucket was away is
// killed, and its disk is gone. What its programs' close calls have returned is in
// the bucket afterwards.
func TestWriterDiesWithoutBucket(t *testing.T) {
	c, ps, s3, _ := proxied(t)
	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	w := 0 // not the leader: that one's death is another test's
	for c.Nodes[w] == leader {
		w++
	}
	l := newBucketLoad(ps[w], c.Nodes[w].Mount, 3)
	during([]*bucketLoad{l}, func() { time.Sleep(time.Duration(scaled(t, awaySeconds)) * time.Second / 2) })
	fine(t, "without a bucket", l)
	if err := c.Nodes[w].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.Nodes[w].Data()); err != nil {
		t.Fatal(err)
	}
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	others := []*testcluster.Node{}
	probes := []*probe.Client{}
	for i, n := range c.Nodes {
		if i != w {
			others, probes = append(others, n), append(probes, ps[i])
		}
	}
	if err := others[0].WaitDurable(drainMax); err != nil {
		t.Fatal(err)
	}
	for _, n := range others {
		emptyCache(t, n)
	}
	done := make(chan error, len(others))
	for _, n := range others {
		go func() { done <- n.Start() }()
	}
	for range others {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	verify(t, "from the bucket alone", probes[0], others[0].Mount, l)
}

// TestBacklogLimit: at the limit of what may wait for the bucket a writer gets
// ENOSPC and nothing else, what it has closed is there, and once the bucket is
// back it can go on.
func TestBacklogLimit(t *testing.T) {
	c, ps, s3, _ := proxied(t, "object.backlog_max_bytes=8MiB")
	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512<<10)
	rng := rand.New(rand.NewPCG(5, 5))
	path := func(i int) string { return filepath.Join(c.Nodes[0].Mount, fmt.Sprint("f", i)) }
	write := func(i int) error {
		rand.NewChaCha8([32]byte{byte(i), byte(rng.IntN(256))}).Read(b)
		return ps[0].Call(probe.WriteFile(path(i), b)).Err()
	}
	refused := -1
	for i := range 200 {
		if err := write(i); errors.Is(err, unix.ENOSPC) {
			refused = i
			break
		} else if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		time.Sleep(50 * time.Millisecond) // the backlog is counted twice a second
	}
	// Counting lags behind, so there may be more than sixteen; not many times more.
	if refused < 16 || refused > 100 {
		t.Fatalf("refused at file %d of half a MiB, the limit is 8 MiB", refused)
	}
	st, err := c.Nodes[0].Status()
	if err != nil || !st.Healthy || len(st.Warnings) == 0 {
		t.Errorf("at the limit: healthy %v, warnings %q, %v", st.Healthy, st.Warnings, err)
	}
	if r := ps[1].Call(probe.ReadFile(filepath.Join(c.Nodes[1].Mount, "f0"))); r.Err() != nil || len(r.Data) != len(b) {
		t.Errorf("what was closed before: %d bytes, %v", len(r.Data), r.Err())
	}
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].WaitDurable(drainMax); err != nil {
		t.Fatal(err)
	}
	if err := write(refused); err != nil {
		t.Errorf("after the backlog has drained: %v", err)
	}
}

// TestDurabilityS3: with cluster.durability s3 the bucket has what a close has
// returned: nothing is lost with all nodes' caches, at once.
func TestDurabilityS3(t *testing.T) {
	c, ps, _, _ := proxied(t, "cluster.durability=s3")
	l := newBucketLoad(ps[0], c.Nodes[0].Mount, 4)
	for range 15 {
		l.step()
	}
	for _, n := range c.Nodes {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(n.Cache()); err != nil {
			t.Fatal(err)
		}
	}
	fine(t, "with the bucket in every close", l)
	startAll(t, c)
	verify(t, "from the bucket alone", ps[1], c.Nodes[1].Mount, l)
}

// TestFullDisk: the disk of one node's cache is small and the bucket is away, so
// it fills with what may not be dropped. Writers on all nodes go on, without an
// error: copies go to those with room. What is read on the full node passes its disk by.
func TestFullDisk(t *testing.T) {
	c, ps, s3, _ := proxied(t, "cache.reserve_bytes=8MiB")
	small := c.Nodes[2]
	if err := small.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small.Cache(), "tmpfs", 0, "size=40m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small.Cache(), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := small.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	// 3 x 60 MiB with two copies each: far more than the small disk has.
	want := map[string][]byte{}
	for round := range 60 {
		for i, n := range c.Nodes {
			b := make([]byte, 1<<20)
			var key [32]byte
			key[0], key[1] = byte(round), byte(i)
			rand.NewChaCha8(key).Read(b)
			name := fmt.Sprintf("f-%d-%d", i, round)
			if err := ps[i].Call(probe.WriteFile(filepath.Join(n.Mount, name), b)).Err(); err != nil {
				t.Fatalf("%s, round %d: %v", n.ID, round, err)
			}
			want[name] = b
		}
	}
	for i, n := range c.Nodes {
		for name, b := range want {
			r := ps[i].Call(probe.ReadFile(filepath.Join(n.Mount, name)))
			if err := r.Err(); err != nil || string(r.Data) != string(b) {
				t.Fatalf("%s reads %s: %d bytes, %v", n.ID, name, len(r.Data), err)
			}
		}
		st, err := n.Status()
		if err != nil || !st.Healthy {
			t.Errorf("%s: %+v, %v", n.ID, st, err)
		}
		t.Logf("%s: %d MiB in the cache, pressure %.2f", n.ID, st.Content.CacheBytes>>20, st.Content.CachePressure)
		if full := n == small; full != (st.Content.CachePressure > 0.9) || full && st.Content.CacheBytes > 40<<20 {
			t.Errorf("%s: pressure %.2f, %d bytes", n.ID, st.Content.CachePressure, st.Content.CacheBytes)
		}
	}
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	if err := small.WaitDurable(drainMax); err != nil {
		t.Fatal(err)
	}
	// Now its content may go: new content finds room here again.
	for i := range 40 {
		b := make([]byte, 1<<20)
		b[0] = byte(i)
		must(t, ps[2], probe.WriteFile(filepath.Join(small.Mount, fmt.Sprint("after", i)), b))
	}
	st, err := small.Status()
	if err != nil || st.Content.Evicted == 0 {
		t.Errorf("%s has dropped %d chunks, %v", small.ID, st.Content.Evicted, err)
	}
}
