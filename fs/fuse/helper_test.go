package fuse_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/fuse"
)

// helperVar names the helper that a copy of the test binary is to run instead
// of the tests. System calls that would block the Go runtime which has to answer
// them (mmap, exec) are made there.
const helperVar = "WPFS_TEST_HELPER"

// helperLimit is how long a helper may run.
const helperLimit = 2 * time.Minute

var helpers = map[string]func(args []string) error{
	"fsx":       fsxHelper,
	"exec":      execHelper,
	"mapped":    mappedHelper,
	"mount":     mountHelper,
	"user":      userHelper,
	"interrupt": interruptHelper,
	"truncate":  truncateHelper,
	"janitor":   janitorHelper,
	"asker":     func([]string) error { return fuse.Ask() },
	"asking":    askingHelper,
}

func TestMain(m *testing.M) {
	name := os.Getenv(helperVar)
	if name == "" {
		stop, err := startJanitor()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code := m.Run()
		stop()
		os.Exit(code)
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// command is a helper, not started yet.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperVar+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// askerHelper is the process that asks the kernel.
func askerHelper() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVar+"=asker")
	return cmd
}

// help runs a helper to its end and returns what it printed.
func help(t testing.TB, name string, args ...string) string {
	t.Helper()
	return helpAs(t, 0, name, args...)
}

// helpAs runs a helper as another user.
func helpAs(t testing.TB, uid uint32, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), helperLimit)
	defer cancel()
	cmd := command(ctx, name, args...)
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("helper %s %q: %v\n%s", name, args, err, out.Bytes())
	}
	return out.String()
}

// janitor is told of every directory that a test mounts on.
var janitor io.Writer

// startJanitor starts a process that outlives this one, however it ends, by as
// long as it takes to remove what is still mounted then.
func startJanitor() (stop func(), err error) {
	cmd := command(context.Background(), "janitor", strconv.Itoa(os.Getpid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	janitor = in
	return func() {
		_ = in.Close()
		_ = cmd.Wait() // what it could not unmount was not mounted
	}, nil
}

// janitorHelper removes the mounts that it is told of when the process that
// started it ends. That process cannot end while a thread of it waits for an
// answer from a mount of its own; so it counts as ended once it is killed, and
// its mounts are cut off.
func janitorHelper(args []string) error {
	told := make(chan string)
	go func() {
		defer close(told)
		list := bufio.NewScanner(os.Stdin)
		for list.Scan() {
			told <- list.Text()
		}
	}()
	var dirs []string
	for open := true; open && !killed(args[0]); {
		var dir string
		select {
		case dir, open = <-told:
			dirs = append(dirs, dir)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return removeMounts(dirs)
}

// killed tells whether a process is gone, or would be if its threads let it.
func killed(pid string) bool {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd":
			if set, err := strconv.ParseUint(value, 16, 64); err == nil && set>>(syscall.SIGKILL-1)&1 != 0 {
				return true
			}
		}
	}
	return false
}

func removeMounts(dirs []string) (err error) {
	for _, dir := range dirs {
		if dir == "" {
			continue // the end of the list
		}
		err = errors.Join(err, fuse.Abort(dir))
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
			continue // until nothing is mounted there
		}
	}
	return err
}

// mountDir is a directory for a test to mount on.
func mountDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := fmt.Fprintln(janitor, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
