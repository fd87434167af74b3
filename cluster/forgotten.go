package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wpfs/wpfs/cluster/peer"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// ErrForgotten means that this node was a member before and has lost its data
// directory. Under its old name it could vote twice in one term, or for a
// leader that lacks what it had acknowledged (rule R27).
var ErrForgotten = errors.New("this node was a member before and has lost its data directory")

// seenTimeout bounds the question to the others; those that do not answer are
// not up, and a majority that is not up cannot be harmed.
const seenTimeout = 2 * time.Second

// checkForgotten asks the other nodes, before raft starts, whether they know
// this node although its disk is empty.
func (n *Node) checkForgotten() error {
	ctx, cancel := context.WithTimeout(context.Background(), seenTimeout)
	defer cancel()
	addrs := append([]string(nil), n.o.Join...)
	for _, p := range n.o.Peers {
		addrs = append(addrs, p.Addr)
	}
	var mu sync.Mutex
	var found error
	var wg sync.WaitGroup
	for _, a := range addrs {
		if a == n.o.Advertise {
			continue
		}
		wg.Go(func() {
			b, err := peer.Once(ctx, n.dialPeer, a, peer.Identity{Node: n.o.ID, Session: n.self.Session}, methodSeen, []byte(n.o.ID))
			if err != nil || len(b) != 1 || b[0] == 0 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found = fmt.Errorf("%s is empty, but the member at %s knows node %q: %w; choose a new node.id and set cluster.join", n.o.DataDir, a, n.o.ID, ErrForgotten)
		})
	}
	wg.Wait()
	return found
}

func (n *Node) serveSeen(id fs.NodeID) ([]byte, error) {
	var seen bool
	var err error
	n.store.use(func(s *meta.State) { seen, err = s.NodeSeen(id) })
	return []byte{boolByte(seen)}, err
}
