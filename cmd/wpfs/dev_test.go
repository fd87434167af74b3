package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// devRun is a wpfs dev as a process: this test binary, which TestMain turns into
// wpfs, and so are its agents.
type devRun struct {
	t        *testing.T
	dir      string
	cmd      *exec.Cmd
	out      bytes.Buffer
	ended    chan error
	finished bool
}

func startDev(t *testing.T, dir string, args ...string) *devRun {
	t.Helper()
	needRoot(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &devRun{t: t, dir: dir, ended: make(chan error, 1)}
	d.cmd = exec.Command(exe, append([]string{"dev", "--dir", dir}, args...)...)
	d.cmd.Env = append(os.Environ(), "WPFS_TEST_BE_WPFS=1")
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	t.Cleanup(func() {
		if !d.finished {
			d.cmd.Process.Signal(syscall.SIGTERM)
			d.code()
		}
	})
	return d
}

// code waits for the end and tells the exit code, or -1 after a signal.
func (d *devRun) code() int {
	d.t.Helper()
	select {
	case <-d.ended:
		d.finished = true
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		d.cmd.Process.Kill()
		d.t.Fatalf("wpfs dev did not end\n%s", &d.out)
		return 0
	}
}

// nodes waits for dev.json with n running nodes.
func (d *devRun) nodes(n int) []devJSONNode {
	d.t.Helper()
	var j devJSON
	within(d.t, "dev.json", func() error {
		b, err := os.ReadFile(filepath.Join(d.dir, devJSONFile))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &j); err != nil {
			return err
		}
		if len(j.Nodes) != n {
			return errors.New("not all nodes yet")
		}
		return nil
	})
	return j.Nodes
}

// clean checks that nothing of the cluster runs or is mounted.
func (d *devRun) clean(nodes []devJSONNode) {
	d.t.Helper()
	for _, n := range nodes {
		if kind := mountedOn(n.Mount); kind != "" {
			d.t.Errorf("%s: a mount of type %s is left", n.ID, kind)
		}
		if n.PID != 0 && !errors.Is(syscall.Kill(n.PID, 0), syscall.ESRCH) {
			d.t.Errorf("%s: process %d is left", n.ID, n.PID)
		}
	}
	for _, f := range []string{devJSONFile, devSocketFile} {
		if _, err := os.Stat(filepath.Join(d.dir, f)); err == nil {
			d.t.Errorf("%s is left", f)
		}
	}
}

func devNodeCmd(t *testing.T, dir string, args ...string) (Code, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), append(append([]string{"dev-node"}, args...), "--dir", dir), stdio{nil, &out, &out})
	return code, out.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func reads(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s holds %q, %v; want %q", path, b, err, want)
	}
}

// TestDevLife is one directory through its life: started, killed in parts,
// stopped, killed as a whole, started again, grown.
func TestDevLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	d := startDev(t, dir)
	nodes := d.nodes(3)
	write(t, filepath.Join(nodes[0].Mount, "a"), "first")
	reads(t, filepath.Join(nodes[2].Mount, "a"), "first")

	t.Run("a killed agent is noticed and started again", func(t *testing.T) {
		syscall.Kill(nodes[1].PID, syscall.SIGKILL)
		within(t, "dev.json without the process", func() error {
			if d.nodes(3)[1].PID != 0 {
				return errors.New("still has it")
			}
			return nil
		})
		if code, out := devNodeCmd(t, dir, "list"); code != 0 || !strings.Contains(out, "signal: killed") {
			t.Errorf("list: %d, %s", code, out)
		}
		if code, out := devNodeCmd(t, dir, "start", "2"); code != 0 {
			t.Fatalf("start: %d, %s", code, out)
		}
		reads(t, filepath.Join(nodes[1].Mount, "a"), "first")
		if pid := d.nodes(3)[1].PID; pid == 0 || pid == nodes[1].PID {
			t.Errorf("dev.json has process %d", pid)
		}
	})
	t.Run("a node is stopped by its id", func(t *testing.T) {
		if code, out := devNodeCmd(t, dir, "stop", "node3"); code != 0 || !strings.Contains(out, "exit status 0") {
			t.Errorf("stop: %d, %s", code, out)
		}
		if kind := mountedOn(nodes[2].Mount); kind != "" {
			t.Errorf("its mount is left")
		}
		if code, out := devNodeCmd(t, dir, "start", "3"); code != 0 {
			t.Errorf("start: %d, %s", code, out)
		}
	})
	t.Run("what is wrong is said", func(t *testing.T) {
		for _, row := range []struct{ do, node, want string }{{"kill", "9", `no node "9"`}, {"stop", "web1", `no node "web1"`}} {
			if code, out := devNodeCmd(t, dir, row.do, row.node); code != CodeOther || !strings.Contains(out, row.want) {
				t.Errorf("%s %s: %d, %s", row.do, row.node, code, out)
			}
		}
	})
	t.Run("SIGTERM leaves nothing", func(t *testing.T) {
		nodes = d.nodes(3)
		d.cmd.Process.Signal(syscall.SIGTERM)
		if code := d.code(); code != 0 {
			t.Errorf("exit code %d\n%s", code, &d.out)
		}
		d.clean(nodes)
	})
	t.Run("kill -9 takes the agents along, the next start cleans up", func(t *testing.T) {
		d := startDev(t, dir)
		nodes := d.nodes(3)
		reads(t, filepath.Join(nodes[1].Mount, "a"), "first")
		write(t, filepath.Join(nodes[1].Mount, "b"), "second")
		d.cmd.Process.Kill()
		d.code()
		within(t, "the agents end", func() error {
			for _, n := range nodes {
				if !errors.Is(syscall.Kill(n.PID, 0), syscall.ESRCH) {
					return errors.New(n.ID + " runs")
				}
			}
			return nil
		})
	})
	t.Run("more nodes, and a command", func(t *testing.T) {
		d := startDev(t, dir, "--nodes", "4", "--", "sh", "-c", `cat "$0/node4/mnt/b" && test "$WPFS_DEV_JSON" = "$0/dev.json" && exit 42`, dir)
		if code := d.code(); code != 42 || !strings.Contains(d.out.String(), "second") {
			t.Errorf("exit code %d\n%s", code, &d.out)
		}
		d.clean(nodes)
	})
}

func TestDevCommandEnds(t *testing.T) {
	for name, row := range map[string]struct {
		cmd    []string
		signal syscall.Signal
		want   int
	}{
		"not found":           {[]string{"no-such-program"}, 0, 127},
		"ended by a signal":   {[]string{"sh", "-c", "kill -KILL $$"}, 0, 137},
		"told to stop":        {[]string{"sh", "-c", "trap 'exit 5' TERM; touch $0/up; while :; do sleep 0.05; done"}, syscall.SIGTERM, 5},
		"told to stop rudely": {[]string{"sh", "-c", "touch $0/up; exec sleep 1000"}, syscall.SIGINT, 130},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := startDev(t, dir, append([]string{"--nodes", "1", "--"}, append(row.cmd, dir)...)...)
			if row.signal != 0 {
				within(t, "the command runs", func() error { _, err := os.Stat(filepath.Join(dir, "up")); return err })
				d.cmd.Process.Signal(row.signal)
			}
			if code := d.code(); code != row.want {
				t.Errorf("exit code %d, want %d\n%s", code, row.want, &d.out)
			}
			d.clean([]devJSONNode{{ID: "node1", Mount: filepath.Join(dir, "node1", "mnt")}})
		})
	}
}

// TestDevPassesAgentsRefusalOn: the code and the sentence of an agent that does
// not start are those of wpfs dev.
func TestDevPassesAgentsRefusalOn(t *testing.T) {
	dir := t.TempDir()
	plan := fitted(t, dir, 1, "")
	r := startTestAgent(t, newFakeStack()) // has a port
	plan.Nodes[0].HTTP = r.cfg.HTTP.Listen
	if err := plan.save(dir); err != nil {
		t.Fatal(err)
	}
	d := startDev(t, dir)
	if code := d.code(); code != int(CodePort) || !strings.Contains(d.out.String(), "http.listen") {
		t.Errorf("exit code %d\n%s", code, &d.out)
	}
}
