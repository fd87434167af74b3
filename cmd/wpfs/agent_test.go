package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/cache"
	wfs "github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/lb"
)

// fakeStack is a node that does nothing but remember what was asked of it.
type fakeStack struct {
	scrubbed ScrubStatus
	ready    chan struct{}
	die      chan error    // Run returns what comes
	hang     chan struct{} // Drain waits for it if not nil
	drainErr error
	unfit    bool
	notes    map[wfs.NodeID][]byte

	mu    sync.Mutex
	calls []string
}

func newFakeStack() *fakeStack {
	return &fakeStack{ready: make(chan struct{}), die: make(chan error, 1)}
}

func (f *fakeStack) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
}

func (f *fakeStack) Run(ctx context.Context) error {
	close(f.ready)
	select {
	case <-ctx.Done():
		f.note("closed")
		return nil
	case err := <-f.die:
		return err
	}
}

func (f *fakeStack) Drain(context.Context) error {
	f.note("drain")
	if f.hang != nil {
		<-f.hang
	}
	return f.drainErr
}

func (f *fakeStack) Leave(context.Context) error { f.note("leave"); return nil }
func (f *fakeStack) Scrub(rate int64)            { f.note(fmt.Sprint("scrub at ", rate)) }
func (f *fakeStack) Scrubbed() ScrubStatus       { return f.scrubbed }
func (f *fakeStack) Abandon()                    { f.note("abandon") }
func (f *fakeStack) Ready() <-chan struct{}      { return f.ready }
func (f *fakeStack) Collect(_ context.Context, dryRun bool) (json.RawMessage, error) {
	f.note(fmt.Sprint("collect, dry run ", dryRun))
	if f.unfit {
		return nil, errors.New("no leader is known")
	}
	return json.Marshal(cache.Report{DryRun: dryRun, Chunks: 10, Packs: cache.Amount{Count: 2, Bytes: 8 << 20}, LiveBytes: 4 << 20,
		Dead: cache.Amount{Count: 3, Bytes: 3 << 10}, Orphaned: cache.Amount{Count: 1, Bytes: 1 << 20}})
}
func (f *fakeStack) Status() Status {
	return Status{Node: "web1", Mount: MountStatus{Path: "/srv", Live: true},
		Cluster: ClusterStatus{Name: "shop", Role: "leader", Leader: "web1", Term: 3, Applied: 9, Stable: 8, LeaseValid: !f.unfit, LeaseLeftMS: 2000, Members: 3}}
}
func (f *fakeStack) WebNotes() ([]string, map[wfs.NodeID][]byte) {
	return []string{"web1", "web2"}, f.notes
}
func (f *fakeStack) Store() lb.Store { return nil }
func (f *fakeStack) Members() []Member {
	return []Member{{ID: "web1", Addr: "10.0.0.1:7480", Role: "leader", Lease: "held", Alive: true, Local: true}}
}

// runningAgent is an agent with a fake node.
type runningAgent struct {
	cfg     Config
	stack   *fakeStack
	signals chan os.Signal
	ended   chan error
}

func startTestAgent(t *testing.T, f *fakeStack) *runningAgent {
	t.Helper()
	return startTestAgentWith(t, f, func(*Config) {})
}

// startTestAgentWith lets change set what it likes.
func startTestAgentWith(t *testing.T, f *fakeStack, change func(*Config)) *runningAgent {
	t.Helper()
	dir := t.TempDir()
	r := &runningAgent{stack: f, signals: make(chan os.Signal, 2), ended: make(chan error, 1)}
	r.cfg = defaultConfig()
	r.cfg.Node = NodeConfig{ID: "web1", DataDir: dir, Socket: filepath.Join(dir, "admin.sock")}
	r.cfg.Cluster.Peers = []Peer{{ID: "web1", Addr: "127.0.0.1:1"}}
	r.cfg.HTTP.Listen = freeTestAddr(t)
	change(&r.cfg)
	open := func(Config, *slog.Logger, prometheus.Registerer) (stack, error) { return f, nil }
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.ended <- runAgent(context.Background(), r.cfg, slog.New(slog.DiscardHandler), r.signals, open, func() (Config, error) { return r.cfg, nil })
	}()
	t.Cleanup(func() {
		if f.hang != nil {
			close(f.hang)
		}
		select {
		case r.signals <- syscall.SIGTERM:
		default:
		}
		select {
		case <-gone: // what it still says must not be heard by the next test
		case <-time.After(20 * time.Second):
			t.Error("the agent does not end")
		}
	})
	within(t, "the agent serves", func() error {
		var st Status
		err := adminClient{r.cfg.Node.Socket}.call(t.Context(), http.MethodGet, "/v1/status", nil, &st)
		if err == nil && !st.Healthy && !f.unfit {
			err = errors.New(strings.Join(st.Reasons, ", "))
		}
		return err
	})
	return r
}

func freeTestAddr(t *testing.T) string {
	t.Helper()
	a, err := freeAddr("127.0.0.1", map[string]bool{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// within waits until f returns nil.
func within(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s: %v", what, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *runningAgent) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the agent did not end")
		return nil
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestAgentStopsInOrder(t *testing.T) {
	f := newFakeStack()
	r := startTestAgent(t, f)
	r.signals <- syscall.SIGTERM
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
	if want := []string{"drain", "leave", "closed"}; !slices.Equal(f.calls, want) {
		t.Errorf("the node was asked for %q, want %q", f.calls, want)
	}
	if _, err := os.Stat(r.cfg.Node.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is still there: %v", err)
	}
}

func TestAgentIsUnhealthyWhileItDrains(t *testing.T) {
	f := newFakeStack()
	f.hang = make(chan struct{})
	r := startTestAgent(t, f)
	r.signals <- syscall.SIGTERM
	within(t, "healthz says 503", func() error {
		code, body := get(t, "http://"+r.cfg.HTTP.Listen+"/healthz")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
			return errors.New(body)
		}
		return nil
	})
	// A second signal does not wait for the drain, which hangs.
	r.signals <- syscall.SIGINT
	if got := codeOf(r.wait(t)); got != 130 {
		t.Errorf("exit code %d, want 130", got)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.calls, "abandon") || slices.Contains(f.calls, "leave") {
		t.Errorf("after the second signal the node was asked for %q", f.calls)
	}
}

func TestAgentEndsWithItsNode(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want Code
	}{
		"a fault":     {errors.New("boom"), CodeUnhealthy},
		"a full disk": {&os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}, CodeDiskFull},
		"no error":    {nil, CodeUnhealthy},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeStack()
			r := startTestAgent(t, f)
			f.die <- row.err
			if err := r.wait(t); codeOf(err) != row.want {
				t.Errorf("exit code %d, want %d: %v", codeOf(err), row.want, err)
			}
			if !slices.Contains(f.calls, "abandon") {
				t.Errorf("the mount was not taken away: %q", f.calls)
			}
		})
	}
}

func TestAgentSaysWhatItCouldNotPublish(t *testing.T) {
	f := newFakeStack()
	f.drainErr = errors.New("inode 7: no leader")
	r := startTestAgent(t, f)
	r.signals <- syscall.SIGTERM
	err := r.wait(t)
	if codeOf(err) != CodeUnhealthy || !strings.Contains(err.Error(), "inode 7") {
		t.Errorf("got code %d, %v", codeOf(err), err)
	}
	if want := []string{"drain", "abandon", "leave", "closed"}; !slices.Equal(f.calls, want) {
		t.Errorf("the node was asked for %q, want %q", f.calls, want)
	}
}

func TestAgentPortsInUse(t *testing.T) {
	r := startTestAgent(t, newFakeStack())
	open := func(Config, *slog.Logger, prometheus.Registerer) (stack, error) {
		t.Error("the data was opened although a port is in use")
		return nil, errors.New("opened")
	}
	for name, row := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"http":   {func(c *Config) { c.Node.Socket = filepath.Join(t.TempDir(), "s") }, "http.listen"},
		"socket": {func(c *Config) { c.HTTP.Listen = "" }, "node.socket"},
		"address of another machine": {func(c *Config) {
			c.Node.Socket, c.HTTP.Listen = filepath.Join(t.TempDir(), "s"), "192.0.2.1:80"
		}, "http.listen"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := r.cfg
			row.change(&cfg)
			err := runAgent(t.Context(), cfg, slog.New(slog.DiscardHandler), nil, open, nil)
			if codeOf(err) != CodePort || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got code %d, %v", codeOf(err), err)
			}
		})
	}
	if _, err := dialUnix(t.Context(), r.cfg.Node.Socket); err != nil {
		t.Errorf("the first agent's socket is gone: %v", err)
	}
}

func TestAgentTellsSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	next := func() string {
		l.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	r := startTestAgent(t, newFakeStack())
	if got := next(); got != notifyReady {
		t.Errorf("first %q", got)
	}
	r.signals <- syscall.SIGTERM
	if got := next(); got != notifyStopping {
		t.Errorf("then %q", got)
	}
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}

// TestGC asks the agent for rounds, dry and real, and prints them.
func TestGC(t *testing.T) {
	f := newFakeStack()
	r := startTestAgent(t, f)
	for _, row := range []struct {
		dry       bool
		has, lack string
	}{
		{true, "3 chunks, 3.0 KiB, to be condemned", "moved"},
		{false, "1 objects, 1.0 MiB, condemned now", "to be"},
	} {
		var out bytes.Buffer
		o := gcOptions{agentOptions{r.cfg.Node.Socket, outputText}, row.dry}
		if err := runGC(t.Context(), o, stdio{Out: &out}); err != nil {
			t.Fatal(err)
		}
		if s := out.String(); !strings.Contains(s, row.has) || strings.Contains(s, row.lack) || !strings.Contains(s, "2 packs, 8.0 MiB, 4.0 MiB of it live") {
			t.Errorf("dry run %t:\n%s", row.dry, s)
		}
		f.mu.Lock()
		if want := fmt.Sprint("collect, dry run ", row.dry); f.calls[len(f.calls)-1] != want {
			t.Errorf("calls %q, want %q", f.calls, want)
		}
		f.mu.Unlock()
	}
	var out bytes.Buffer
	if err := runGC(t.Context(), gcOptions{agentOptions{r.cfg.Node.Socket, outputJSON}, true}, stdio{Out: &out}); err != nil {
		t.Fatal(err)
	}
	var report cache.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil || report.Dead.Count != 3 || !report.DryRun {
		t.Errorf("%+v, %v", report, err)
	}
	f.unfit = true
	if err := runGC(t.Context(), gcOptions{agentOptions{r.cfg.Node.Socket, outputText}, true}, stdio{Out: &out}); err == nil || !strings.Contains(err.Error(), "no leader is known") {
		t.Errorf("without a leader: %v", err)
	}
}

// TestRiskyFilesAreNamed: some to people, all to scripts.
func TestRiskyFilesAreNamed(t *testing.T) {
	r := RiskStatus{Chunks: 15, Away: []string{"web1", "web2"}}
	if len(riskRows(RiskStatus{})) != 0 {
		t.Error("something is said of nothing")
	}
	for i := range 12 {
		r.Files = append(r.Files, RiskyFile{Path: fmt.Sprint("uploads/", i, ".jpg"), Bytes: 4096})
	}
	var out bytes.Buffer
	if err := columns(&out, riskRows(r)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"15 chunks", "bring back web1, web2", "uploads/0.jpg (4.0 KiB)", "and 2 more"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "uploads/10.jpg") {
		t.Error("too many are named")
	}
}
