package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// Figures of the packs' tests.
const (
	smallFiles = 2000
	smallPuts  = 40 // that they may cost
)

// turnstile stands before the S3 server, counts requests, and can refuse them.
type turnstile struct {
	*httptest.Server
	refuse atomic.Bool

	mu    sync.Mutex
	calls map[string]int // method and the first two letters of the key
}

// startTurnstile leaves the Host header as it is: the signature covers it.
func startTurnstile(t *testing.T, s3 *testcluster.S3) *turnstile {
	t.Helper()
	to := &url.URL{Scheme: "http", Host: s3.Addr}
	c := &turnstile{calls: map[string]int{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.refuse.Load() {
			http.Error(w, "refused by the test", http.StatusServiceUnavailable)
			return
		}
		_, key, _ := strings.Cut(r.URL.Path, "/it/")
		c.mu.Lock()
		c.calls[r.Method+" "+key[:min(2, len(key))]]++
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

// url is the bucket behind the turnstile.
func (c *turnstile) url(s3 *testcluster.S3) string {
	return strings.Replace(s3.URL(), s3.Addr, c.Listener.Addr().String(), 1)
}

// packs counts requests for packs.
func (c *turnstile) packs(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[method+" p/"]
}

// startCounted is start with a real S3 server behind a turnstile.
func startCounted(t *testing.T, set ...string) (*testcluster.Cluster, []*probe.Client, *testcluster.S3, *turnstile) {
	t.Helper()
	mounts(t)
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s3.Stop() })
	count := startTurnstile(t, s3)
	c, ps := start(t, testcluster.Config{S3: count.url(s3), Env: s3.Env(), Set: set})
	return c, ps, s3, count
}

// siteFile is the content of file i: text, some of it of the size of code, some
// of the size of small pictures.
func siteFile(i int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(i), 4))
	size := 300 + rnd.IntN(16_000)
	if i%20 == 0 {
		size = 40_000 + rnd.IntN(150_000)
	}
	b := make([]byte, 0, size+40)
	for len(b) < size {
		b = fmt.Appendf(b, "\t$value_%d = get_option( 'o%x' );\n", rnd.IntN(50), rnd.IntN(1<<16))
	}
	return b[:size]
}

// unpack writes the small files, as eight programs that unpack parts of an archive,
// and returns how many bytes that were.
func unpack(t *testing.T, dir string) (raw int64) {
	t.Helper()
	const writers = 8
	var wg sync.WaitGroup
	var sum atomic.Int64
	for w := range writers {
		p := startProbe(t, fmt.Sprint("writer ", w))
		wg.Go(func() {
			for i := w; i < smallFiles; i += writers {
				b := siteFile(i)
				sum.Add(int64(len(b)))
				if err := p.Do(probe.WriteFile(filepath.Join(dir, fmt.Sprint(i)), b))[0].Err(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return sum.Load()
}

// TestSmallFilesInPacks: 2,000 small files cost few requests, and every byte of
// them comes back from the bucket alone.
func TestSmallFilesInPacks(t *testing.T) {
	c, ps, s3, count := startCounted(t)
	dir := func(i int) string { return filepath.Join(c.Nodes[i].Mount, "plugin") }
	must(t, ps[0], probe.Mkdir(dir(0)))
	raw := unpack(t, dir(0))
	for _, n := range c.Nodes {
		if err := n.WaitDurable(uploadMax); err != nil {
			t.Fatal(err)
		}
	}
	puts := count.packs(http.MethodPut)
	objects, stored, err := s3.Objects()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files of %d bytes: %d puts, %d objects of %d bytes", smallFiles, raw, puts, objects, stored)
	if puts == 0 || puts > smallPuts {
		t.Errorf("%d puts, want at most %d", puts, smallPuts)
	}
	for _, n := range c.Nodes {
		emptyCache(t, n)
	}
	startAll(t, c)
	before := count.packs(http.MethodGet)
	for i := range smallFiles {
		sum := sha256.Sum256(siteFile(i))
		r := must(t, ps[2], probe.Sum(filepath.Join(dir(2), fmt.Sprint(i))))[0]
		if want := hex.EncodeToString(sum[:]); r.Str != want {
			t.Fatalf("file %d from the bucket: sum %s, want %s", i, r.Str, want)
		}
	}
	gets := count.packs(http.MethodGet) - before
	t.Logf("read again from the bucket with %d gets", gets)
	if gets == 0 || gets > smallFiles/4 {
		t.Errorf("%d gets of packs for %d files", gets, smallFiles)
	}
}

// TestWriterDiesBeforeTheUpload: the bucket is away, files are written, their
// node is killed for good. When the bucket is back another holder uploads them.
func TestWriterDiesBeforeTheUpload(t *testing.T) {
	c, ps, _, count := startCounted(t)
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	w := 0
	for c.Nodes[w] == leader {
		w++
	}
	count.refuse.Store(true)
	const files = 60
	for i := range files {
		must(t, ps[w], probe.WriteFile(filepath.Join(c.Nodes[w].Mount, fmt.Sprint(i)), siteFile(20*i))) // more than travels in the log
	}
	must(t, ps[w], probe.Fill(filepath.Join(c.Nodes[w].Mount, "big"), 9<<20, 3))
	if err := c.Nodes[w].Kill(); err != nil {
		t.Fatal(err)
	}
	if n := count.packs(http.MethodPut); n > 0 {
		t.Fatalf("%d packs were uploaded although the bucket was away", n)
	}
	count.refuse.Store(false)
	var alive []*testcluster.Node
	var p *probe.Client
	for i, n := range c.Nodes {
		if i != w {
			alive, p = append(alive, n), ps[i]
		}
	}
	for _, n := range alive {
		if err := n.WaitDurable(uploadMax); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range alive {
		emptyCache(t, n)
	}
	done := make(chan error, len(alive))
	for _, n := range alive {
		go func() { done <- n.Start() }()
	}
	for range alive {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	mount := alive[len(alive)-1].Mount
	for i := range files {
		sum := sha256.Sum256(siteFile(20 * i))
		if r := must(t, p, probe.Sum(filepath.Join(mount, fmt.Sprint(i))))[0]; r.Str != hex.EncodeToString(sum[:]) {
			t.Errorf("file %d is not what was written", i)
		}
	}
	if r := must(t, p, probe.Sum(filepath.Join(mount, "big")))[0]; r.Str != patternSum(9<<20, 3) {
		t.Error("the large file is not what was written")
	}
}
