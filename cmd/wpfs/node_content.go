package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/wpfs/wpfs/cache"
	wfs "github.com/wpfs/wpfs/fs"
)

// gcEvery is the time between two rounds of garbage collection; a quarter of the
// grace if that is shorter.
const gcEvery = 10 * time.Minute

// collectHere makes a round of garbage collection on this node, which leads.
func (n *node) collectHere(ctx context.Context, dryRun bool) (json.RawMessage, error) {
	r, err := n.garbage.Round(ctx, dryRun)
	if err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// Collect implements stack.
func (n *node) Collect(ctx context.Context, dryRun bool) (json.RawMessage, error) {
	return n.cluster.Collect(ctx, dryRun)
}

// garbageStatus is what the status shows of garbage collection.
func garbageStatus(r cache.Report, t cache.Totals) GarbageStatus {
	st := GarbageStatus{Condemned: t.Condemned, Deleted: t.Deleted, Moved: t.Moved, Failed: t.Failed}
	if !r.Began.IsZero() {
		st.Last = &r
	}
	return st
}

// What is shown of files at risk, and how often it is looked for.
const (
	riskMax   = 1000
	riskEvery = 5 * time.Second
	riskShare = 20 // at most this part of the time
)

// risk is the last look at files at risk.
type risk struct {
	mu sync.Mutex
	st RiskStatus
}

func (r *risk) get() RiskStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st
}

func (r *risk) set(st RiskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.st = st
}

// watchRisk looks for files at risk until ctx ends. It has work to do only while
// there is a backlog, and is slow only when some of it is at risk.
func (n *node) watchRisk(ctx context.Context) {
	for pause := riskEvery; ; {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		began := time.Now()
		r, err := n.cluster.Risk(n.cfg.Cluster.Replicas, riskMax)
		if err != nil {
			n.log.Warn("files at risk cannot be listed", "err", err)
		}
		pause = max(riskEvery, riskShare*time.Since(began))
		st := RiskStatus{Chunks: r.Chunks}
		for _, f := range r.Files {
			st.Files = append(st.Files, RiskyFile{Path: f.Path, Bytes: int64(f.Bytes)})
		}
		for _, id := range r.Away {
			st.Away = append(st.Away, string(id))
		}
		n.risk.set(st)
	}
}

// pinned is the oldest state that can still be restored from the bucket.
func (n *node) pinned() (wfs.Index, error) { return n.cluster.PinnedBefore(), nil }
