// Package integration tests wpfs from outside: system calls on real mounts of
// several agents, each a process, killed and stopped as processes are.
package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// The run of this test program. The session is opened by the first test that
// mounts something, so that the others need neither root nor a built binary.
var (
	opened  sync.Once
	session *testcluster.Session
	openErr error
)

func TestMain(m *testing.M) {
	probe.Main()
	testcluster.GuardMain()
	code := m.Run()
	if session != nil {
		if err := session.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// mounts makes sure that file systems can be mounted here and that the session
// is open. Without root or /dev/fuse it fails the test in CI and skips it elsewhere.
func mounts(t testing.TB) {
	t.Helper()
	need(t, mountable())
	opened.Do(func() {
		dir, err := moduleDir()
		if err != nil {
			openErr = err
			return
		}
		session, openErr = testcluster.Open(testcluster.Options{Module: dir})
	})
	if openErr != nil {
		t.Fatal(openErr)
	}
}

func moduleDir() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// mountable says what is missing to mount a file system here.
func mountable() error {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("mounting needs /dev/fuse: %w", err)
	}
	return f.Close()
}

// need fails the test in CI and skips it elsewhere if err is not nil.
func need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI must be able to run this: %v", err)
	default:
		t.Skipf("cannot run here: %v", err)
	}
}

// envScale multiplies the number of trials and the duration of long tests.
const envScale = "WPFS_TEST_SCALE"

// scaled is n times the scale, at least 1. The scale is 1 unless it is set in
// the environment, and a seventh of that with -short.
func scaled(t testing.TB, n int) int {
	t.Helper()
	f := 1.0
	if s := os.Getenv(envScale); s != "" {
		var err error
		if f, err = strconv.ParseFloat(s, 64); err != nil || f <= 0 {
			t.Fatalf("%s=%q is no positive number", envScale, s)
		}
	}
	if testing.Short() {
		f /= 7
	}
	return max(1, int(float64(n)*f))
}

// start starts a cluster and one probe for each of its nodes.
func start(t *testing.T, o testcluster.Config) (*testcluster.Cluster, []*probe.Client) {
	t.Helper()
	mounts(t)
	c := session.StartFor(t, o)
	var ps []*probe.Client
	var pids []int
	for _, n := range c.Nodes {
		p := startProbe(t, n.ID)
		ps, pids = append(ps, p), append(pids, p.PID())
	}
	dumped := false // by the detector's goroutine only
	d := testcluster.DetectHangs(stuckAfter, func(h testcluster.Hang) {
		t.Logf("a call hangs: %v", h)
		if !dumped {
			dumped = true
			c.Stacks(t)
		}
	}, pids...)
	t.Cleanup(func() { d.Stop() })
	return c, ps
}

// stuckAfter is how long no call takes, not even under the faults that tests
// inject. What hangs longer gets the agents' stacks into the log.
const stuckAfter = 15 * time.Second

func startProbe(t *testing.T, name string) *probe.Client {
	t.Helper()
	p, err := probe.Start(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// must fails the test if any of the operations does.
func must(t testing.TB, p *probe.Client, ops ...probe.Op) []probe.Result {
	t.Helper()
	rs := p.Do(ops...)
	for _, r := range rs {
		if err := r.Err(); err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
	}
	return rs
}

// command runs a program and fails the test with its output if it fails.
func command(t testing.TB, ctx context.Context, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
