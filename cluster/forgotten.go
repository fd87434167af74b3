package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// ErrForgotten means that this node was a member before and has lost its data
// directory. Under its old name it could vote twice in one term, or for a
// leader that lacks what it had acknowledged (rule R27).
var ErrForgotten = errors.New("this node was a member before and has lost its data directory")

const (
	seenTimeout = 2 * time.Second // for one answer
	seenAgain   = 200 * time.Millisecond
	seenWarn    = 5 * time.Second // between two log lines
)

// beginFresh starts raft on an empty data directory, once it is certain that
// this node was no member before. A node that joins asks until one member has
// answered; the first nodes of a new cluster ask until each of the others has,
// so a new cluster begins when all its first nodes are up. One that does not
// answer might know better, so it is waited for.
func (n *Node) beginFresh(ctx context.Context) error {
	var missing []string
	for _, p := range n.o.Peers {
		if p.ID != n.o.ID {
			missing = append(missing, p.Addr)
		}
	}
	enough := func() bool { return len(missing) == 0 }
	if len(n.o.Peers) == 0 {
		missing = append(missing, n.o.Join...)
		enough = func() bool { return len(missing) < len(n.o.Join) }
	}
	for warned := time.Now(); !enough(); {
		var silent []string
		for _, addr := range missing {
			switch seen, err := n.askSeen(ctx, addr); {
			case err != nil:
				silent = append(silent, addr)
			case seen:
				return fmt.Errorf("%s is empty, but the member at %s knows node %q: %w; choose a new node.id and set cluster.join", n.o.DataDir, addr, n.o.ID, ErrForgotten)
			}
		}
		if missing = silent; enough() {
			break
		}
		if time.Since(warned) > seenWarn {
			warned = time.Now()
			n.log.Warn("waiting for the other nodes: the first start needs an answer from them", "missing", missing)
		}
		select {
		case <-time.After(seenAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := n.keepIdentity(); err != nil {
		return err
	}
	return n.startRaft()
}

func (n *Node) askSeen(ctx context.Context, addr string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	b, err := n.hub.Call(ctx, addr, methodSeen, []byte(n.o.ID))
	if err == nil && len(b) != 1 {
		err = errTruncated
	}
	return err == nil && b[0] == 1, err
}

func (n *Node) serveSeen(id fs.NodeID) ([]byte, error) {
	var seen bool
	var err error
	n.store.use(func(s *meta.State) { seen, err = s.NodeSeen(id) })
	return []byte{boolByte(seen)}, err
}
