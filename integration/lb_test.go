package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/testcluster"
)

// webServer serves a node's mount, as nginx on it would, and says whose it is.
type webServer struct {
	srv  *http.Server
	done chan struct{}
}

func startWeb(t *testing.T, n *testcluster.Node) *webServer {
	t.Helper()
	l, err := net.Listen("tcp", n.Web)
	if err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(n.Mount))
	w := &webServer{done: make(chan struct{}), srv: &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Node", n.ID)
		files.ServeHTTP(rw, r)
	})}}
	go func() {
		defer close(w.done)
		w.srv.Serve(l) // ends with kill
	}()
	t.Cleanup(w.kill)
	return w
}

// kill cuts every connection, as the end of its process would.
func (w *webServer) kill() {
	w.srv.Close()
	<-w.done
}

// visitors ask for one path through the balancer, each from its own address.
type visitors struct {
	url      string
	want     string
	stop     atomic.Bool
	ok       atomic.Int64
	wg       sync.WaitGroup
	mu       sync.Mutex
	bad      []string
	servedBy map[string]int
}

func startVisitors(url, want string, n int) *visitors {
	v := &visitors{url: url, want: want, servedBy: map[string]int{}}
	for i := range n {
		v.wg.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 7, byte(i+1))}}
			hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: d.DialContext}}
			defer hc.CloseIdleConnections()
			for !v.stop.Load() {
				v.visit(hc)
				time.Sleep(2 * time.Millisecond) // people, not a benchmark
			}
		})
	}
	return v
}

func (v *visitors) visit(hc *http.Client) {
	res, err := hc.Get(v.url)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil && (res.StatusCode != http.StatusOK || string(body) != v.want) {
			err = fmt.Errorf("%s from %s: %.60q", res.Status, res.Header.Get("X-Node"), body)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.bad = append(v.bad, err.Error())
		return
	}
	v.servedBy[res.Header.Get("X-Node")]++
	v.ok.Add(1)
}

// flow waits until n more visits went well.
func (v *visitors) flow(t *testing.T, n int64) {
	t.Helper()
	from := v.ok.Load()
	eventually(t, "visits go on", func() error {
		if v.ok.Load() < from+n {
			return fmt.Errorf("%d of %d; failed: %v", v.ok.Load()-from, n, v.bad)
		}
		return nil
	})
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestBalancer: a real cluster with its balancer, which knows the nodes by what
// they tell of themselves. While visitors come, a node is stopped in good order,
// another one dies with all that runs on it, and a new one is added; no visit
// fails.
func TestBalancer(t *testing.T) {
	mounts(t)
	c := session.StartFor(t, testcluster.Config{Nodes: 3, LB: true})
	webs := map[string]*webServer{}
	for _, n := range c.Nodes {
		webs[n.ID] = startWeb(t, n)
	}
	states := func() map[string]string {
		out, err := c.Command("lb", "status", "--output", "json", "--socket", c.LB.Socket).Output()
		if err != nil {
			t.Fatalf("wpfs lb status: %v", err)
		}
		var st struct {
			Upstreams []struct{ ID, State string }
		}
		if err := json.Unmarshal(out, &st); err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for _, u := range st.Upstreams {
			m[u.ID] = u.State
		}
		return m
	}
	is := func(id, state string) {
		t.Helper()
		eventually(t, id+" is "+state, func() error {
			if got := states()[id]; got != state {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
	}
	for _, n := range c.Nodes {
		eventually(t, n.ID+" is an upstream", func() error {
			if s := states()[n.ID]; s != "up" && s != "returning" {
				return errors.New(s)
			}
			return nil
		})
	}
	const text = "the same on every node\n"
	if err := os.WriteFile(filepath.Join(c.Nodes[0].Mount, "page.txt"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	v := startVisitors(c.LB.HTTP+"/page.txt", text, 12)
	defer func() { v.stop.Store(true); v.wg.Wait() }()
	v.flow(t, 200)

	if err := c.Nodes[1].Stop(); err != nil { // its web server goes on, over nothing
		t.Fatal(err)
	}
	is(c.Nodes[1].ID, "down")
	v.flow(t, 200)
	if err := c.Nodes[1].Start(); err != nil {
		t.Fatal(err)
	}
	is(c.Nodes[1].ID, "up")
	v.flow(t, 200)

	webs[c.Nodes[2].ID].kill()
	if err := c.Nodes[2].Kill(); err != nil {
		t.Fatal(err)
	}
	is(c.Nodes[2].ID, "down")
	v.flow(t, 200)

	n, err := c.AddNode()
	if err != nil {
		t.Fatal(err)
	}
	startWeb(t, n)
	is(n.ID, "up")
	v.flow(t, 200)
	v.stop.Store(true)
	v.wg.Wait()
	if len(v.bad) > 0 {
		t.Errorf("%d of %d visits failed: %.10q", len(v.bad), v.ok.Load(), v.bad)
	}
	if len(v.servedBy) < 3 {
		t.Errorf("visits were served by %v", v.servedBy)
	}
}
