// Package rawraft measures what one commit of hashicorp/raft costs here: three
// processes with the log store and the settings that wpfs uses and nothing
// else. It is the yardstick for the latency of metadata operations, to be
// measured on the same disk in the same minutes.
package rawraft

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// Commands to a child.
const (
	askLeader  = "leader"  // is this node the leader?
	askMeasure = "measure" // commit Count entries one after the other
)

type ask struct {
	What  string
	Count int
	Size  int // bytes of one entry
}

type answer struct {
	Leader bool
	Took   []time.Duration
	Err    string
}

// startMax is how long the processes may need to elect a leader.
const startMax = 20 * time.Second

// Cluster is three raft processes.
type Cluster struct {
	nodes  []*node
	leader *node
}

type node struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *gob.Encoder
	dec *gob.Decoder
	mu  sync.Mutex
}

// Start starts one process per address, with their logs in directories below
// dir, and returns when they have a leader. The processes end with Close, or
// when this process ends. The program's main must call [Main].
func Start(dir string, addrs []string) (*Cluster, error) {
	c := &Cluster{}
	for i, addr := range addrs {
		n, err := startNode(filepath.Join(dir, fmt.Sprintf("raft%d", i+1)), addr, addrs)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.nodes = append(c.nodes, n)
	}
	deadline := time.Now().Add(startMax)
	for time.Now().Before(deadline) {
		for _, n := range c.nodes {
			a, err := n.ask(ask{What: askLeader})
			if err != nil {
				return nil, errors.Join(err, c.Close())
			}
			if a.Leader {
				c.leader = n
				return c, nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("raft elected no leader in %v", startMax), c.Close())
}

func startNode(dir, addr string, peers []string) (*node, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envDir+"="+dir, envAddr+"="+addr)
	for i, p := range peers {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s%d=%s", envPeer, i, p))
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start raft process: %w", err)
	}
	return &node{cmd: cmd, in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(bufio.NewReader(out))}, nil
}

func (n *node) ask(q ask) (answer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enc.Encode(q); err != nil {
		return answer{}, fmt.Errorf("ask raft process: %w", err)
	}
	var a answer
	if err := n.dec.Decode(&a); err != nil {
		return answer{}, fmt.Errorf("answer of raft process: %w", err)
	}
	if a.Err != "" {
		return answer{}, errors.New(a.Err)
	}
	return a, nil
}

// Measure commits count entries of size bytes, one after the other, and
// returns how long each took, from the call on the leader to the answer.
func (c *Cluster) Measure(count, size int) ([]time.Duration, error) {
	a, err := c.leader.ask(ask{What: askMeasure, Count: count, Size: size})
	return a.Took, err
}

// Close ends the processes and waits for them.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.nodes {
		n.in.Close()
	}
	for _, n := range c.nodes {
		errs = append(errs, n.cmd.Wait())
	}
	return errors.Join(errs...)
}
