package testcluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

// envGuard makes a process the guard of the session TOKEN:DIR.
const envGuard = "TESTCLUSTER_GUARD"

// guard is the process that cleans up when this one is gone.
type guard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// GuardMain serves as a guard and ends the process if it was started as one,
// and returns at once if not. Call it first in main or TestMain.
func GuardMain() {
	v := os.Getenv(envGuard)
	if v == "" {
		return
	}
	// Whoever ends the test program by name or by group means this one too, but
	// then it is needed most. It ends when its work is done.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	fmt.Println("ready")
	token, dir, _ := strings.Cut(v, ":")
	// The read returns when the session's process has closed the pipe, by
	// Close or by ending in whatever way.
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
	}
	left, err := sweep(token+".", dir)
	if len(left) > 0 {
		fmt.Fprintf(os.Stderr, "guard: cleaned up %s\n", strings.Join(left, ", "))
	}
	if rerr := os.RemoveAll(dir); rerr != nil {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func startGuard(token, dir string) (*guard, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envGuard+"="+token+":"+dir)
	// A group of its own: Ctrl-C at the terminal must not end the guard first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("start guard: it does not get ready: %w", err)
	}
	return &guard{cmd: cmd, in: in}, nil
}

// Close lets the guard clean up and waits for it.
func (g *guard) Close() error {
	g.in.Close()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}
