package lb

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

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
