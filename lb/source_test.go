package lb

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
