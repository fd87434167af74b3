// Package cluster puts every change into one order (hashicorp/raft) and decides
// when it may be seen (package protocol). Its [Node] implements fs.Meta: what a
// call on one node has returned, every live node sees at the very next call.
//
// How the parts hang together, and the locks, in the order they are taken:
//
//	propose.go   this node's proposals, sent until answered     proposer.mu
//	batch.go     the leader makes log entries of them
//	fsm.go       raft's callbacks: apply, snapshot, restore     store.mu, then meta's own
//	lease.go     drives package protocol: messages, time        Node.pmu (last; nothing is called under it)
//	kernel.go    the mount's kernel is told before an entry counts as applied
//	read.go      fs.Meta: reads wait for keys in flight
//	lead.go      what only a leader does, as one scope; housekeeping.go
//	members.go   raft's configuration, joining
//	chunks.go    chunks and open files, asked between nodes
//
// No lock is held while waiting for the network. docs/ARCHITECTURE.md lists the
// goroutines.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/wpfs/wpfs/cluster/member"
	"github.com/wpfs/wpfs/cluster/peer"
	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/cluster/wire"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Node is this machine's part of the cluster.
type Node struct {
	o    Options
	log  *slog.Logger
	lock *os.File

	self    protocol.ID // this run of the daemon
	clock   *clock
	store   *store
	logs    *logStore
	snaps   *snapshotStore
	mux     *wire.Mux
	hub     *peer.Hub
	trans   *pushTransport
	gossip  *member.Group
	notify  chan bool // raft's: this node leads, or does no more
	fresh   bool      // the data directory was empty
	broken  bool      // raft's FSM goroutine only: an entry could not be applied
	keep    atomic.Pointer[func(fs.ChunkID, []byte)]
	chunks  ChunkServer
	holder  Holder
	offer   func(fs.ChunkInfo) // nil: nobody wants to know
	cited   func(fs.Hash)      // nil: the same
	collect CollectFunc        // nil: there is no collector

	forgotten func(fs.Hash) // nil: nobody wants to know
	propose   *proposer
	batcher   atomic.Pointer[batcher]   // nil: not leading
	rf        atomic.Pointer[raft.Raft] // nil until this node takes part
	confs     *confLog
	roster    atomic.Pointer[roster]
	lead      atomic.Pointer[leadership] // who leads, as far as known

	kernel atomic.Pointer[Kernel] // nil: nothing is mounted
	entry  []fs.Command           // raft's FSM goroutine only: the entry being applied,
	own    []bool                 // and which of its commands somebody here waits for

	rewatch chan struct{} // wakes watchLeader
	redrop  chan struct{} // wakes dropKernelCaches

	idMu sync.Mutex
	id   identity

	pmu     sync.Mutex // guards what follows
	member  *protocol.Member
	leading *protocol.Leader // nil: not leading
	heard   map[fs.NodeID]time.Duration
	// parked is the last leading side, of parkedTerm; commitSeen the highest
	// index known to be committed, leading or not.
	parked      *protocol.Leader
	parkedTerm  uint64
	commitSeen  fs.Index
	noLease     time.Duration // Slow clock, since when there has been no lease; 0: there is one
	leaderSpoke time.Duration // Slow clock, of the last word of a leader
	changed     chan struct{} // closed and replaced when S or the lease changed
	seenS       fs.Index
	seenA       fs.Index
	seenL       bool
	retick      chan struct{} // wakes the ticker of package protocol
}

// leadership is who leads, in which term. It is replaced, never changed.
type leadership struct {
	id      fs.NodeID
	term    uint64
	epoch   uint64        // grows with each replacement
	changed chan struct{} // closed when it was replaced
}

// raft is nil until this node takes part.
func (n *Node) raft() *raft.Raft { return n.rf.Load() }

// Open opens the data directory and the ports, and starts raft unless the
// directory is empty: then Run does, once the node knows that it was no member
// before. Nothing is served until Run. The error says what to do: ErrOtherNode, ErrNewerVersion,
// ErrInUse, ErrLogCorrupt, or the system's (errors.Is with syscall.EADDRINUSE).
func Open(o Options) (*Node, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{
		o: o, log: o.Logger.With("node", o.ID), clock: newClock(),
		self:    protocol.ID{Node: o.ID, Session: fs.SessionID(rand.Uint64()>>1 + 1)},
		notify:  make(chan bool, 16),
		heard:   map[fs.NodeID]time.Duration{},
		changed: make(chan struct{}), retick: make(chan struct{}, 1), rewatch: make(chan struct{}, 1), redrop: make(chan struct{}, 1),
	}
	n.confs = &confLog{changed: n.wakeWatcher}
	n.roster.Store(&roster{})
	n.lead.Store(&leadership{changed: make(chan struct{})})
	n.propose = newProposer(n.sendProposals)
	var once sync.Once
	n.o.OnFatal = func(err error) { once.Do(func() { o.OnFatal(err) }) }
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) open() (err error) {
	if n.lock, err = lockDir(n.o.DataDir); err != nil {
		return err
	}
	if n.id, n.fresh, err = openIdentity(n.o.DataDir, n.o.ID, n.o.Cluster); err != nil {
		return err
	}
	if n.fresh && len(n.o.Peers) == 0 && len(n.o.Join) == 0 {
		return fmt.Errorf("%s is empty: set cluster.peers to make a new cluster, or cluster.join to join one", n.o.DataDir)
	}
	if n.mux, err = wire.Listen(wire.Options{Bind: n.o.Bind, TLS: n.o.TLS}); err != nil {
		return err
	}
	if n.logs, err = openLogStore(n.o.path("log"), n.confs, n.o.OnFatal); err != nil {
		return err
	}
	if !n.fresh {
		if err := n.checkToken(); err != nil {
			return err
		}
	}
	if n.snaps, err = openSnapshotStore(n.o.path("snapshots"), n.confs); err != nil {
		return err
	}
	if n.store, err = openStore(n.o.DataDir, n.hookState); err != nil {
		return err
	}
	if err := n.catchUpFromSnapshot(); err != nil {
		return err
	}
	clean, err := n.cleanStart()
	if err != nil {
		return err
	}
	n.member = protocol.NewMember(n.o.Protocol, protocol.MemberOptions{
		Self: n.self, Applied: n.store.applied(), Clean: clean, Witness: n.o.Witness, Seed: rand.Uint64(),
	}, n.clock.Now())
	n.hub = peer.NewHub(peer.Options{
		Identity: n.identify, Listener: n.mux.Listener(wire.Peer), Handler: (*handler)(n), Logger: n.log,
		Dial: n.dialPeer,
	})
	if n.gossip, err = member.Open(member.Options{
		Name: string(n.o.ID), Bind: n.o.Gossip, Key: n.o.GossipKey, Seeds: n.gossipSeeds, Note: n.o.Note, Logger: n.log,
	}); err != nil {
		return err
	}
	if n.fresh {
		return nil
	}
	return n.startRaft()
}

// tokenKey is where raft's stable store has the identity's token.
var tokenKey = []byte("wpfs-token")

// checkToken compares the identity with raft's own store (rule R27).
func (n *Node) checkToken() error {
	got, err := n.logs.Get(tokenKey)
	if err != nil {
		return fmt.Errorf("read raft's stable store: %w", err)
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if len(got) == 0 && last == 0 && n.store == nil {
		metas, _ := os.ReadDir(n.o.path(metaDir))
		if len(metas) == 0 { // the first start ended between the two writes of keepIdentity
			return n.logs.Set(tokenKey, []byte(n.id.Token))
		}
	}
	if string(got) != n.id.Token {
		return fmt.Errorf("%s: %w: its log is missing or not the one this node had; remove the directory and join again under a new node.id", n.o.DataDir, ErrLogCorrupt)
	}
	return nil
}

// keepIdentity ties a fresh directory to this node.
func (n *Node) keepIdentity() error {
	last, err := n.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if last > 0 {
		return fmt.Errorf("%s: %w: it has a log but no %s; restore that file, or start with an empty directory under a new node.id", n.o.DataDir, ErrLogCorrupt, identityFile)
	}
	n.idMu.Lock() // Status may be asked already, and note the cluster's UUID
	defer n.idMu.Unlock()
	if err := n.id.save(n.o.DataDir); err != nil {
		return err
	}
	return n.logs.Set(tokenKey, []byte(n.id.Token))
}

// catchUpFromSnapshot restores a snapshot that was received but not taken over
// when the process ended: raft believes it was. It restores one also into a
// store that was removed because it was damaged.
func (n *Node) catchUpFromSnapshot() error {
	metas, err := n.snaps.List()
	if err != nil || len(metas) == 0 {
		return err
	}
	newest := metas[0]
	if !n.snaps.taken(newest.ID) || n.store.applied() == 0 {
		_, r, err := n.snaps.Open(newest.ID)
		if err != nil {
			return err
		}
		defer r.Close()
		if err := n.store.restore(r, func(fs.Index) {}); err != nil {
			return fmt.Errorf("restore snapshot %s: %w", newest.ID, err)
		}
		if err := n.snaps.setTaken(newest.ID); err != nil {
			return err
		}
	}
	return n.emptyOldLog(newest.Index)
}

// emptyOldLog removes a log that ends before the snapshot, as raft does after it
// has taken one over: entries behind a gap cannot be stored.
func (n *Node) emptyOldLog(snapshot uint64) error {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := n.logs.LastIndex()
	if err != nil || last == 0 || last >= snapshot {
		return err
	}
	return n.logs.DeleteRange(first, last)
}

func (n *Node) hookState(s *meta.State) {
	s.SetBeforeCommit(n.closeKeys)
	s.SetDroppedInline(func(id fs.ChunkID, b []byte) {
		if keep := n.keep.Load(); keep != nil {
			(*keep)(id, b)
		}
	})
}

func (n *Node) startRaft() error {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.o.ID)
	c.HeartbeatTimeout, c.ElectionTimeout = n.o.Heartbeat, n.o.Heartbeat
	c.LeaderLeaseTimeout = n.o.Heartbeat / 2
	// Only the safety net: see pushTransport. An idle leader says so often that
	// there is nothing new.
	c.CommitTimeout = 500 * time.Millisecond
	c.MaxAppendEntries = 64
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	// Bounds the log on disk: at worst 20,000 entries of proposeBytes, normally
	// some 30 MB. A snapshot is a flush and hard links, so it may be frequent.
	c.TrailingLogs, c.SnapshotThreshold = 10_000, 10_000
	c.SnapshotInterval = 30 * time.Second
	c.NoSnapshotRestoreOnStart = true // the store has it already
	c.NoLegacyTelemetry = true
	c.NotifyCh = n.notify
	c.Logger = raftLogger(n.log)
	n.trans = newPushTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  streamLayer{n.mux.Listener(wire.Raft), n.mux, n.o.Advertise},
		MaxPool: 4, Timeout: 5 * time.Second, Logger: c.Logger,
	}))
	cache, err := raft.NewLogCache(logCacheEntries, n.logs)
	if err != nil {
		return err
	}
	if len(n.o.Peers) > 0 { // ErrCantBootstrap: there is a log already
		if err := raft.BootstrapCluster(c, cache, n.logs, n.snaps, n.trans, n.firstVoters()); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return fmt.Errorf("make the first configuration: %w", err)
		}
	}
	// NewRaft reads the whole log, and with it the configurations it holds.
	r, err := raft.NewRaft(c, (*fsm)(n), cache, n.logs, n.snaps, n.trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	if c, ok := n.confs.latest(); ok { // without it this voter's rounds would not shorten a new leader's wait
		n.locked(func(now protocol.Instant) []protocol.Message {
			n.member.SetServers(now, c.index, serversOf(c.servers))
			return nil
		})
	}
	n.rf.Store(r)
	n.refreshRoster()
	return nil
}

// logCacheEntries bounds raft's cache of entries to 64 MiB at worst.
const logCacheEntries = 512

func (n *Node) firstVoters() raft.Configuration {
	var c raft.Configuration
	for _, p := range n.o.Peers {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Addr)})
	}
	return c
}

// Run takes part in the cluster until ctx ends or the node cannot go on. It
// owns every goroutine of the node and returns when they have ended and all
// files are closed. For a graceful end call Leave first.
//
// The order of the end: first what asks raft for something, then raft, which
// needs the port to the last, then the port and the conversations, then files.
func (n *Node) Run(ctx context.Context) error {
	below, stop := context.WithCancel(context.Background())
	defer stop()
	services, below := errgroup.WithContext(below)
	services.Go(func() error { return n.mux.Run(below) })
	services.Go(func() error { return n.hub.Run(below) })
	services.Go(func() error { return n.gossip.Run(below) })

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.takePart(ctx) })
	g.Go(func() error { // a service that fails ends the node
		select {
		case <-below.Done():
			return errServiceEnded
		case <-ctx.Done():
			return nil
		}
	})
	err := g.Wait()
	close(n.propose.ended) // who waits for the cluster is told that nothing comes any more
	err = errors.Join(err, n.stopRaft())
	stop()
	if serr := services.Wait(); !errors.Is(serr, context.Canceled) {
		err = errors.Join(serr, err)
	}
	return errors.Join(err, n.closeFiles())
}

var errServiceEnded = errors.New("a service of this node ended")

// takePart is the node's life in the cluster, until ctx ends.
func (n *Node) takePart(ctx context.Context) error {
	if n.fresh {
		if err := n.beginFresh(ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	run := func(f func(context.Context)) { g.Go(func() error { f(ctx); return nil }) }
	run(n.watchLeader)
	run(n.tick)
	run(n.dropKernelCaches)
	run(n.leadWhenElected)
	run(n.keepSession)
	run(func(ctx context.Context) { n.propose.run(ctx, n.leaderEpoch) })
	if _, known := n.confs.latest(); !known {
		g.Go(func() error { return n.joinOnce(ctx) })
	}
	return g.Wait()
}

// joinOnce asks to join until this node finds itself in the configuration.
func (n *Node) joinOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx: the answer may be lost although the node was added
		for ctx.Err() == nil {
			if n.roster.Load().addr(n.o.ID) != "" {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	if err := n.join(ctx, n.o.Join); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stopRaft ends raft and its transport.
func (n *Node) stopRaft() error {
	var errs []error
	if r := n.raft(); r != nil {
		errs = append(errs, r.Shutdown().Error())
	}
	if n.trans != nil {
		errs = append(errs, n.trans.Close())
	}
	return errors.Join(errs...)
}

// closeFiles closes the rest that open opened, in reverse.
func (n *Node) closeFiles() error {
	var errs []error
	if n.mux != nil {
		errs = append(errs, n.mux.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.close())
	}
	if n.logs != nil {
		errs = append(errs, n.logs.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// Close gives back what Open opened, for a node that is not run.
func (n *Node) Close() error {
	err := n.stopRaft()
	if n.gossip != nil {
		err = errors.Join(err, n.gossip.Close())
	}
	return errors.Join(err, n.closeFiles())
}
