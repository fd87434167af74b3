package testcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Node is one agent of a cluster.
type Node struct {
	ID, Mount, Socket, HTTP string
	Web                     string // host:port for its web server, with a balancer
	PID                     int    // 0 while it does not run

	c      *Cluster
	paused bool
}

// Status is the part of /status that tests look at.
type Status struct {
	Healthy  bool
	Reasons  []string
	Warnings []string
	Cluster  struct {
		Role, Leader string
		Term         uint64
		Applied      uint64 `json:"applied_index"`
		Stable       uint64 `json:"stable_index"`
		LeaseValid   bool   `json:"lease_valid"`
		Members      int
	}
	Content struct {
		CacheBytes   int64 `json:"cache_bytes"`
		CacheChunks  int64 `json:"cache_chunks"`
		UploadChunks int64 `json:"upload_chunks"`
		UploadBytes  int64 `json:"upload_bytes"`

		CachePressure   float64 `json:"cache_pressure"`
		Evicted         uint64  `json:"cache_evicted"`
		ObjectSuspended bool    `json:"object_suspended"`
	}
	Archive struct {
		Shipping bool
		LagS     float64 `json:"lag_s"`
		Fenced   string
		Error    string
	}
}

// httpMax is how long an agent may take to answer a question about itself.
const httpMax = 5 * time.Second

// Status asks the agent.
func (n *Node) Status() (Status, error) {
	var st Status
	b, _, err := n.Get("/status")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("%s: /status: %w", n.ID, err)
	}
	return st, nil
}

// Get asks the agent's HTTP address and returns body and status code.
func (n *Node) Get(path string) ([]byte, int, error) {
	hc := http.Client{Timeout: httpMax, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := hc.Get(n.HTTP + path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", n.ID, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return b, res.StatusCode, err
}

// WaitHealthy waits until the node says that it is.
func (n *Node) WaitHealthy(limit time.Duration) error {
	return poll(limit, func() error {
		b, code, err := n.Get("/healthz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%s is not healthy: %s", n.ID, b)
		}
		return err
	})
}

// countMax is more than the time from one count of the upload backlog to the end of
// the next.
const countMax = 1500 * time.Millisecond

// WaitDurable waits until the object store has all content: until a count of the
// backlog that was begun after the call says so.
func (n *Node) WaitDurable(limit time.Duration) error {
	counted := time.Now().Add(countMax)
	return poll(limit, func() error {
		st, err := n.Status()
		switch {
		case err != nil:
			return err
		case st.Content.UploadChunks > 0:
			counted = time.Now().Add(countMax)
			return fmt.Errorf("%s still has %d chunks to upload", n.ID, st.Content.UploadChunks)
		case time.Now().Before(counted):
			return fmt.Errorf("%s has not counted its backlog yet", n.ID)
		}
		return nil
	})
}

// WaitShipped waits until the bucket has the metadata as it was at a time.
func (n *Node) WaitShipped(at time.Time, limit time.Duration) error {
	return poll(limit, func() error {
		st, err := n.Status()
		if a := st.Archive; err == nil && (!a.Shipping || a.LagS == 0 || time.Since(at).Seconds() < a.LagS) {
			err = fmt.Errorf("%s: shipping %t, %.1f s behind (%s)", n.ID, a.Shipping, a.LagS, a.Error)
		}
		return err
	})
}

// Kill is kill -9: the agent has no time to do anything.
func (n *Node) Kill() error {
	if err := n.signal(syscall.SIGKILL); err != nil {
		return err
	}
	pid := n.PID
	n.PID, n.paused = 0, false
	return poll(goneMax, func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("%s is still there (%v)", n.ID, err)
		}
		return nil
	})
}

// Stop stops the agent in good order.
func (n *Node) Stop() error { return n.c.devNode("stop", n.ID) }

// Start starts a stopped or killed agent and returns when it is healthy.
func (n *Node) Start() error { return n.c.devNode("start", n.ID) }

// Pause freezes the agent with SIGSTOP.
func (n *Node) Pause() error {
	n.paused = true
	return n.signal(syscall.SIGSTOP)
}

// Resume lets it go on with SIGCONT.
func (n *Node) Resume() error {
	n.paused = false
	return n.signal(syscall.SIGCONT)
}

// signal refuses a node that does not run: kill(2) takes 0 for the caller's
// whole process group.
func (n *Node) signal(sig syscall.Signal) error {
	if n.PID <= 0 {
		return fmt.Errorf("%v for %s, which does not run", sig, n.ID)
	}
	if err := syscall.Kill(n.PID, sig); err != nil {
		return fmt.Errorf("%v for %s: %w", sig, n.ID, err)
	}
	return nil
}

// PeakRSS is the most memory, in bytes, that the agent ever had resident.
func (n *Node) PeakRSS() (int64, error) {
	var kib int64
	for line := range strings.SplitSeq(readTrim(fmt.Sprintf("/proc/%d/status", n.PID)), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, fmt.Errorf("%s: %q: %w", n.ID, line, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("%s: no VmHWM of process %d", n.ID, n.PID)
}

// userHZ is the unit of times in /proc: Linux has shown a hundredth of a second
// to programs on all machines for as long as we care about.
const userHZ = 100

// CPUTime is what the agent has used of the processors since it started, in
// user mode and in the kernel.
func (n *Node) CPUTime() (time.Duration, error) {
	d, err := cpuTime(readTrim(fmt.Sprintf("/proc/%d/stat", n.PID)))
	if err != nil {
		return 0, fmt.Errorf("%s: process %d: %w", n.ID, n.PID, err)
	}
	return d, nil
}

// cpuTime reads utime and stime, the 14th and 15th field. The second one is the
// program's name, which may have blanks and parentheses in it.
func cpuTime(stat string) (time.Duration, error) {
	f := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("stat: %q has no times", stat)
	}
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, fmt.Errorf("stat: %q: %w", stat, err)
	}
	return time.Duration(user+system) * time.Second / userHZ, nil
}

// Data is the node's data directory.
func (n *Node) Data() string { return filepath.Join(n.c.Dir, n.ID, "data") }

// Cache is the directory of the node's content.
func (n *Node) Cache() string { return filepath.Join(n.Data(), "cache") }

// ConfigFile is the agent's configuration.
func (n *Node) ConfigFile() string { return filepath.Join(n.c.Dir, n.ID, "wpfs.yaml") }

// LogFile is the agent's log.
func (n *Node) LogFile() string { return filepath.Join(n.c.Dir, n.ID, "agent.log") }
