package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
)

// round is one round of a Collector.
type round struct {
	c      *Collector
	dry    bool
	list   bool // look for orphans
	now    time.Time
	pinned fs.Index
	report Report

	compact []fs.PackInfo
}

func (r *round) run(ctx context.Context) error {
	var err error
	if r.pinned, err = r.c.o.Pinned(); err != nil {
		return fmt.Errorf("find the oldest state that is kept: %w", err)
	}
	for _, step := range []func(context.Context) error{r.sweepChunks, r.sweepPacks, r.compactPacks, r.findOrphans} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause comes after each page of a sweep.
func (r *round) pause(ctx context.Context) error {
	if !sleep(ctx, sweepPause) {
		return ctx.Err()
	}
	if !r.dry && !r.c.o.Ledger.Leads() {
		return errNotLeader
	}
	return nil
}

// ripe tells whether something that was condemned may go.
func (r *round) ripe(at fs.Index, since fs.Time) bool {
	return at <= r.pinned && r.now.Sub(since.Std()) >= r.c.o.Grace
}

// stored is what a chunk takes in the store.
func stored(info fs.ChunkInfo) uint64 {
	switch {
	case !info.Durable:
		return 0
	case info.Place != fs.Place{}:
		return uint64(info.Place.Len)
	}
	return uint64(info.Size)
}

// sweepChunks condemns what nothing cites and forgets what was condemned long
// enough ago.
func (r *round) sweepChunks(ctx context.Context) error {
	for after := (fs.ChunkID{}); ; {
		list, seen, last, err := r.c.o.Ledger.UncitedChunks(after, sweepPage)
		if err != nil {
			return fmt.Errorf("look for chunks that nothing cites: %w", err)
		}
		r.report.Chunks += uint64(seen)
		if err := r.dealWith(ctx, list); err != nil {
			return err
		}
		if seen < sweepPage {
			return nil
		}
		after = last
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
}

// dealWith takes chunks that nothing cites.
func (r *round) dealWith(ctx context.Context, list []fs.ChunkInfo) error {
	var dead, gone []fs.ChunkID
	for _, info := range list {
		alone := info.Durable && info.Place == fs.Place{}
		switch {
		case info.Condemned == 0:
			r.report.Dead.add(stored(info))
			dead = append(dead, info.ID)
			continue
		case !r.ripe(info.Condemned, info.CondemnedAt):
			if alone {
				r.report.Waiting.add(stored(info))
			}
			r.report.Condemned.add(stored(info))
			continue
		case alone:
			r.report.Deletable.add(stored(info))
			if err := r.delete(ctx, pack.ChunkKey(info.ID), stored(info)); err != nil {
				return err
			}
		}
		r.report.Condemned.add(stored(info))
		gone = append(gone, info.ID)
	}
	if err := r.condemn(ctx, fs.Condemn{Chunks: dead}); err != nil {
		return err
	}
	return r.forget(ctx, fs.Forget{Chunks: gone})
}

// sweepPacks deletes packs that were condemned long enough ago and finds those
// that are mostly dead.
func (r *round) sweepPacks(ctx context.Context) error {
	for after := (fs.PackID{}); ; {
		list, err := r.c.o.Ledger.Packs(after, sweepPage)
		if err != nil {
			return fmt.Errorf("look for packs without live chunks: %w", err)
		}
		var gone []fs.PackID
		for _, p := range list {
			if r.judge(p) {
				if err := r.delete(ctx, pack.Key(p.ID), p.Size); err != nil {
					return err
				}
				gone = append(gone, p.ID)
			}
		}
		if err := r.forget(ctx, fs.Forget{Packs: gone}); err != nil {
			return err
		}
		if len(list) < sweepPage {
			return nil
		}
		after = list[len(list)-1].ID
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
}

// judge counts a pack and tells whether its object may be deleted.
func (r *round) judge(p fs.PackInfo) bool {
	r.report.Packs.add(p.Size)
	r.report.LiveBytes += p.LiveBytes
	switch {
	case p.Condemned == 0:
		if p.LiveBytes*compactShare < p.Size {
			r.report.Compactable.add(p.Size - p.LiveBytes)
			r.compact = append(r.compact, p)
		}
		return false
	case !r.ripe(p.Condemned, p.CondemnedAt):
		r.report.Waiting.add(p.Size)
		return false
	}
	// The records of its chunks go first. They are as ripe as the pack, so they
	// have gone in this round, unless one of them was condemned since.
	if !r.dry && p.Chunks > 0 {
		r.report.Waiting.add(p.Size)
		return false
	}
	r.report.Deletable.add(p.Size)
	return true
}

// findOrphans condemns old objects that no entry of the log knows of.
func (r *round) findOrphans(ctx context.Context) error {
	if !r.list {
		return nil
	}
	var orphans []fs.PackID
	for info, err := range r.c.o.Store.List(ctx, pack.Prefix, "") {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		id, ok := pack.ParseKey(info.Key)
		if !ok || r.now.Sub(info.Modified) < r.c.o.Grace {
			continue
		}
		if _, known, err := r.c.o.Ledger.Pack(id); err != nil {
			return err
		} else if known {
			continue
		}
		r.report.Orphaned.add(uint64(info.Size))
		if orphans = append(orphans, id); len(orphans) == garbageBatch {
			if err := r.condemn(ctx, fs.Condemn{Packs: orphans}); err != nil {
				return err
			}
			orphans = nil
		}
	}
	if err := r.condemn(ctx, fs.Condemn{Packs: orphans}); err != nil {
		return err
	}
	if !r.dry {
		r.c.listed = r.now
	}
	return nil
}

// condemn proposes op in commands of bounded size.
func (r *round) condemn(ctx context.Context, op fs.Condemn) error {
	for !r.dry && len(op.Chunks)+len(op.Packs) > 0 {
		part := fs.Condemn{Chunks: op.Chunks[:min(len(op.Chunks), garbageBatch)], Packs: op.Packs[:min(len(op.Packs), garbageBatch)]}
		if err := r.c.o.Ledger.Condemn(ctx, part); err != nil {
			return fmt.Errorf("condemn garbage: %w", err)
		}
		op.Chunks, op.Packs = op.Chunks[len(part.Chunks):], op.Packs[len(part.Packs):]
		r.c.count(func(t *Totals) { t.Condemned += uint64(len(part.Chunks)) })
	}
	return nil
}

// forget proposes op in commands of bounded size.
func (r *round) forget(ctx context.Context, op fs.Forget) error {
	for !r.dry && len(op.Chunks)+len(op.Packs) > 0 {
		part := fs.Forget{Chunks: op.Chunks[:min(len(op.Chunks), garbageBatch)], Packs: op.Packs[:min(len(op.Packs), garbageBatch)]}
		if err := r.c.o.Ledger.Forget(ctx, part); err != nil {
			return fmt.Errorf("forget garbage: %w", err)
		}
		op.Chunks, op.Packs = op.Chunks[len(part.Chunks):], op.Packs[len(part.Packs):]
		r.c.count(func(t *Totals) { t.Forgotten += uint64(len(part.Chunks)) })
	}
	return nil
}

// delete removes an object, as fast as the limit lets it. One that is gone
// already is fine: an earlier round was interrupted after it.
func (r *round) delete(ctx context.Context, key string, bytes uint64) error {
	if r.dry {
		return nil
	}
	if err := r.c.deletes.Wait(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	if err := r.c.o.Store.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	r.c.count(func(t *Totals) {
		t.Deleted++
		t.DeletedBytes += bytes
	})
	return nil
}
