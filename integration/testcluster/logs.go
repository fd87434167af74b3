package testcluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// logShown is how much of each log a failed test prints.
const logShown = 3 << 10

// crashes are the first words of what the Go runtime says when a program has a
// fault that no error value carries.
var crashes = [][]byte{[]byte("\npanic: "), []byte("\nfatal error: "), []byte("WARNING: DATA RACE")}

// crashed finds such words in the agents' logs.
func (c *Cluster) crashed() error {
	logs, err := c.logs()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range logs {
		b, err := os.ReadFile(l)
		if err != nil {
			return err
		}
		for _, w := range crashes {
			if i := bytes.Index(b, w); i >= 0 {
				errs = append(errs, fmt.Errorf("%s: %s", l, b[i:min(len(b), i+logShown)]))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) logs() ([]string, error) {
	logs, err := filepath.Glob(filepath.Join(c.Dir, "node*", "agent.log"))
	return append(logs, filepath.Join(c.top, "dev.log")), err
}

// keepLogs prints the ends of the cluster's logs, and copies them whole to the
// directory that EnvKeep names.
func (c *Cluster) keepLogs(t testing.TB) {
	t.Helper()
	logs, err := c.logs()
	if err != nil {
		t.Error(err)
		return
	}
	for _, l := range logs {
		t.Logf("the end of %s:\n%s", l, tail(l, logShown))
	}
	to := os.Getenv(EnvKeep)
	if to == "" {
		return
	}
	to = filepath.Join(to, regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "_"))
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Error(err)
		return
	}
	for _, l := range logs {
		name := filepath.Base(filepath.Dir(l)) + "-" + filepath.Base(l)
		if err := copyFile(filepath.Join(to, name), l); err != nil {
			t.Error(err)
		}
	}
	t.Logf("the logs are in %s", to)
}

// Stacks writes status and goroutines of all agents that answer to the test's
// log: what is needed to understand a hang.
func (c *Cluster) Stacks(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		if b, _, err := n.Get("/status"); err != nil {
			t.Logf("%s: no status to be had: %v", n.ID, err)
		} else {
			t.Logf("status of %s: %s", n.ID, b)
		}
		b, code, err := n.Get("/debug/pprof/goroutine?debug=2")
		if err != nil || code != 200 {
			t.Logf("%s: no goroutines to be had: %v, status %d", n.ID, err, code)
			continue
		}
		t.Logf("goroutines of %s:\n%s", n.ID, b)
	}
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// tail is the last n bytes of a file, or why there are none.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("  %s", bytes.ReplaceAll(bytes.TrimSpace(b), []byte("\n"), []byte("\n  ")))
}
