package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/wpfs/wpfs/cache/policy"
	"github.com/wpfs/wpfs/fs"
)

const (
	keepRoomEvery = time.Second
	ageEvery      = time.Hour // see policy.Index.Fresh
)

// Run learns what is held while the Disk is in use, then keeps room free, and
// reads everything again in the time that ScrubPass sets, until ctx ends.
func (d *Disk) Run(ctx context.Context) error {
	if err := d.Scan(ctx); err != nil && ctx.Err() == nil {
		d.o.Log.Error("the cache cannot be counted: what is not known is not dropped", "error", err)
	}
	room, age := time.NewTicker(keepRoomEvery), time.NewTicker(ageEvery)
	defer room.Stop()
	defer age.Stop()
	for {
		select {
		case <-room.C:
			d.keepRoom()
		case <-age.C:
			d.index.Age()
		case <-ctx.Done():
			return nil
		}
	}
}

// Scan learns what is held, from the index that an earlier process has left and
// from the directories, one at a time, while the Disk is in use. Chunks that the
// index does not have cost a stat each.
func (d *Disk) Scan(ctx context.Context) error {
	d.loadIndex()
	var strange []aged
	for i := range shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		found, err := d.scanShard(byte(i))
		if err != nil {
			return fmt.Errorf("count cache %s: %w", d.dir, err)
		}
		strange = append(strange, found...)
	}
	for _, h := range d.index.Doubtful() {
		d.forgetIfGone(h)
	}
	// The oldest go first.
	slices.SortFunc(strange, func(a, b aged) int { return int(b.at) - int(a.at) })
	for _, a := range strange {
		d.index.Chill(a.hash)
	}
	d.scanned.Store(true)
	return nil
}

// aged is a chunk that only its file tells of.
type aged struct {
	hash fs.Hash
	at   uint32 // Unix seconds of the last change
}

func (d *Disk) scanShard(i byte) (strange []aged, err error) {
	s := &d.shard[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := d.path(chunkDir, hex.EncodeToString([]byte{i}))
	names, err := d.o.files.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		h, ok := parseHash(name)
		if !ok || d.index.Confirm(h) {
			continue
		}
		st, err := d.o.files.Stat(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Fresh: whether it is needed cannot be known before the log was read.
		if d.index.AddCold(h, st.size, true) {
			strange = append(strange, aged{h, st.changed})
		}
	}
	return strange, nil
}

func parseHash(name string) (h fs.Hash, ok bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(h) {
		return h, false
	}
	return fs.Hash(b), true
}

// forgetIfGone takes a chunk out of the index that has no file.
func (d *Disk) forgetIfGone(h fs.Hash) {
	s := d.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := d.o.files.Stat(d.chunkPath(h)); errors.Is(err, os.ErrNotExist) {
		d.index.Remove(h)
	}
}

// loadIndex takes over what the process before has left, and removes it: after a
// crash there is none, and the scan finds everything.
func (d *Disk) loadIndex() {
	f, err := os.Open(d.path(indexFile))
	if err != nil {
		return
	}
	var all []policy.Record
	err = policy.Load(f, func(r policy.Record) { all = append(all, r) })
	f.Close()
	if rerr := os.Remove(d.path(indexFile)); err == nil {
		err = rerr
	}
	if err != nil {
		d.o.Log.Warn("the index of the cache is not used; it is made anew", "dir", d.dir, "error", err)
		return
	}
	d.index.Restore(all)
}

// saveIndex leaves the index to the next process, if it is complete.
func (d *Disk) saveIndex() {
	if !d.scanned.Load() {
		return
	}
	temp := d.path(tempDir, indexFile)
	f, err := os.Create(temp)
	if err == nil {
		err = errors.Join(d.index.Save(f), f.Close())
	}
	if err == nil {
		err = os.Rename(temp, d.path(indexFile))
	}
	if err != nil {
		d.o.Log.Warn("the index of the cache cannot be written; the next start makes it anew", "dir", d.dir, "error", err)
	}
}
