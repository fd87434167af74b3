package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// TestDevEndsCleanly ends wpfs dev by each signal while files are open and
// dirty, and starts it again on the same directory with the same data.
func TestDevEndsCleanly(t *testing.T) {
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			c, ps := start(t, testcluster.Config{})
			want := plant(t, c, ps)
			// Written but not closed: whether it is kept is open, but it must not
			// hold the end up.
			must(t, ps[1], probe.Open(1, filepath.Join(c.Nodes[1].Mount, "dirty"), unix.O_WRONLY|unix.O_CREAT, 0o644), probe.Write(1, []byte("dirty")))
			if err := c.Signal(sig); err != nil {
				t.Errorf("wpfs dev after %v: %v", sig, err)
			}
			left, err := c.Leftovers()
			if err != nil {
				t.Fatal(err)
			}
			if len(left) > 0 {
				t.Fatalf("after %v there still are: %s", sig, strings.Join(left, ", "))
			}
			if _, err := os.Stat(filepath.Join(c.Dir, "dev.json")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("dev.json is there although nothing runs: %v", err)
			}
			ps[1].Call(probe.Close(1)) // on a mount that is gone: any outcome
			again(t, c, ps, want)
		})
	}
}

// TestDevKilled kills wpfs dev itself. Its agents die with it, and a second
// start goes on with the same data in spite of the mounts they left.
func TestDevKilled(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	want := plant(t, c, ps)
	var exit *exec.ExitError
	if err := c.Signal(unix.SIGKILL); !errors.As(err, &exit) {
		t.Fatalf("wpfs dev ended with %v", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, n := range c.Nodes {
		for unix.Kill(n.PID, 0) == nil && !isZombie(n.PID) {
			if time.Now().After(deadline) {
				t.Fatalf("%s outlives wpfs dev", n.ID)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	again(t, c, ps, want)
}

// isZombie: an orphan that has ended stays visible until init has waited for it.
func isZombie(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(b), ") Z ")
}

// plant makes some files and lists them.
func plant(t *testing.T, c *testcluster.Cluster, ps []*probe.Client) []tree.Entry {
	t.Helper()
	m := c.Nodes[0].Mount
	must(t, ps[0], probe.Mkdir(filepath.Join(m, "d")), probe.WriteFile(filepath.Join(m, "d/small"), []byte("small")),
		probe.Fill(filepath.Join(m, "d/large"), 6<<20, 9), probe.Symlink("small", filepath.Join(m, "d/link")))
	return sameTrees(t, c, ps, "d")
}

// again starts the cluster once more and compares.
func again(t *testing.T, c *testcluster.Cluster, ps []*probe.Client, want []tree.Entry) {
	t.Helper()
	if err := c.Up(); err != nil {
		t.Fatal(err)
	}
	for i, n := range c.Nodes {
		equal(t, n.ID+" after the second start", want, scan(t, n, ps[i], "d"), tree.Views)
	}
	must(t, ps[2], probe.WriteFile(filepath.Join(c.Nodes[2].Mount, "d/new"), []byte("new")))
	sameTrees(t, c, ps, "d")
}
