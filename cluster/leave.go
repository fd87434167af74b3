package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/cluster/protocol"
)

// runningFile says that a daemon runs, or ended without Leave, and in which
// boot of the machine. While its predecessor's mount may still answer from the
// kernel's cache, a young daemon must not vouch for this node (rule R13b).
const runningFile = "running"

// cleanStart reports whether no daemon before this one can have left anything
// in the kernel, and marks this one as running.
func (n *Node) cleanStart() (clean bool, err error) {
	boot := bootID()
	b, err := os.ReadFile(n.o.path(runningFile))
	clean = errors.Is(err, os.ErrNotExist) || err == nil && boot != "" && strings.TrimSpace(string(b)) != boot
	if err := replaceFileSync(n.o.DataDir, n.o.path(runningFile), []byte(boot+"\n")); err != nil {
		return false, fmt.Errorf("mark the node as running: %w", err)
	}
	return clean, nil
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // never equal to a stored one: the start counts as unclean
	}
	return strings.TrimSpace(string(b))
}

const (
	leaveQuiet = 100 * time.Millisecond // for the last messages to reach the others
	readyPoll  = 10 * time.Millisecond
)

// Leave ends this node's part gracefully while Run still runs: it gives its
// lease back, so that no writer waits for it, and hands leadership over. Call
// it after the mount is gone. It blocks until done or ctx ends; then the others
// wait the lease out, as after a crash.
func (n *Node) Leave(ctx context.Context) error {
	n.step(func(now protocol.Instant) []protocol.Message {
		n.member.Release(now)
		return nil
	})
	n.dropOnce()
	var err error
	if n.leads() && n.otherVoters() {
		err = await(ctx, n.raft().LeadershipTransfer())
	}
	select {
	case <-time.After(leaveQuiet):
	case <-ctx.Done():
	}
	return errors.Join(err, n.markClean())
}

// markClean leaves word that nothing of this daemon is left in the kernel, if so.
func (n *Node) markClean() error {
	n.pmu.Lock()
	clean := n.member.CleanExit(n.clock.Now())
	n.pmu.Unlock()
	if !clean {
		return nil
	}
	return os.Remove(n.o.path(runningFile))
}

func (n *Node) otherVoters() bool {
	for _, m := range n.roster.Load().members {
		if m.Voter && m.ID != n.o.ID {
			return true
		}
	}
	return false
}

// await waits for a future no longer than ctx.
func await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// AwaitReady blocks until this node has its session and, unless it is a witness,
// holds a lease, so that a mount can be served; or until ctx ends.
func (n *Node) AwaitReady(ctx context.Context) error {
	for {
		n.pmu.Lock()
		_, lease := n.member.Lease(n.clock.Now())
		n.pmu.Unlock()
		if (lease || n.o.Witness) && n.propose.open() {
			return nil
		}
		select {
		case <-time.After(readyPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
