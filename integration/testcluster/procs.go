package testcluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// envToken marks the processes of a cluster; its value is SESSION.NUMBER.
const envToken = "TESTCLUSTER"

// goneMax is how long killed processes may take to disappear.
const goneMax = 10 * time.Second

// Process is a live process found by its token.
type Process struct {
	PID  int
	Args string
}

func (p Process) String() string { return fmt.Sprintf("pid %d (%s)", p.PID, p.Args) }

// processes finds the live processes whose token begins with prefix.
func processes(prefix string) ([]Process, error) {
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	want := []byte(envToken + "=" + prefix)
	var ps []Process
	for _, name := range names {
		env, err := os.ReadFile(name) // fails for a process that just ended; empty for a zombie
		if err != nil {
			continue
		}
		has := slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.HasPrefix(v, want) })
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if !has || err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		ps = append(ps, Process{PID: pid, Args: strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte(" "))))})
	}
	return ps, nil
}

// mountsBelow lists the mount points at and below dir, deepest first.
func mountsBelow(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var ms []string
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 5 {
			continue
		}
		m := unescape(f[4])
		if m == dir || strings.HasPrefix(m, dir+"/") {
			ms = append(ms, m)
		}
	}
	slices.SortFunc(ms, func(a, b string) int { return len(b) - len(a) })
	return ms, sc.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// sweep ends all processes whose token begins with prefix, detaches all mounts
// below dir and reports what it found, as the leftovers of somebody who should
// have cleaned up.
func sweep(prefix, dir string) (left []string, err error) {
	ps, err := processes(prefix)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		left = append(left, p.String())
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return left, fmt.Errorf("kill %s: %w", p, err)
		}
	}
	if err := waitGone(prefix); err != nil {
		return left, err
	}
	ms, err := mountsBelow(dir)
	if err != nil {
		return left, err
	}
	for _, m := range ms {
		left = append(left, "mount "+m)
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			return left, fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	return left, nil
}

func waitGone(prefix string) error {
	deadline := time.Now().Add(goneMax)
	for {
		ps, err := processes(prefix)
		if err != nil || len(ps) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%v is still there %v after SIGKILL", ps[0], goneMax)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
