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
	"net/url"
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

// TestTimeouts: an upstream that does not begin its answer, or does not go on.
func TestTimeouts(t *testing.T) {
	stop := make(chan struct{})
	b := goBackend(t, "go", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			w.Write(make([]byte, 10))
			w.(http.Flusher).Flush()
		}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	defer close(stop)
	f := startFront(t, []Backend{b}, func(c *Config) { c.Timeouts.Response = 200 * time.Millisecond })
	if res, _ := f.do("GET", "/", nil); res.StatusCode != 504 {
		t.Errorf("no answer: %s", res.Status)
	}
	res, err := f.hc.Get(f.url + "/half")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("half an answer passed for a whole one: %d bytes", len(b))
	}
}

// TestQueue: more than an upstream may have in flight wait, and not for ever.
func TestQueue(t *testing.T) {
	enter, leave := make(chan struct{}, 8), make(chan struct{})
	b := goBackend(t, "go", func(w http.ResponseWriter, r *http.Request) { enter <- struct{}{}; <-leave })
	f := startFront(t, []Backend{b}, func(c *Config) { c.Limits.UpstreamConns, c.Timeouts.Queue = 1, 300*time.Millisecond })
	go f.hc.Get(f.url + "/") // ends when leave is closed
	<-enter
	if res, _ := f.do("GET", "/", nil); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s", res.Status)
	}
	close(leave)
	within(t, "the slot is free again", func() error {
		if res, _ := f.do("GET", "/", nil); res.StatusCode != 200 {
			return errors.New(res.Status)
		}
		return nil
	})
}

// TestRateLimits: by address, by user name, by the calls in a multicall.
func TestRateLimits(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, []Backend{{ID: "web1", Addr: strings.Replace(nodes[0].Addr, "127.0.0.1", "localhost", 1)}}, func(c *Config) {
		c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.Limits.LoginPerMinute, c.Limits.XMLRPCPerMinute, c.Limits.CommentPerMin = 3, 10, 2
	})
	try := func(ip, path, body string) int {
		res, _ := f.do("POST", path, strings.NewReader(body), "X-Forwarded-For", ip, "Content-Type", "application/x-www-form-urlencoded")
		if res.StatusCode == 429 && res.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		return res.StatusCode
	}
	login := func(ip, user string) int {
		return try(ip, "/wp-login.php", url.Values{"log": {user}, "pwd": {"x"}}.Encode())
	}
	for i, want := range []int{200, 200, 200, 429, 429} {
		if got := login("203.0.113.1", fmt.Sprint("user", i)); got != want {
			t.Errorf("login %d of one address: %d, want %d", i+1, got, want)
		}
	}
	for i, want := range []int{200, 200, 200, 429} {
		if got := login(fmt.Sprintf("203.0.113.%d", 10+i), " Admin"); got != want {
			t.Errorf("login %d of one name: %d, want %d", i+1, got, want)
		}
	}
	if res, _ := f.do("GET", "/wp-login.php", nil, "X-Forwarded-For", "203.0.113.1"); res.StatusCode != 200 {
		t.Errorf("the form itself: %s", res.Status)
	}
	multicall := "<methodCall><methodName>system.multicall</methodName>" + strings.Repeat("<member><name>methodName</name></member>", 8) + "</methodCall>"
	for i, row := range []struct {
		body string
		want int
	}{{multicall, 200}, {multicall, 429}, {"<methodName>wp.getPosts</methodName>", 200}, {"<methodName>x</methodName>", 200}, {"<methodName>x</methodName>", 429}} {
		if got := try("203.0.113.2", "/xmlrpc.php", row.body); got != row.want {
			t.Errorf("xmlrpc %d: %d, want %d", i+1, got, row.want)
		}
	}
	for i, want := range []int{200, 200, 429} {
		if got := try("2001:db8::"+fmt.Sprint(i+1), "/wp-comments-post.php", "x"); got != want {
			t.Errorf("comment %d of one /64: %d, want %d", i+1, got, want)
		}
	}
	e := f.ask("POST", "/wp-login.php", strings.NewReader("log=body&pwd=whole"), "X-Forwarded-For", "203.0.113.99", "Content-Type", "application/x-www-form-urlencoded")
	if e.Length != 18 {
		t.Errorf("of the form's 18 bytes %d arrived", e.Length)
	}
}

// TestWindows: the sliding minute, and its bound of memory.
func TestWindows(t *testing.T) {
	w := newWindows()
	at := func(s int) time.Time { return time.Unix(6000+int64(s), 0) }
	for i, row := range []struct {
		s    int
		want bool
	}{{0, true}, {1, true}, {59, false}, {61, false}, {75, false}, {95, true}, {300, true}} {
		if got := w.take(1, 1, 2, at(row.s)); got != row.want {
			t.Errorf("%d: at %d s: %v", i, row.s, got)
		}
	}
	for i := range uint64(windowsMax + 10) {
		w.take(i, 1, 1, at(400))
	}
	if len(w.now) > windowsMax {
		t.Errorf("%d keys are kept", len(w.now))
	}
	if !w.take(1, 1000, 0, at(400)) {
		t.Error("0 is no limit")
	}
}

// TestHairpin: the site calls itself through the balancer, as cron, Site Health
// and the editor do, and no limit is in its way.
func TestHairpin(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, backendsOf(nodes), func(c *Config) {
		c.Limits.CommentPerMin, c.Limits.ConnsPerClient = 1, 1
		c.Rules = []Rule{{Path: "/wp-cron.php", Limit: LimitComment}}
	})
	for range 3 {
		if e := f.ask("GET", "/?loop="+url.QueryEscape(f.url+"/wp-cron.php?doing_wp_cron=1"), nil); e.URI != "/wp-cron.php?doing_wp_cron=1" || e.Server["HTTP_X_REAL_IP"] != "127.0.0.1" {
			t.Errorf("%+v", e)
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

// TestHealth: the node's own word and the web server's count; a source's changes
// are followed.
func TestHealth(t *testing.T) {
	nodes := startSite(t, 2)
	var sick atomic.Bool
	hz := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			http.Error(w, "no lease", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(hz.Close)
	nodes[0].Health = hz.URL
	f := startFront(t, backendsOf(nodes), func(c *Config) {
		c.Health.Every, c.Health.Path, c.Health.Host = 50*time.Millisecond, "/", "shop.example"
	})
	state := func(id, want string) func() error {
		return func() error {
			for _, u := range f.Status().Upstreams {
				if u.ID == id && (u.State != want || want == "down" && u.Why == "") {
					return fmt.Errorf("%s is %s (%s), want %s", id, u.State, u.Why, want)
				}
			}
			return nil
		}
	}
	within(t, "healthy", state("web1", "up"))
	sick.Store(true)
	within(t, "the node is sick", state("web1", "down"))
	for range 20 {
		if e := f.ask("GET", "/", nil); e.Node != "web2" {
			t.Fatalf("a request went to %s", e.Node)
		}
	}
	sick.Store(false)
	within(t, "it comes back", state("web1", "returning"))
	c := f.settings().Config
	c.Health.Path = "/?status=503&retry_after=600" // WordPress's maintenance mode
	if err := f.Reload(c); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * c.Health.Every)
	for _, id := range []string{"web1", "web2"} {
		if err := state(id, "down")(); err == nil {
			t.Errorf("%s is down although it is only being updated", id)
		}
	}
	c.Health.Path = "/?status=500"
	if err := f.Reload(c); err != nil {
		t.Fatal(err)
	}
	within(t, "PHP is broken", state("web1", "down"))
	c.Health.Path = "/"
	if err := f.Reload(c); err != nil {
		t.Fatal(err)
	}
	within(t, "PHP is well again", state("web1", "returning"))
	nodes[1].kill()
	within(t, "the web server is gone", state("web2", "down"))
	f.ask("GET", "/", nil)
}

// switched is a Source that a test changes.
type switched struct {
	mu      sync.Mutex
	list    []Backend
	changed chan struct{}
}

func (s *switched) Backends() []Backend { s.mu.Lock(); defer s.mu.Unlock(); return s.list }
func (s *switched) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
func (s *switched) set(list ...Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
	close(s.changed)
	s.changed = make(chan struct{})
}

// TestSource: members that come, go, drain or are not in order.
func TestSource(t *testing.T) {
	nodes := startSite(t, 2)
	src := &switched{changed: make(chan struct{}), list: backendsOf(nodes[:1])}
	c := Defaults()
	c.HTTP, c.HTTPSMode = []string{"127.0.0.1:0"}, HTTPSOff
	b, err := New(Options{Config: c, Source: src})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	defer func() { cancel(); <-done }()
	has := func(want ...string) func() error {
		return func() error {
			var got []string
			for _, u := range b.Status().Upstreams {
				got = append(got, u.ID+" "+u.State)
			}
			if strings.Join(got, ",") != strings.Join(want, ",") {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		}
	}
	within(t, "one", has("web1 up"))
	draining := nodes[1].Backend
	draining.Draining = true
	src.set(nodes[0].Backend, draining, Backend{ID: "bad id", Addr: "x"})
	within(t, "two", has("web1 up", "web2 draining"))
	src.set(nodes[1].Backend)
	within(t, "the other", has("web2 up"))
}

// TestAccessLog: one line for each request, whatever a client writes.
func TestAccessLog(t *testing.T) {
	for _, format := range []LogFormat{LogCombined, LogJSON} {
		f := startFront(t, backendsOf(startSite(t, 1)), func(c *Config) { c.LogFormat = format })
		f.do("GET", "/page?x=1", nil, "User-Agent", `evil" "\x`, "Referer", "http://r/", "Traceparent", "00-1-2-01")
		f.do("GET", "/wp-admin/?status=404", nil)
		f.raw("GET /%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		within(t, "three lines", func() error {
			if n := strings.Count(f.accessLog(), "\n"); n != 3 {
				return fmt.Errorf("%d lines", n)
			}
			return nil
		})
		want := []string{`127.0.0.1 - - [`, `"GET /page?x=1 HTTP/1.1" 200 `, `"evil\x22 \x22\x5Cx" web1 0.`, `"GET /wp-admin/?status=404 HTTP/1.1" 404 `, `"GET /%00 HTTP/1.1" 400 `}
		if format == LogJSON {
			want = []string{`"client":"127.0.0.1"`, `"uri":"/page?x=1"`, `"user_agent":"evil\" \"\\x"`, `"status":404,`, `"pool":"admin","upstream":"web1"`, `"traceparent":"00-1-2-01"`}
		}
		for _, w := range want {
			if !strings.Contains(f.accessLog(), w) {
				t.Errorf("%s: %q is missing in\n%s", format, w, f.accessLog())
			}
		}
	}
}
