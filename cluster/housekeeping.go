package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Figures of what only a leader does.
const (
	houseEvery     = time.Second
	sessionTimeout = 10 * time.Second // without a word from its node a session ends (rule R25)
	orphansAtOnce  = 512              // asked for and reclaimed per round
	holdsTimeout   = 2 * time.Second  // for one node's answer
)

// keepHouse does what only a leader does, each second until ctx ends: it ends
// the sessions of nodes that are gone, reclaims orphans nobody holds open, and
// promotes members to voters. Everything it proposes is idempotent, so two
// leaders at once, or one that is cut off half-way, do no harm.
func (n *Node) keepHouse(ctx context.Context) {
	t := time.NewTicker(houseEvery)
	defer t.Stop()
	since := n.clock.Now().Slow // nobody counts as silent for longer than this node leads
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		n.nameCluster(ctx)
		n.expireSessions(ctx, since)
		n.reclaimOrphans(ctx)
		n.promoteVoters(ctx)
	}
}

// nameCluster gives a new cluster its UUID.
func (n *Node) nameCluster(ctx context.Context) {
	if n.uuid() == "" {
		n.proposeOwn(ctx, fs.InitCluster{UUID: newUUID()})
	}
}

// expireSessions ends sessions that a later one of the same node has followed,
// and those whose node has neither spoken for sessionTimeout nor holds a lease.
func (n *Node) expireSessions(ctx context.Context, since time.Duration) {
	var all []meta.Session
	var err error
	n.store.use(func(s *meta.State) { all, err = s.Sessions() })
	if err != nil {
		n.log.Error("list sessions", "err", err)
		return
	}
	newest := map[fs.NodeID]fs.Index{}
	for _, s := range all {
		newest[s.Node] = max(newest[s.Node], s.Opened)
	}
	now := n.clock.Now().Slow
	var dead []fs.SessionID
	for _, s := range all {
		silent := now - max(since, n.heardOf(s.Node))
		if s.Opened < newest[s.Node] || silent > sessionTimeout && !n.holdsLease(s.Node) {
			dead = append(dead, s.ID)
		}
	}
	if len(dead) > 0 {
		n.log.Info("ending sessions of nodes that are gone", "sessions", dead)
		n.proposeOwn(ctx, fs.ExpireSession{Sessions: dead})
	}
}

// reclaimOrphans removes files without a name that no node holds open (rule
// R30). Every node that has a session is asked; one that does not answer, or is
// behind, postpones the matter until it does or its session ends.
func (n *Node) reclaimOrphans(ctx context.Context) {
	stable := n.Stable()
	var orphans []meta.Orphan
	var sessions []meta.Session
	var err error
	n.store.use(func(s *meta.State) {
		if orphans, err = s.Orphans(0, orphansAtOnce); err == nil {
			sessions, err = s.Sessions()
		}
	})
	if err != nil {
		n.log.Error("list orphans", "err", err)
		return
	}
	var inos []fs.Ino
	for _, o := range orphans {
		if o.Since <= stable {
			inos = append(inos, o.Ino)
		}
	}
	if len(inos) == 0 {
		return
	}
	nodes := make([]fs.NodeID, 0, len(sessions))
	for _, s := range sessions {
		nodes = append(nodes, s.Node)
	}
	slices.Sort(nodes)
	open := map[fs.Ino]bool{}
	for _, id := range slices.Compact(nodes) {
		held, err := n.askHolds(ctx, id, stable, inos)
		if err != nil {
			n.log.Debug("cannot ask for open files; orphans stay for now", "node", id, "err", err)
			return
		}
		for _, i := range held {
			open[i] = true
		}
	}
	gone := slices.DeleteFunc(inos, func(i fs.Ino) bool { return open[i] })
	if len(gone) > 0 {
		n.proposeOwn(ctx, fs.Reclaim{Inos: gone})
	}
}

func (n *Node) askHolds(ctx context.Context, id fs.NodeID, at fs.Index, inos []fs.Ino) ([]fs.Ino, error) {
	ctx, cancel := context.WithTimeout(ctx, holdsTimeout)
	defer cancel()
	var b []byte
	var err error
	if id == n.o.ID {
		b, err = n.holds(ctx, encodeInos(at, inos))
	} else {
		b, err = n.call(ctx, id, methodHolds, encodeInos(at, inos))
	}
	if err != nil {
		return nil, err
	}
	_, held, err := decodeInos(b)
	return held, err
}

// proposeOwn gets a housekeeping command into the log while this node leads.
// Whether it succeeds is seen in the state; if not, the next round tries again.
func (n *Node) proposeOwn(ctx context.Context, op fs.Op) {
	b := n.batcher.Load()
	if b == nil || ctx.Err() != nil {
		return
	}
	if !b.submit(meta.EncodeCommand(fs.Command{Now: fs.TimeOf(time.Now()), Op: op})) {
		n.log.Warn("the leader's queue is full; housekeeping waits")
	}
}
