package testcluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envPanics makes the test program open a session and end without closing it.
const envPanics = "TESTCLUSTER_PANICS"

func TestMain(m *testing.M) {
	GuardMain()
	if os.Getenv(envPanics) != "" {
		if err := abandon(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// abandon leaves a process and, if it may, a mount behind, prints the session's
// directory and panics.
func abandon() error {
	s, err := Open(Options{NoBinary: true})
	if err != nil {
		return err
	}
	_, token, dir, err := s.next()
	if err != nil {
		return err
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Env = append(os.Environ(), envToken+"="+token)
	if err := cmd.Start(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
	}
	fmt.Println(s.Dir)
	if err := s.guard.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	panic("the test program ends without cleaning up")
}

// The guard is told to end as well, as by somebody who ends the program by name.
func TestGuardCleansUpAfterAPanic(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envPanics+"=1")
	out, err := cmd.Output() // returns when the guard, which shares the pipe's end, has ended too
	if err == nil {
		t.Fatal("the program did not panic")
	}
	dir := strings.TrimSpace(string(out))
	if !strings.Contains(dir, "wpfs-it-") {
		t.Fatalf("no session directory in %q", out)
	}
	err = poll(20*time.Second, func() error {
		ps, err := processes(filepath.Base(dir) + ".")
		if err != nil {
			return err
		}
		ms, err := mountsBelow(dir)
		if err != nil {
			return err
		}
		_, err = os.Stat(dir)
		if len(ps)+len(ms) > 0 || !os.IsNotExist(err) {
			return fmt.Errorf("left: %v %v, directory: %v", ps, ms, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSweepSparesWhatIsNotItsOwn(t *testing.T) {
	own, other := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	own.Env = []string{envToken + "=sweep-test.1"}
	other.Env = []string{envToken + "=sweep-test2.1", "X=" + envToken + "=sweep-test.1"}
	for _, c := range []*exec.Cmd{own, other} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
	}
	// A started process shows its own environment only after exec.
	err := poll(5*time.Second, func() error {
		if ps, err := processes("sweep-test.1"); err != nil || len(ps) != 1 {
			return fmt.Errorf("found %v (%v)", ps, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- own.Wait() }()
	left, err := sweep("sweep-test.1", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || !strings.Contains(left[0], fmt.Sprint(own.Process.Pid)) {
		t.Errorf("swept %q, want only pid %d", left, own.Process.Pid)
	}
	<-done
	if err := other.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process of somebody else is gone: %v", err)
	}
}

func TestMountsBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(dir, "with space", "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", deep, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(deep, unix.MNT_DETACH)
	ms, err := mountsBelow(dir)
	if err != nil || len(ms) != 1 || ms[0] != deep {
		t.Errorf("mounts below %s: %q, %v", dir, ms, err)
	}
	if ms, err := mountsBelow(dir + "/with"); err != nil || len(ms) != 0 {
		t.Errorf("mounts below a name that only begins alike: %q, %v", ms, err)
	}
}
