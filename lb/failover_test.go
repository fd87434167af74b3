package lb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load sends requests from many clients, each on a keep-alive connection, until
// it is stopped.
type load struct {
	wg       sync.WaitGroup
	stop     atomic.Bool
	sent, ok atomic.Int64
	mu       sync.Mutex
	bad      []string
}

func startLoad(f *front, clients int, method, path string) *load {
	l := &load{}
	for i := range clients {
		l.wg.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, byte(i+1))}}
			hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: d.DialContext}}
			defer hc.CloseIdleConnections()
			for !l.stop.Load() {
				l.one(hc, f, method, path)
			}
		})
	}
	return l
}

func (l *load) one(hc *http.Client, f *front, method, path string) {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("a=b")
	}
	req, _ := http.NewRequest(method, f.url+path, body)
	l.sent.Add(1)
	res, err := hc.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err == nil && res.StatusCode >= 400 {
			err = errors.New(res.Status)
		}
	}
	if err == nil {
		l.ok.Add(1)
		return
	}
	l.mu.Lock()
	l.bad = append(l.bad, err.Error())
	l.mu.Unlock()
}

// warm waits until n more requests were answered.
func (l *load) warm(t testing.TB, n int64) {
	from := l.ok.Load()
	within(t, "load flows", func() error {
		if l.ok.Load() < from+n {
			return fmt.Errorf("%d of %d", l.ok.Load()-from, n)
		}
		return nil
	})
}

func (l *load) end() []string {
	l.stop.Store(true)
	l.wg.Wait()
	return l.bad
}

const loadClients = 12

// TestKillUnderLoad: kill -9 of a node under load. No GET fails; of POSTs at most
// those that were in flight on it.
func TestKillUnderLoad(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			nodes := startSite(t, 3)
			f := startFront(t, backendsOf(nodes), func(c *Config) { c.Limits.CommentPerMin = 0 })
			l := startLoad(f, loadClients, method, "/")
			l.warm(t, 300)
			inflight := f.find("web2").inflight.Load
			most := max(inflight(), int64(loadClients)) // what is in flight at the very moment nobody knows: at most one for each client
			nodes[1].kill()
			l.warm(t, 600)
			nodes[1].restart()
			l.warm(t, 300)
			bad := l.end()
			if method == "GET" && len(bad) > 0 || int64(len(bad)) > most {
				t.Errorf("%d of %d failed, at most %d were in flight: %v", len(bad), l.sent.Load(), most, bad)
			}
		})
	}
}

func (f *front) find(id string) *upstream { return f.pool.find(id) }

// TestDrainUnderLoad: drain, undrain and the end of the balancer itself fail no
// request.
func TestDrainUnderLoad(t *testing.T) {
	nodes := startSite(t, 3)
	f := startFront(t, backendsOf(nodes), nil)
	l := startLoad(f, loadClients, "POST", "/")
	l.warm(t, 200)
	if err := f.Drain("web2", true); err != nil {
		t.Fatal(err)
	}
	within(t, "web2 is idle", func() error {
		if n := f.find("web2").inflight.Load(); n > 0 {
			return fmt.Errorf("%d in flight", n)
		}
		return nil
	})
	nodes[1].kill() // it serves nobody now
	before := f.find("web2").stats.requests.Load()
	l.warm(t, 300)
	if f.find("web2").stats.requests.Load() != before {
		t.Error("a draining upstream got a request")
	}
	nodes[1].restart()
	if err := f.Drain("web2", false); err != nil {
		t.Fatal(err)
	}
	l.warm(t, 200)
	if bad := l.end(); len(bad) > 0 {
		t.Errorf("%d failed: %v", len(bad), bad)
	}
	if err := f.Drain("web9", true); err == nil || !strings.Contains(err.Error(), "web1 web2 web3") {
		t.Errorf("drain of nobody: %v", err)
	}
}

// TestReloadUnderLoad: a changed configuration counts from the next request on,
// and fails none; a wrong one changes nothing.
func TestReloadUnderLoad(t *testing.T) {
	nodes := startSite(t, 3)
	f := startFront(t, backendsOf(nodes[:2]), nil)
	l := startLoad(f, loadClients, "GET", "/")
	for i := range 10 {
		l.warm(t, 50)
		c := f.settings().Config
		c.Backends = backendsOf(nodes[:2+i%2])
		c.Rules = []Rule{{Path: fmt.Sprintf("/closed%d/*", i), Deny: true}}
		if err := f.Reload(c); err != nil {
			t.Fatal(err)
		}
	}
	if bad := l.end(); len(bad) > 0 {
		t.Errorf("%d failed: %v", len(bad), bad)
	}
	if res, _ := f.do("GET", "/closed9/x", nil); res.StatusCode != 403 {
		t.Errorf("the new rule: %s", res.Status)
	}
	c := f.settings().Config
	c.Affinity = "nonsense"
	if err := f.Reload(c); err == nil || !strings.Contains(err.Error(), "affinity") || f.settings().Affinity != AffinityIP {
		t.Errorf("a wrong configuration: %v", err)
	}
	c = f.settings().Config
	c.HTTP = []string{"127.0.0.1:1"}
	if err := f.Reload(c); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("another port: %v", err)
	}
	c = f.settings().Config
	c.Timeouts.Idle++
	if err := f.Reload(c); err == nil || !strings.Contains(err.Error(), "idle_timeout") {
		t.Errorf("another idle time: %v", err)
	}
}

// TestStop: when the balancer ends, requests in flight end first.
func TestStop(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, backendsOf(nodes), nil)
	got := make(chan string, 1)
	go func() {
		res, err := http.Post(f.url+"/?sleep=1&mark=stop", "", strings.NewReader("x"))
		if err != nil {
			got <- err.Error()
			return
		}
		res.Body.Close()
		got <- res.Status
	}()
	within(t, "the request is in flight", func() error {
		if f.find("web1").inflight.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	f.stop()
	if s := <-got; s != "200 OK" || nodes[0].marks("stop") != 1 {
		t.Errorf("%s, done %d times", s, nodes[0].marks("stop"))
	}
}

// TestAdminFailover: administration goes to one node; when that is killed the
// very next request is answered by the next one.
func TestAdminFailover(t *testing.T) {
	nodes := startSite(t, 3)
	f := startFront(t, backendsOf(nodes), func(c *Config) { c.Admin = []string{"web3", "web1"} })
	for range 5 {
		if e := f.ask("GET", "/wp-admin/index.php", nil); e.Node != "web3" {
			t.Fatalf("admin is on %s", e.Node)
		}
	}
	nodes[2].kill()
	if e := f.ask("POST", "/wp-admin/async-upload.php", strings.NewReader("x")); e.Node != "web1" || e.Length != 1 {
		t.Errorf("after the kill: %s, %d bytes", e.Node, e.Length)
	}
	if st := f.Status(); st.Admin != "web1" {
		within(t, "the pool has moved", func() error {
			f.ask("GET", "/wp-admin/", nil)
			if st := f.Status(); st.Admin != "web1" {
				return errors.New(st.Admin)
			}
			return nil
		})
	}
}

// TestNobodyThere: the page for people, a line for programs, both with a time to
// come back. An upstream's own 5xx passes with its headers.
func TestNobodyThere(t *testing.T) {
	nodes := startSite(t, 2)
	f := startFront(t, backendsOf(nodes), nil)
	res, _ := f.do("POST", "/wp-admin/async-upload.php?status=502&attachment=42", strings.NewReader("x"))
	if res.StatusCode != 502 || res.Header.Get("X-WP-Upload-Attachment-ID") != "42" {
		t.Errorf("an upstream's own 502: %s, %v", res.Status, res.Header)
	}
	res, body := f.do("GET", "/?status=503&retry_after=600", nil, "Accept", "text/html")
	if res.StatusCode != 503 || !strings.Contains(body, `"node"`) || res.Header.Get("Retry-After") != "600" {
		t.Errorf("WordPress's own maintenance: %s, %.100q", res.Status, body)
	}
	for _, n := range nodes {
		n.kill()
	}
	for _, row := range []struct {
		path, accept string
		page         bool
	}{
		{"/", "text/html,*/*", true}, {"/", "application/json", false}, {"/", "", false},
		{"/wp-admin/", "text/html", false}, {"/wp-json/wp/v2/posts", "text/html", false}, {"/wp-admin/admin-ajax.php", "text/html", false},
	} {
		res, body := f.do("GET", row.path, nil, "Accept", row.accept)
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || strings.Contains(body, "<html") != row.page || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s for %q: %s, %.60q", row.path, row.accept, res.Status, body)
		}
	}
	if f.Stats().Nobody == 0 {
		t.Error("it was not counted")
	}
	nodes[0].restart()
	f.ask("GET", "/", nil) // the very next request tries those that are down
}

// TestNoFalseEjection: neither WordPress's own maintenance mode nor a client's
// errors say anything about the node.
func TestNoFalseEjection(t *testing.T) {
	nodes := startSite(t, 2)
	f := startFront(t, backendsOf(nodes), nil)
	for range 20 {
		f.do("GET", "/?status=503&retry_after=600", nil)
		f.do("GET", "/?status=500", nil)
		f.do("GET", "/?status=404", nil)
	}
	for _, u := range f.Status().Upstreams {
		if u.State != "up" || u.Failures != 0 {
			t.Errorf("%s is %s with %d failures", u.ID, u.State, u.Failures)
		}
	}
	for _, status := range []string{"502", "503", "504"} { // nobody behind the web server is there
		f.do("POST", "/?status="+status, nil)
	}
	out := 0
	for _, u := range f.Status().Upstreams {
		if u.State == "ejected" && u.Failures == 3 && u.Why != "" {
			out++
		}
	}
	if out != 1 {
		t.Errorf("three failures in a row: %+v", f.Status().Upstreams)
	}
}

// TestRetries: a GET that an upstream broke off, or could not pass on to PHP, is
// answered by another one; a POST that has been sent runs once.
func TestRetries(t *testing.T) {
	nodes := startSite(t, 1)
	var posts, gets atomic.Int64
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			posts.Add(1)
		} else {
			gets.Add(1)
		}
		if r.URL.Path == "/gateway" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		c, _, _ := http.NewResponseController(w).Hijack()
		c.Close()
	}))
	t.Cleanup(bad.Close)
	back := append(backendsOf(nodes), Backend{ID: "bad", Addr: bad.Listener.Addr().String()})
	f := startFront(t, back, func(c *Config) {
		c.Admin = []string{"bad"}
		c.Rules = []Rule{{Pool: PoolAdmin}}
		c.Health.FailMax = 1000
	})
	if e := f.ask("GET", "/", nil); e.Node != "web1" || gets.Load() != 1 {
		t.Errorf("a GET: %s, bad was asked %d times", e.Node, gets.Load())
	}
	if e := f.ask("GET", "/gateway", nil); e.Node != "web1" {
		t.Errorf("a GET behind a 502: %s", e.Node)
	}
	if res, body := f.do("POST", "/?mark=post", strings.NewReader("order=1")); res.StatusCode != 502 || posts.Load() != 1 || nodes[0].marks("post") != 0 {
		t.Errorf("a POST: %s %q, bad was asked %d times, web1 %d times", res.Status, body, posts.Load(), nodes[0].marks("post"))
	}
	// All fail: the upstream's own answer is better than ours.
	nodes[0].kill()
	if res, _ := f.do("GET", "/gateway", nil); res.StatusCode != 502 {
		t.Errorf("the held answer: %s", res.Status)
	}
	// The budget ends repeating.
	before := f.Stats().Retries
	for range 100 {
		f.do("GET", "/gateway", nil)
	}
	if n := f.Stats().Retries - before; n > 2*(retryBudgetFloor+100/retryBudgetPart) {
		t.Errorf("%d of 100 requests were repeated", n)
	}
}

// TestClientGoes: a visitor who leaves ends the work for him; an administrator's
// POST is done to its end.
func TestClientGoes(t *testing.T) {
	seen := make(chan string, 2)
	done := make(chan string, 2)
	b := goBackend(t, "go", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		seen <- r.URL.Path
		select {
		case <-r.Context().Done():
			done <- r.URL.Path + " aborted"
		case <-time.After(time.Second):
			io.WriteString(w, strings.Repeat("progress\n", 1000))
			done <- r.URL.Path + " finished"
		}
	})
	f := startFront(t, []Backend{b}, nil)
	for _, row := range []struct{ method, path, want string }{{"GET", "/page", "aborted"}, {"POST", "/wp-admin/update.php", "finished"}} {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, row.method, f.url+row.path, strings.NewReader("x"))
		go f.hc.Do(req) // ends with cancel
		<-seen
		cancel()
		if got := <-done; got != row.path+" "+row.want {
			t.Errorf("%s: %s", row.want, got)
		}
	}
}

// TestMaintenance: the operator's page for all but those he names.
func TestMaintenance(t *testing.T) {
	f := startFront(t, backendsOf(startSite(t, 1)), func(c *Config) {
		c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.MaintenanceAllow = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		c.MaintenancePage = []byte("<html>ours")
	})
	f.Maintenance(true)
	if res, body := f.do("GET", "/", nil, "Accept", "text/html"); res.StatusCode != 503 || body != "<html>ours" || res.Header.Get("Retry-After") != "300" {
		t.Errorf("%s %q", res.Status, body)
	}
	if e := f.ask("GET", "/", nil, "X-Forwarded-For", "203.0.113.5"); e.Node != "web1" {
		t.Error("who may pass does not")
	}
	f.Maintenance(false)
	f.ask("GET", "/", nil, "Accept", "text/html")
}

// TestCookieAffinity: the cookie pins; a forged one does not; the upstream never
// sees it; when the upstream goes, the client gets another.
func TestCookieAffinity(t *testing.T) {
	nodes := startSite(t, 3)
	f := startFront(t, backendsOf(nodes), func(c *Config) {
		c.Affinity, c.CookieKey = AffinityCookie, []byte(strings.Repeat("k", 32))
	})
	pin := func(id string) string { return affinityCookie(id, f.settings().CookieKey, false).String() }
	for _, n := range nodes {
		c, _, _ := strings.Cut(pin(n.ID), ";")
		for range 3 {
			e := f.ask("GET", "/", nil, "Cookie", "a=1; "+c+"; b=2")
			if e.Node != n.ID || e.Server["HTTP_COOKIE"] != "a=1; b=2" {
				t.Errorf("%s: served by %s, cookies %q", n.ID, e.Node, e.Server["HTTP_COOKIE"])
			}
		}
	}
	res, _ := f.do("GET", "/?cookie=1", nil, "Cookie", cookieName+"=web9.AAAA")
	set := strings.Join(res.Header.Values("Set-Cookie"), "\n")
	if !strings.Contains(set, cookieName+"=web") || !strings.Contains(set, "from_php=yes") || !strings.Contains(set, "HttpOnly") {
		t.Errorf("a forged cookie: %q", set)
	}
	home := f.ask("GET", "/", nil).Node
	for _, n := range nodes {
		if e := f.ask("GET", "/", nil, "Cookie", cookieName+"="+n.ID+"."+signature(n.ID, []byte("another key"))); e.Node != home {
			t.Errorf("a forged cookie led to %s", e.Node)
		}
	}
	c, _, _ := strings.Cut(pin("web2"), ";")
	if res, _ := f.do("GET", "/", nil, "Cookie", c); res.Header.Get("Set-Cookie") != "" {
		t.Error("a good cookie was set again")
	}
	nodes[1].kill()
	if res, body := f.do("GET", "/", nil, "Cookie", c); strings.Contains(body, "web2") || !strings.Contains(res.Header.Get("Set-Cookie"), cookieName) {
		t.Errorf("after the kill: %q, %q", body, res.Header.Get("Set-Cookie"))
	}
}
