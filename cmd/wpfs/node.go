package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/cache"
	"github.com/wpfs/wpfs/cluster"
	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/cluster/protocol"
	wfs "github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/breaker"
	"github.com/wpfs/wpfs/fs/vfs"
)

// This is the only file that joins the packages.

// How long users of a mount have to leave it when the agent stops, and how long
// those who do not leave are still served. Together less than drainMax.
const (
	unmountWait = 3 * time.Second
	detachWait  = 3 * time.Second
)

// uploadBackoff is short, because asking a store that is known to be away costs
// nothing: the breaker does the waiting.
const uploadBackoff = 5 * time.Second

// bucketWait is how long a close waits for the object store with durability s3.
const bucketWait = time.Minute

func bucketMax(cfg Config) time.Duration {
	if cfg.Cluster.Durability == durabilityS3 {
		return bucketWait
	}
	return 0
}

// uploadIdle is the uploader's own choice, unless somebody waits for each upload.
func uploadIdle(cfg Config) time.Duration {
	if cfg.Cluster.Durability == durabilityS3 {
		return 20 * time.Millisecond
	}
	return 0
}

// node is the joined parts of this machine's node. It implements stack.
type node struct {
	cfg   Config
	log   *slog.Logger
	fatal chan error // from package cluster: the process must end

	store    object.Store
	breaker  *breaker.Store
	owner    *archive.Ownership
	shipper  *archive.Shipper
	disk     *cache.Disk
	cluster  *cluster.Node
	tier     *cache.Tier
	uploader *cache.Uploader
	scrubber *cache.Scrubber
	garbage  *cache.Collector
	risk     risk
	vfs      *vfs.FS
	space    *space
	gate     *cache.Gate

	ready   chan struct{}      // closed once the node serves
	mount   context.Context    // ends when the mount must go
	unmount context.CancelFunc // ends it
	gone    chan struct{}      // closed when the mount is gone, or will never be

	mu     sync.Mutex
	server *fuse.Server // nil while nothing is mounted
}

// openNode opens the parts. What can be wrong with the object store is found out
// before anything is opened or made on this machine. It starts nothing but raft,
// which package cluster has to start to open.
func openNode(cfg Config, log *slog.Logger, reg prometheus.Registerer) (_ stack, err error) {
	n := &node{cfg: cfg, log: log, space: newSpace(cfg), fatal: make(chan error, 1), ready: make(chan struct{}), gone: make(chan struct{})}
	n.mount, n.unmount = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	ctx := context.Background()
	if n.store, n.breaker, err = openStore(ctx, cfg.Object, log, reg); err != nil {
		return nil, err
	}
	works, err := proveStore(ctx, n.store, isNew(cfg.Node.DataDir), log)
	if err == nil && works {
		err = checkOwner(ctx, n.store, &cfg, log)
	}
	if err != nil {
		return nil, err
	}
	// The cluster comes before the directories beside it: it locks the data
	// directory and knows whose it is, so a refusal leaves nothing behind.
	if n.cluster, err = cluster.Open(n.clusterOptions()); err != nil {
		return nil, err
	}
	if n.disk, err = cache.OpenDisk(cfg.Cache.Dir, cache.DiskOptions{
		ReserveBytes: uint64(cfg.Cache.ReserveBytes), MaxBytes: int64(cfg.Cache.MaxBytes), Holdings: n.cluster, Log: log,
		OnCorrupt: func(h wfs.Hash) { n.scrubber.Found(h) }, // nobody reads before there is one
	}); err != nil {
		return nil, err
	}
	n.joinArchive()
	staging := filepath.Join(cfg.Node.DataDir, "staging")
	if err := os.MkdirAll(staging, 0o700); err != nil {
		return nil, fmt.Errorf("make the staging directory: %w", err)
	}
	if n.tier, err = cache.NewTier(cache.TierOptions{Disk: n.disk, Peers: n.cluster, Store: n.store, Chunks: n.cluster.ChunksOf, Replicas: cfg.Cluster.Replicas,
		PushTimeout: leaseOver(cfg), PrefetchBytesPerSecond: int64(cfg.Cache.PrefetchRate), Log: log}); err != nil {
		return nil, err
	}
	grace := time.Duration(cfg.Object.GCGrace)
	if n.garbage, err = cache.NewCollector(cache.CollectorOptions{Store: ownedStore{n.store, n.owner}, Ledger: n.cluster, Chunks: n.tier, Grace: grace,
		Every:  min(gcEvery, grace/4),
		Pinned: n.pinned, Log: log}); err != nil {
		return nil, err
	}
	if n.scrubber, err = cache.NewScrubber(cache.ScrubOptions{Tier: n.tier,
		BytesPerSecond: int64(cfg.Cache.ScrubRate), Log: log}); err != nil {
		return nil, err
	}
	if n.uploader, err = cache.NewUploader(cache.UploaderOptions{Store: ownedStore{n.store, n.owner}, Backlog: n.cluster, Chunks: n.tier,
		BackoffMax: uploadBackoff, Idle: uploadIdle(cfg), AgeMin: uploadIdle(cfg), Linger: uploadIdle(cfg), Life: grace / 2, Log: log}); err != nil {
		return nil, err
	}
	n.gate = cache.NewGate(cache.GateOptions{
		Backlog: func() uint64 { return n.uploader.Status().Bytes }, BacklogMax: uint64(cfg.Object.BacklogMaxBytes),
		Pressure: n.disk.Pressure, Full: n.space.full,
	})
	if n.vfs, err = vfs.New(n.cluster, n.tier, vfs.Options{StagingDir: staging, Admit: n.gate.Admit, InlineMax: int(cfg.Mount.InlineMax),
		BucketMax: bucketMax(cfg), Logger: log}); err != nil {
		return nil, err
	}
	reg.MustRegister(newPartMetrics(n))
	n.cluster.SetChunks(n.disk)
	n.cluster.SetCited(n.disk.Cited)
	n.cluster.SetForgotten(n.tier.Discard)
	n.cluster.SetKeepInline(n.tier.KeepInline)
	n.cluster.SetHolder(n.vfs)
	n.cluster.SetCollect(n.collectHere)
	if cfg.Mount.Path != "" { // nobody reads anything on a witness
		n.cluster.SetOffer(n.tier.Offer)
	}
	return n, nil
}

// isNew tells that no node has ever run on the data directory.
func isNew(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, "identity.json"))
	return errors.Is(err, os.ErrNotExist)
}

func (n *node) clusterOptions() cluster.Options {
	cl := n.cfg.Cluster
	p := profiles()[cl.Profile]
	timing := protocol.Defaults()
	timing.Lease, timing.Renew, timing.Margin = p.Lease, p.Renew, leaseMargin(p)
	o := cluster.Options{
		ID: wfs.NodeID(n.cfg.Node.ID), Cluster: cl.Name, DataDir: n.cfg.Node.DataDir,
		Bind: cl.Bind, Advertise: cl.Advertise, Join: cl.Join,
		Note:      n.cfg.note(),
		Witness:   n.cfg.Mount.Path == "", // it shows nothing, so no writer needs to wait for it
		Heartbeat: p.Heartbeat, Protocol: timing, OnLost: cluster.LostPolicy(cl.OnLeaseLost),
		Logger: n.log, OnFatal: func(err error) { n.fatal <- err },
	}
	for _, peer := range cl.Peers {
		o.Peers = append(o.Peers, cluster.Peer{ID: wfs.NodeID(peer.ID), Addr: peer.Addr})
	}
	return o
}

// leaseMargin is rule R3: M is 10 % of L.
func leaseMargin(p Profile) time.Duration { return p.Lease / 10 }

// leaseOver is how long the others wait for a node that has gone silent. A copy of
// content need not be waited for any longer: the commit would not be either.
func leaseOver(cfg Config) time.Duration {
	p := profiles()[cfg.Cluster.Profile]
	return p.Lease + leaseMargin(p)
}

// Run implements stack. The parts share one end: what one of them cannot go on
// with, none can.
func (n *node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ignoreEnd(ctx, n.cluster.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.breaker.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.watchSpace(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.tier.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.scrubber.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.uploader.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.garbage.Run(ctx)) })
	g.Go(func() error { n.watchRisk(ctx); return nil })
	g.Go(func() error { return ignoreEnd(ctx, n.vfs.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.owner.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, n.shipper.Run(ctx)) })
	g.Go(func() error { return n.serve(ctx) })
	g.Go(func() error {
		select {
		case err := <-n.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	err := g.Wait()
	return errors.Join(err, n.vfs.Close(), n.disk.Close())
}

// ignoreEnd drops the error of a part that ended because it was told to.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serve mounts once the node has a lease and its session, so that no call ever
// meets a node that cannot answer yet, and serves the mount until Drain or the
// end. It closes gone.
func (n *node) serve(ctx context.Context) error {
	defer close(n.gone)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.mount, cancel)()
	if err := n.cluster.AwaitReady(ctx); err != nil {
		return nil // told to end before it began
	}
	if n.cluster.Fresh() { // what is written must have a bucket to go to: see archive.OwnershipOptions.First
		select {
		case <-n.owner.Confirmed():
		case <-ctx.Done():
			return nil
		}
	}
	if n.cfg.Mount.Path == "" {
		close(n.ready)
		return nil
	}
	n.warnAlone()
	srv, err := fuse.Mount(n.cfg.Mount.Path, n.vfs, fuse.Options{
		UnmountWait: unmountWait, DetachWait: detachWait, NoEpoch: n.cfg.Mount.DebugNoEpoch,
		Asker: askerCommand, Logger: n.log,
	})
	if err != nil {
		return err
	}
	// Before the first answer: from then on the kernel keeps things.
	n.cluster.SetKernel(srv)
	defer n.cluster.SetKernel(nil)
	n.setServer(srv)
	defer n.setServer(nil)
	close(n.ready)
	return srv.Run(ctx)
}

func (n *node) setServer(s *fuse.Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = s
}

func (n *node) mounted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server != nil
}

// Ready implements stack.
func (n *node) Ready() <-chan struct{} { return n.ready }

// Drain implements stack: first the mount goes, so that nothing new is written,
// then what is left is published.
func (n *node) Drain(ctx context.Context) error {
	n.unmount()
	select {
	case <-n.gone:
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: %w", n.cfg.Mount.Path, ctx.Err())
	}
	return n.vfs.Drain(ctx)
}

// Leave implements stack.
func (n *node) Leave(ctx context.Context) error { return n.cluster.Leave(ctx) }

// Abandon implements stack.
func (n *node) Abandon() {
	n.unmount()
	if n.mounted() {
		if err := unix.Unmount(n.cfg.Mount.Path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			n.log.Error("the mount stays behind; the next start takes it away", "path", n.cfg.Mount.Path, "err", err)
		}
	}
}

// close gives back what a failed openNode has opened, the top first.
func (n *node) close() error {
	var errs []error
	if n.vfs != nil {
		errs = append(errs, n.vfs.Close())
	}
	if n.cluster != nil {
		errs = append(errs, n.cluster.Close())
	}
	if n.disk != nil {
		errs = append(errs, n.disk.Close())
	}
	return errors.Join(errs...)
}
