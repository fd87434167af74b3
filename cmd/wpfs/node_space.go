package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	wfs "github.com/wpfs/wpfs/fs"
)

const (
	spaceEvery = time.Second      // between two looks at the disk of node.data_dir
	asideEvery = 15 * time.Second // between two attempts to hand leadership over
	asideMax   = 5 * time.Second  // for one
)

// space watches the disk of node.data_dir, which has raft's log on it: without
// room there the node could not even say that it agrees (rule R33).
type space struct {
	dir     string
	ballast uint64 // less than this is too little
	low     atomic.Pointer[wfs.Error]
}

// newSpace keeps a quarter of the cache's reserve as ballast: by the time that it
// is touched, the cache beside it has dropped all that it may.
func newSpace(cfg Config) *space {
	return &space{dir: cfg.Node.DataDir, ballast: uint64(cfg.Cache.ReserveBytes) / 4}
}

// look measures.
func (s *space) look() {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return // the next look may succeed; a disk that is gone stops the log anyway
	}
	free := st.Bavail * uint64(st.Bsize)
	if free >= s.ballast {
		s.low.Store(nil)
		return
	}
	s.low.Store(&wfs.Error{Op: "write", Name: s.dir, Kind: wfs.ErrNoSpace,
		Err: fmt.Errorf("%s are free on the disk of node.data_dir, the log needs %s", humanBytes(int64(free)), humanBytes(int64(s.ballast)))})
}

// full says why nothing may be written on this node, or nil.
func (s *space) full() error {
	if e := s.low.Load(); e != nil {
		return e
	}
	return nil
}

// watchSpace looks again and again until ctx ends. While there is too little room
// this node does not lead if another one can: all writers would wait for its disk.
func (n *node) watchSpace(ctx context.Context) error {
	t := time.NewTicker(spaceEvery)
	defer t.Stop()
	var said bool
	var aside time.Time
	for {
		n.space.look()
		err := n.space.full()
		if low := err != nil; low != said {
			said = low
			if low {
				n.log.Error("the disk of this node is full: writes on it are refused, the others go on", "error", err)
			} else {
				n.log.Info("the disk of this node has room again")
			}
		}
		if said && time.Since(aside) >= asideEvery {
			aside = time.Now()
			sctx, cancel := context.WithTimeout(ctx, asideMax)
			if err := n.cluster.StepAside(sctx); err != nil {
				n.log.Warn("leadership cannot be handed over, although this node's disk is full", "error", err)
			}
			cancel()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}
