package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wpfs/wpfs/cluster"
	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs/object"
)

// joinArchive makes the parts that own the bucket and keep a copy of the metadata
// in it.
func (n *node) joinArchive() {
	n.owner = archive.NewOwnership(archive.OwnershipOptions{
		Store: n.store, UUID: n.cluster.UUID, Leads: n.cluster.Leads, Name: n.cfg.Cluster.Name, Node: n.cfg.Node.ID,
		Founders: founders(n.cfg.Cluster.Peers), First: n.cluster.Fresh(), Log: n.log,
	})
	n.shipper = archive.New(archive.Options{
		Store: n.store, Source: n.cluster.ArchiveSource(), Owner: n.owner, SpoolDir: filepath.Join(n.cfg.Node.DataDir, "spool"),
		Name: n.cfg.Cluster.Name, Node: n.cfg.Node.ID, SnapshotEvery: time.Duration(n.cfg.Object.DebugSnapshotEvery), Log: n.log,
	})
}

// founders is the list of a cluster's first nodes as OWNER has it.
func founders(peers []Peer) string {
	var list []string
	for _, p := range peers {
		list = append(list, p.String())
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// checkOwner refuses a bucket that is known to be another cluster's before
// anything is opened or made. A node with an empty data directory may be a founder
// of the owner that crashed at its very first start while the others went on: then
// they confirm OWNER all the time. If nobody does, the cluster that has the bucket
// is gone, and a new one may not begin on it. Whether a bucket that passes is this
// cluster's is seen again when it runs.
func checkOwner(ctx context.Context, st object.Store, cfg *Config, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	uuid, exists, err := cluster.PeekIdentity(cfg.Node.DataDir)
	if err != nil {
		return nil //nolint:nilerr // cluster.Open has the better words
	}
	o, version, err := archive.ReadOwner(ctx, st)
	switch {
	case err != nil && exists: // the store may be away for hours
		log.Error("whose bucket it is cannot be read; nothing is put into it until that is known", "err", err)
		return nil
	case err != nil:
		return err
	case version == "":
		return nil
	}
	peers := cfg.Cluster.Peers
	founder := len(peers) > 1 && founders(peers) == o.Founders && time.Since(o.Time) < archive.AliveFor
	if exists && uuid != "" && uuid != o.Cluster || !exists && len(peers) > 0 && !founder {
		return &archive.ForeignError{Owner: o, Mine: uuid}
	}
	return nil
}

// ownedStore puts and deletes nothing while the bucket is not known to be this
// cluster's (rule R38). Reading is free.
type ownedStore struct {
	object.Store
	owner *archive.Ownership
}

func (s ownedStore) check(op object.Op, key string) error {
	err := s.owner.Owned()
	if err == nil {
		return nil
	}
	kind := object.Busy
	if errors.Is(err, archive.ErrForeign) {
		kind = object.Credentials
	}
	return &object.Error{Op: op, Key: key, Kind: kind, Hint: "see archive in wpfs status", Err: err}
}

func (s ownedStore) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	if err := s.check(object.OpPut, key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, b, o)
}

func (s ownedStore) Delete(ctx context.Context, key string) error {
	if err := s.check(object.OpDelete, key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

// archiveStatus puts together what the log says of the bucket and, on the leader,
// what the shipper knows.
func (n *node) archiveStatus(now time.Time) ArchiveStatus {
	s := n.shipper.Status()
	shipped, oldest := n.cluster.Shipped()
	a := ArchiveStatus{Epoch: n.owner.Epoch(), Shipping: s.Active, Shipped: uint64(shipped), Oldest: uint64(oldest)}
	if s.Active {
		a.Shipped, a.Oldest, a.Snapshot = max(a.Shipped, uint64(s.Shipped)), uint64(s.Oldest), uint64(s.Snapshot)
		if !s.CaughtUp.IsZero() {
			a.LagS = now.Sub(s.CaughtUp).Seconds()
		}
	}
	if err := n.owner.Fenced(); err != nil {
		a.Fenced = err.Error()
	} else if err := n.owner.Owned(); err != nil {
		a.Error = err.Error()
	} else if !s.FailingSince.IsZero() && s.LastError != nil {
		a.Error = s.LastError.Error()
	}
	return a
}
