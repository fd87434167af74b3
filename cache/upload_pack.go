package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// errContent marks a failure that has nothing to do with the object store.
var errContent = errors.New("the content cannot be had")

// do works a job off: as many packs as it takes.
func (u *Uploader) do(ctx context.Context, j job) {
	defer u.jobEnds()
	for rest := j.chunks; len(rest) > 0; {
		var p pack.Builder
		var in []fs.ChunkInfo
		if ctx.Err() == nil {
			in, rest = u.fill(ctx, &p, rest)
		} else {
			in, rest = rest, nil
		}
		if len(p.Entries()) == 0 || ctx.Err() != nil || !u.ship(ctx, &p, in) {
			u.unclaim(in)
		}
	}
}

// fill adds the first of chunks to p, as many as it takes, and returns what is
// in it and what is left. Chunks that cannot be read are left out and come again
// later.
func (u *Uploader) fill(ctx context.Context, p *pack.Builder, chunks []fs.ChunkInfo) (in, rest []fs.ChunkInfo) {
	for i, info := range chunks {
		b, err := u.content(ctx, info)
		if err != nil {
			if ctx.Err() != nil {
				u.unclaim(chunks[i:])
				return in, nil
			}
			u.unreadable(info, err)
			u.unclaim(chunks[i : i+1])
			continue
		}
		if !p.Add(info.ID, b) {
			return in, chunks[i:]
		}
		info.Inline = nil // it may have been the last to keep these bytes
		chunks[i].Inline = nil
		in = append(in, info)
	}
	return in, nil
}

// content reads a whole chunk and compares it with its name.
func (u *Uploader) content(ctx context.Context, info fs.ChunkInfo) ([]byte, error) {
	if info.Size == 0 || info.Size > fs.ChunkMax {
		return nil, fmt.Errorf("%w: it has %d bytes", errContent, info.Size)
	}
	b, err := readWhole(ctx, u.o.Chunks, info)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errContent, err)
	}
	return b, nil
}

// ship uploads a pack and records it; false if one of them did not succeed.
func (u *Uploader) ship(ctx context.Context, p *pack.Builder, in []fs.ChunkInfo) bool {
	op := fs.StorePack{Pack: pack.NewID()}
	for _, e := range p.Entries() {
		op.Chunks = append(op.Chunks, fs.Placed{Chunk: e.ID, Off: e.Off, Len: e.Len})
	}
	b := p.Finish(op.Pack)
	op.Size = uint32(len(b))
	begun := time.Now()
	if !u.putPack(ctx, pack.Key(op.Pack), b) || !u.recordPack(ctx, op, begun) {
		return false
	}
	u.recorded(in, len(b))
	return true
}

// putPack returns true when the object store has b under key. It tries again
// what failed, under the same name, so that an answer that was lost costs
// nothing; false if it gave up.
func (u *Uploader) putPack(ctx context.Context, key string, b []byte) bool {
	for range packTries {
		if !u.turn(ctx) {
			return false
		}
		attempt, cancel := context.WithTimeout(ctx, uploadTimeout)
		err := putOnce(attempt, u.o.Store, key, b)
		cancel()
		u.turnEnds()
		if err == nil {
			u.storeWorks()
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		u.storeFails(fmt.Errorf("upload %s: %w", key, err))
	}
	return false
}

// putOnce puts b under a key that is nobody else's. If something is there, an
// earlier attempt was carried out and its answer lost (rule R39): if it is not
// these bytes, it is damaged, and writing it again cannot hurt anyone.
func putOnce(ctx context.Context, st object.Store, key string, b []byte) error {
	err := st.Put(ctx, key, b, object.PutOptions{IfAbsent: true})
	if !errors.Is(err, object.Exists) {
		return err
	}
	got, err := st.Get(ctx, key, 0, -1)
	if errors.Is(err, object.NotExist) || errors.Is(err, object.Damaged) || err == nil && !bytes.Equal(got, b) {
		return st.Put(ctx, key, b, object.PutOptions{})
	}
	return err
}

// recordPack asks until the metadata knows the pack: the object is there, that
// will not change before Life has passed. False if it gave up.
func (u *Uploader) recordPack(ctx context.Context, op fs.StorePack, begun time.Time) bool {
	for pause := u.o.BackoffMin; ; pause = min(2*pause, u.o.BackoffMax) {
		// By the wall clock: the other one stands still while a machine sleeps.
		if age := time.Now().Round(0).Sub(begun.Round(0)); age > u.o.Life {
			u.o.Log.Warn("a pack could not be recorded in time; its chunks are uploaded again", "pack", op.Pack, "age", age)
			return false
		}
		err := recordAll(ctx, u.o.Backlog.StorePack, op)
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			u.note(fmt.Errorf("record pack %s of %d chunks: %w", op.Pack, len(op.Chunks), err))
		}
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// recordAll records a pack in commands of bounded size. Repeating all of them
// after a failure is fine, and so is a pack of which only a part is recorded.
func recordAll(ctx context.Context, record func(context.Context, fs.StorePack) error, op fs.StorePack) error {
	for part := range slices.Chunk(op.Chunks, recordMax) {
		if err := record(ctx, fs.StorePack{Pack: op.Pack, Size: op.Size, Chunks: part}); err != nil {
			return err
		}
	}
	return nil
}
