package cache

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
)

// mover puts live chunks of packs that are mostly dead into new packs.
type mover struct {
	r      *round
	b      pack.Builder
	from   []fs.PackID // beside the builder's entries
	failed int         // chunks and packs that could not be read
}

// compactPacks moves what is live in packs that are mostly dead, up to
// compactMax bytes. The old packs are condemned by the same entry that records
// the new one.
func (r *round) compactPacks(ctx context.Context) error {
	if r.dry {
		return nil
	}
	m := &mover{r: r}
	for _, p := range r.compact {
		if r.report.Moved.Bytes >= compactMax {
			break
		}
		if err := m.take(ctx, p); err != nil {
			return err
		}
	}
	if m.failed > 0 {
		r.c.o.Log.Error("some content of packs that are mostly dead could not be moved and stays where it is", "chunks_and_packs", m.failed)
	}
	return m.flush(ctx)
}

// take adds the live chunks of p. What a pack holds is read from its own index:
// the metadata has no list of it.
func (m *mover) take(ctx context.Context, p fs.PackInfo) error {
	entries, err := pack.Load(ctx, m.r.c.o.Store, p.ID, int64(p.Size))
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.failed++
		m.r.c.o.Log.Warn("the index of a pack cannot be read", "pack", p.ID, "error", err)
		return nil
	}
	for _, e := range entries {
		info, known, err := m.r.c.o.Ledger.Chunk(e.ID)
		if err != nil {
			return err
		}
		if !known || info.Place.Pack != p.ID || info.Refs == 0 || info.Condemned != 0 {
			continue
		}
		if err := m.add(ctx, p.ID, info); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) add(ctx context.Context, from fs.PackID, info fs.ChunkInfo) error {
	b, err := readWhole(ctx, m.r.c.o.Chunks, info)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.failed++
		m.r.c.o.Log.Warn("a chunk of a pack that is mostly dead cannot be read", "chunk", info.ID, "pack", from, "error", err)
		return nil
	}
	if !m.b.Add(info.ID, b) {
		if err := m.flush(ctx); err != nil {
			return err
		}
		if !m.b.Add(info.ID, b) {
			return fmt.Errorf("chunk %s does not fit into an empty pack", info.ID)
		}
	}
	m.from = append(m.from, from)
	return nil
}

// flush uploads what was added and records where it is now. If it is interrupted
// the new pack is an orphan, or has what it holds, and the old one the rest.
func (m *mover) flush(ctx context.Context) error {
	if len(m.from) == 0 {
		return nil
	}
	op := fs.StorePack{Pack: pack.NewID()}
	for i, e := range m.b.Entries() {
		op.Chunks = append(op.Chunks, fs.Placed{Chunk: e.ID, From: m.from[i], Off: e.Off, Len: e.Len})
	}
	b := m.b.Finish(op.Pack)
	op.Size = uint32(len(b))
	put, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	if err := putOnce(put, m.r.c.o.Store, pack.Key(op.Pack), b); err != nil {
		return fmt.Errorf("upload a compacted pack: %w", err)
	}
	if err := recordAll(ctx, m.r.c.o.Ledger.StorePack, op); err != nil {
		return fmt.Errorf("record a compacted pack: %w", err)
	}
	for _, c := range op.Chunks {
		m.r.report.Moved.add(uint64(c.Len))
	}
	m.r.c.count(func(t *Totals) { t.Moved += uint64(len(op.Chunks)) })
	m.b, m.from = pack.Builder{}, nil
	return nil
}

// readWhole reads a chunk and compares it with its name.
func readWhole(ctx context.Context, from fs.Chunks, info fs.ChunkInfo) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	b := make([]byte, info.Size)
	n, err := from.ReadAt(ctx, info, b, 0)
	if err == nil && (n != len(b) || sha256.Sum256(b) != info.ID.Hash) {
		err = fs.ErrCorrupt
	}
	return b, err
}
