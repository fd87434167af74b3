package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wfs "github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/lb"
)

func webServer(t *testing.T, says string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, says) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// runningLB is wpfs lb run in this process.
type runningLB struct {
	t       *testing.T
	file    string
	socket  string
	url     string
	signals chan os.Signal
	ended   chan error
}

func startTestLB(t *testing.T, section string) *runningLB {
	t.Helper()
	dir := t.TempDir()
	r := &runningLB{t: t, file: filepath.Join(dir, "lb.yaml"), socket: filepath.Join(dir, "lb.sock"), signals: make(chan os.Signal, 2), ended: make(chan error, 1)}
	addr, web := freeTestAddr(t), freeTestAddr(t)
	r.url = "http://" + addr
	r.write(fmt.Sprintf("node: {socket: %s}\nhttp: {listen: %q}\nlb:\n  listen: [%q]\n  https: off\n  state_file: %s/state/lb.json\n  access_log: %s/access.log\n%s", r.socket, web, addr, dir, dir, section))
	r.start()
	return r
}

func (r *runningLB) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *runningLB) change(old, new string) {
	r.t.Helper()
	b, err := os.ReadFile(r.file)
	if err != nil || !strings.Contains(string(b), old) {
		r.t.Fatalf("%q is not in the file: %v", old, err)
	}
	r.write(strings.Replace(string(b), old, new, 1))
}

func (r *runningLB) start() {
	r.t.Helper()
	b, err := os.ReadFile(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	file := r.file
	loadFile := func() (Config, error) { return loadLBFile(r.t, file) }
	cfg, err := loadFile()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, b)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.ended <- runLB(context.Background(), cfg, slog.New(slog.DiscardHandler), r.signals, loadFile)
	}()
	r.t.Cleanup(func() {
		select {
		case r.signals <- syscall.SIGTERM:
		default:
		}
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			r.t.Error("the balancer does not end")
		}
	})
	within(r.t, "the balancer serves", func() error { _, err := r.cli(CodeOK, "status"); return err })
}

func (r *runningLB) stop() {
	r.t.Helper()
	r.signals <- syscall.SIGTERM
	if err := <-r.ended; err != nil {
		r.t.Fatal(err)
	}
}

// cli runs wpfs lb ARG… and wants the code.
func (r *runningLB) cli(want Code, args ...string) (string, error) {
	var out, errs bytes.Buffer
	got := run(context.Background(), append(append([]string{"lb"}, args...), "--socket", r.socket), stdio{nil, &out, &errs})
	if got != want {
		return "", fmt.Errorf("wpfs lb %v: code %d, want %d: %s%s", args, got, want, &out, &errs)
	}
	return out.String() + errs.String(), nil
}

func (r *runningLB) must(want Code, contains string, args ...string) {
	r.t.Helper()
	got, err := r.cli(want, args...)
	if err != nil || !strings.Contains(got, contains) {
		r.t.Errorf("wpfs lb %v: %v; %q is missing in\n%s", args, err, contains, got)
	}
}

// TestLBCommands: what an operator types, and what clients then see.
func TestLBCommands(t *testing.T) {
	a, b := webServer(t, "from a"), webServer(t, "from b")
	r := startTestLB(t, fmt.Sprintf("  upstreams: [{id: a, addr: %q}, {id: b, addr: %q}]\n  admin: [b]\n", a, b))
	see := func(want string) {
		t.Helper()
		if _, body := get(t, r.url+"/"); body != want {
			t.Errorf("clients see %q, want %q", body, want)
		}
	}
	r.must(CodeOK, "up", "status")
	r.must(CodeOK, `"state": "up"`, "status", "--output", "json")
	r.must(CodeOK, "draining", "drain", "a")
	see("from b")
	r.must(CodeOther, "there are [a b]", "drain", "c")
	r.must(CodeUsage, "on or off", "maintenance", "maybe")
	r.must(CodeOK, "Maintenance mode is on", "maintenance", "on")
	if code, _ := get(t, r.url+"/"); code != http.StatusServiceUnavailable {
		t.Errorf("maintenance: %d", code)
	}

	r.stop() // a restart knows of both
	r.start()
	r.must(CodeOK, "Maintenance mode is on", "status")
	r.must(CodeOK, "a         draining", "maintenance", "off")
	see("from b")
	r.must(CodeOK, "up", "undrain", "a")
	r.must(CodeOK, "draining", "drain", "b")
	see("from a")

	// A changed file.
	r.change("https: off", "https: off\n  rules: ['/closed/* deny']")
	r.must(CodeOK, "UPSTREAM", "reload")
	if code, _ := get(t, r.url+"/closed/"); code != http.StatusForbidden {
		t.Errorf("a new rule: %d", code)
	}
	r.change("['/closed/* deny']", "['/other/* deny']")
	r.signals <- syscall.SIGHUP
	within(t, "SIGHUP reads the file", func() error {
		if code, _ := get(t, r.url+"/other/"); code != http.StatusForbidden {
			return fmt.Errorf("%d", code)
		}
		return nil
	})
	r.change("/other/* deny", "other deny")
	r.must(CodeConfig, "lb.rules", "reload")
	r.change("'other deny'", "")
	r.change("access.log", "other.log")
	r.must(CodeConfig, "lb.access_log: cannot change", "reload")
	r.change("other.log", "access.log")
	r.change("listen: [", "listen: [\"127.0.0.1:1\", ")
	r.must(CodeConfig, "restart it", "reload")
	if code, _ := get(t, r.url+"/other/"); code != http.StatusForbidden {
		t.Errorf("a wrong file changed something: %d", code)
	}
	if log, err := os.ReadFile(filepath.Join(filepath.Dir(r.file), "access.log")); err != nil || !strings.Contains(string(log), `"GET / HTTP/1.1" 200`) {
		t.Errorf("the access log: %v\n%s", err, log)
	}
}

// TestLBInterfaces: /healthz, /metrics and /status of a balancer alone.
func TestLBInterfaces(t *testing.T) {
	a := webServer(t, "from a")
	r := startTestLB(t, fmt.Sprintf("  upstreams: [{id: a, addr: %q}]\n", a))
	get(t, r.url+"/")
	cfg, err := loadLBFile(t, r.file)
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + cfg.HTTP.Listen
	for path, want := range map[string]string{
		"/healthz": "ok", "/status": `"id": "a"`, "/metrics": "\nwpfs_lb_upstream_requests_total{upstream=\"a\"} 1\n",
	} {
		if code, body := get(t, base+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %q is missing in %.500s", path, code, want, body)
		}
	}
	r.must(CodeOK, "draining", "drain", "a")
	if code, body := get(t, base+"/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no upstream is up") {
		t.Errorf("without an upstream: %d %q", code, body)
	}
}

// TestAgentLB: the balancer as a role of the agent, over what nodes tell of
// themselves.
func TestAgentLB(t *testing.T) {
	note := func(addr string) []byte {
		return (&Config{Web: WebConfig{Addr: addr, Weight: 1}, Cluster: ClusterConfig{Advertise: "127.0.0.1:1"}}).note()
	}
	f := newFakeStack()
	f.notes = map[wfs.NodeID][]byte{"web1": note(webServer(t, "from web1")), "web2": []byte("{broken"), "stranger": note("127.0.0.1:1")}
	r := startTestAgent(t, f)
	if out, err := (&runningLB{t: t, socket: r.cfg.Node.Socket}).cli(CodeOther, "status"); err != nil || !strings.Contains(out, "set lb.listen") {
		t.Errorf("an agent without the role: %v %s", err, out)
	}
	f2 := newFakeStack()
	f2.notes = f.notes
	addr := freeTestAddr(t)
	r2 := startTestAgentWith(t, f2, func(c *Config) { c.LB.Listen, c.LB.HTTPS = []string{addr}, "off" })
	within(t, "a member serves", func() error {
		if _, body := get(t, "http://"+addr+"/"); body != "from web1" {
			return fmt.Errorf("%q", body)
		}
		return nil
	})
	var st lb.Status
	if err := (adminClient{r2.cfg.Node.Socket}).call(t.Context(), http.MethodGet, "/v1/lb/status", nil, &st); err != nil || len(st.Upstreams) != 1 {
		t.Errorf("%v, %+v", err, st.Upstreams)
	}
	if _, body := get(t, "http://"+r2.cfg.HTTP.Listen+"/metrics"); !strings.Contains(body, `wpfs_lb_upstream_up{state="up",upstream="web1"} 1`) {
		t.Error("the balancer's metrics are missing")
	}
}

// TestMemberSource: who is told of, who stays when gossip loses him, who goes.
func TestMemberSource(t *testing.T) {
	s := newMemberSource()
	note := func(n webNote) []byte { b, _ := json.Marshal(n); return b }
	changed := s.Changed()
	s.refresh([]string{"a", "b", "c"}, map[wfs.NodeID][]byte{"a": note(webNote{Addr: "h:1", HTTP: "h:2", Weight: 3, Zone: "z"}), "b": nil, "x": note(webNote{Addr: "h:9"})})
	want := []lb.Backend{{ID: "a", Addr: "h:1", Weight: 3, Zone: "z", Health: "http://h:2/healthz"}}
	if d := cmp.Diff(want, s.Backends()); d != "" {
		t.Error(d)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	changed = s.Changed()
	s.refresh([]string{"a", "b"}, nil)
	if d := cmp.Diff(want, s.Backends()); d != "" {
		t.Errorf("a member that gossip has lost: %s", d)
	}
	select {
	case <-changed:
		t.Error("told of a change that was none")
	default:
	}
	s.refresh([]string{"a", "b"}, map[wfs.NodeID][]byte{"a": nil, "b": note(webNote{Addr: "h:3"})})
	if got := s.Backends(); len(got) != 1 || got[0].ID != "b" {
		t.Errorf("a has no web server any more: %+v", got)
	}
	s.refresh([]string{"a"}, nil)
	if got := s.Backends(); len(got) != 0 {
		t.Errorf("b is no member any more: %+v", got)
	}
}

// TestWebNote: other nodes get addresses that they can reach.
func TestWebNote(t *testing.T) {
	for _, row := range []struct{ advertise, web, http, want string }{
		{"10.0.0.1:7480", "", "10.0.0.1:7482", ""},
		{"10.0.0.1:7480", ":80", ":7482", `{"web":"10.0.0.1:80","weight":1,"http":"10.0.0.1:7482"}`},
		{"10.0.0.1:7480", "10.0.1.1:80", "127.0.0.1:7482", `{"web":"10.0.1.1:80","weight":1}`},
		{"web1.lan:7480", "0.0.0.0:80", "", `{"web":"web1.lan:80","weight":1}`},
		{"127.0.0.2:7480", "127.0.0.2:80", "127.0.0.2:81", `{"web":"127.0.0.2:80","weight":1,"http":"127.0.0.2:81"}`},
	} {
		c := Config{Cluster: ClusterConfig{Advertise: row.advertise}, Web: WebConfig{Addr: row.web, Weight: 1}, HTTP: HTTPConfig{Listen: row.http}}
		if got := string(c.note()); got != row.want {
			t.Errorf("%+v: %s", row, got)
		}
	}
}
