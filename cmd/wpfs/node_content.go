package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/wpfs/wpfs/cache"
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
	mu     sync.Mutex
	chunks int
	files  []RiskyFile
}

func (r *risk) get() (int, []RiskyFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.chunks, r.files
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
		list, chunks, err := n.cluster.AtRisk(n.cfg.Cluster.Replicas, riskMax)
		if err != nil {
			n.log.Warn("files at risk cannot be listed", "err", err)
		}
		pause = max(riskEvery, riskShare*time.Since(began))
		files := make([]RiskyFile, 0, len(list))
		for _, f := range list {
			holders := make([]string, 0, len(f.Holders))
			for _, h := range f.Holders {
				holders = append(holders, string(h))
			}
			files = append(files, RiskyFile{Path: f.Path, Chunk: f.Chunk.String(), Bytes: int64(f.Size), Holders: holders, Alive: f.Alive})
		}
		n.risk.mu.Lock()
		n.risk.chunks, n.risk.files = chunks, files
		n.risk.mu.Unlock()
	}
}
