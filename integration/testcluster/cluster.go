package testcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Limits of a cluster's life.
const (
	readyMax = 90 * time.Second // from the start of wpfs dev to dev.json
	stopMax  = 60 * time.Second // from SIGTERM to its end
)

// Config says what cluster to start. The zero value is three nodes with the
// embedded object store.
type Config struct {
	Nodes int    // 0: three, or as many as the directory has
	S3    string // object.url instead of the embedded store
	Env   []string
	Set   []string // KEY=VALUE, for the configuration of all agents
	LB    bool     // with a balancer
	Dir   string   // of an earlier cluster, to go on with its data; a new one if empty
}

// Cluster is one wpfs dev.
type Cluster struct {
	Dir   string  // the --dir of wpfs dev
	Nodes []*Node // in the order of dev.json
	LB    LB      // with Config.LB

	s     *Session
	conf  Config
	token string
	top   string // holds Dir and dev.log
	cmd   *exec.Cmd
	ended chan struct{} // closed when wpfs dev has ended
	how   error         // its exit, after ended

	mu sync.Mutex // guards Nodes against nodes that are started at the same time
}

// LB is the balancer of a cluster.
type LB struct{ HTTP, HTTPS, Socket string }

// Start starts a cluster and returns when all nodes are ready.
func (s *Session) Start(o Config) (*Cluster, error) {
	_, token, top, err := s.next()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: filepath.Join(top, "dev"), s: s, conf: o, token: token, top: top}
	if o.Dir != "" {
		c.Dir = o.Dir
	}
	if err := c.Up(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// StartFor is Start for a test: it closes the cluster at the test's end, fails
// the test if that leaves anything behind or an agent crashed, and shows the logs
// of a test that failed.
func (s *Session) StartFor(t testing.TB, o Config) *Cluster {
	t.Helper()
	c, err := s.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), c.crashed()); err != nil {
			t.Errorf("after the test: %v", err)
		}
		if t.Failed() {
			c.keepLogs(t)
		}
	})
	return c
}

// Command is a wpfs command line in this cluster's environment, ready to start.
func (c *Cluster) Command(args ...string) *exec.Cmd {
	return c.s.command(c.token, c.conf.Env, args...)
}

// Command is a wpfs command line that belongs to no cluster. What it leaves
// behind is cleaned up with the session.
func (s *Session) Command(env []string, args ...string) *exec.Cmd {
	return s.command(s.token+".0", env, args...)
}

// command strips the variables that would configure wpfs by accident.
func (s *Session) command(token string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.Bin, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "WPFS_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(append(cmd.Env, env...), envToken+"="+token)
	cmd.Dir = "/"
	return cmd
}

// Up starts wpfs dev (again, after Down or KillDev) and waits until it is ready.
func (c *Cluster) Up() error {
	args := []string{"dev", "--dir", c.Dir}
	if c.conf.Nodes > 0 {
		args = append(args, "--nodes", strconv.Itoa(c.conf.Nodes))
	}
	if c.conf.S3 != "" {
		args = append(args, "--s3", c.conf.S3)
	}
	if c.conf.LB {
		args = append(args, "--lb")
	}
	for _, kv := range c.conf.Set {
		args = append(args, "--set", kv)
	}
	// A wpfs dev that was killed has left its dev.json. It is left there for the
	// next one to deal with, and told apart by inode and time.
	old, err := os.Stat(c.jsonFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(filepath.Join(c.top, "dev.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.Command(args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start wpfs dev: %w", err)
	}
	c.cmd, c.ended, c.how = cmd, make(chan struct{}), nil
	go func() { // ends with wpfs dev
		c.how = cmd.Wait()
		close(c.ended)
	}()
	ready := false
	err = poll(readyMax, func() error {
		select {
		case <-c.ended:
			return nil
		default:
		}
		st, err := os.Stat(c.jsonFile())
		if err != nil {
			return err
		}
		if old != nil && os.SameFile(old, st) && old.ModTime().Equal(st.ModTime()) {
			return errors.New("dev.json is still the one of the run before")
		}
		err = c.readJSON()
		ready = err == nil
		return err
	})
	if err == nil && !ready {
		err = fmt.Errorf("wpfs dev ended: %v", c.how)
	}
	if err != nil {
		return fmt.Errorf("start cluster: %w\n%s", err, tail(filepath.Join(c.top, "dev.log"), 4<<10))
	}
	return nil
}

func (c *Cluster) jsonFile() string { return filepath.Join(c.Dir, "dev.json") }

// readJSON takes over the nodes of dev.json. Nodes keep their identity, so that
// a *Node stays good over restarts.
func (c *Cluster) readJSON() error {
	b, err := os.ReadFile(c.jsonFile())
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var j struct {
		Nodes []struct {
			ID, Mount, Socket, HTTP, Web string
			PID                          int
		}
		LB     LB
		Object struct{ URL string }
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("dev.json: %w", err)
	}
	for i, n := range j.Nodes {
		if i == len(c.Nodes) {
			c.Nodes = append(c.Nodes, &Node{c: c})
		}
		old := c.Nodes[i]
		old.ID, old.Mount, old.Socket, old.HTTP, old.Web, old.PID = n.ID, n.Mount, n.Socket, n.HTTP, n.Web, n.PID
	}
	c.LB = j.LB
	return nil
}

// AddNode adds a node with an empty disk and returns when it is healthy.
func (c *Cluster) AddNode() (*Node, error) {
	before := len(c.Nodes)
	if err := c.devNode("add"); err != nil {
		return nil, err
	}
	if len(c.Nodes) != before+1 {
		return nil, fmt.Errorf("dev-node add: dev.json has %d nodes, want %d", len(c.Nodes), before+1)
	}
	return c.Nodes[before], nil
}

// devNode runs wpfs dev-node and reads dev.json again.
func (c *Cluster) devNode(args ...string) error {
	cmd := c.Command(append(append([]string{"dev-node"}, args...), "--dir", c.Dir)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("wpfs dev-node %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return c.readJSON()
}

// Leader is the node that leads now, by the word of a healthy node.
func (c *Cluster) Leader() (*Node, error) {
	var leader *Node
	err := poll(20*time.Second, func() error {
		for _, n := range c.Nodes {
			st, err := n.Status()
			if err != nil || !st.Healthy || st.Cluster.Role != "leader" {
				continue
			}
			leader = n
			return nil
		}
		return errors.New("no node says that it leads")
	})
	return leader, err
}

// Signal sends wpfs dev a signal and waits for its end.
func (c *Cluster) Signal(sig syscall.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.ended:
		return c.how
	case <-time.After(stopMax):
		return fmt.Errorf("wpfs dev did not end within %v after %v", stopMax, sig)
	}
}

// Down stops the cluster in good order. Its data stays for Up.
func (c *Cluster) Down() error {
	if err := c.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop wpfs dev: %w", err)
	}
	return nil
}

// Leftovers lists processes and mounts of the cluster that are there although
// it was stopped.
func (c *Cluster) Leftovers() ([]string, error) {
	ps, err := processes(c.token)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, p := range ps {
		left = append(left, p.String())
	}
	ms, err := mountsBelow(c.Dir)
	return append(left, ms...), err
}

// Close stops the cluster if it runs. It is an error if that takes too long or
// leaves a process or a mount; they are cleaned up then.
func (c *Cluster) Close() error {
	var stopped error
	if c.cmd != nil {
		select {
		case <-c.ended:
		default:
			for _, n := range c.Nodes {
				// A paused agent cannot stop; whoever paused it has failed since.
				if n.PID != 0 && n.paused {
					stopped = errors.Join(stopped, n.Resume())
				}
			}
			stopped = errors.Join(stopped, c.Down())
		}
	}
	left, err := sweep(c.token, c.Dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("the cluster left behind: %s", strings.Join(left, ", "))
	}
	return errors.Join(stopped, err)
}
