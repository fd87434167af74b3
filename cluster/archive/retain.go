package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// manifests reads the snapshots of one epoch, oldest first. One that cannot be
// used is told to bad and left out.
func manifests(ctx context.Context, st object.Store, cluster string, epoch uint64, bad func(key string, err error)) ([]*Manifest, error) {
	var keys []string
	for info, err := range st.List(ctx, epochDir(snapPrefix, epoch), "") {
		if err != nil {
			return nil, err
		}
		if p, ok := parseKey(info.Key); ok && p.manifest {
			keys = append(keys, info.Key)
		}
	}
	var out []*Manifest
	for _, key := range keys {
		b, err := get(ctx, st, key)
		if errors.Is(err, object.NotExist) {
			continue // deleted meanwhile
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		var m *Manifest
		if err == nil {
			m, err = decodeManifest(b)
		}
		if err == nil && (m.Cluster != cluster && cluster != "" || manifestKey(m.Epoch, m.Index) != key) {
			err = damaged("it is of cluster %s, epoch %d, index %d", m.Cluster, m.Epoch, m.Index)
		}
		if err != nil {
			bad(key, err)
			continue
		}
		out = append(out, m)
	}
	return out, nil
}

// lastSegment is the First of the last segment in the bucket from an index on; 0:
// there is none.
func lastSegment(ctx context.Context, st object.Store, epoch uint64, from fs.Index) (last fs.Index, err error) {
	after := ""
	if from > 0 {
		after = segmentKey(epoch, from-1)
	}
	for info, err := range st.List(ctx, epochDir(logPrefix, epoch), after) {
		if err != nil {
			return 0, err
		}
		if p, ok := parseKey(info.Key); ok && p.segment {
			last = p.index
		}
	}
	return last, nil
}

// hasOlder tells whether anything of an older epoch is in the bucket. Keys are listed
// in the order of epochs.
func hasOlder(ctx context.Context, st object.Store, epoch uint64) (bool, error) {
	for _, prefix := range []string{snapPrefix, logPrefix} {
		for info, err := range st.List(ctx, prefix, "") {
			if err != nil {
				return false, err
			}
			p, ok := parseKey(info.Key)
			if ok && p.epoch < epoch {
				return true, nil
			}
			if ok {
				break
			}
		}
	}
	return false, nil
}

// garbageAge is how old an object of a snapshot without a manifest must be before
// it is deleted: until then another leader may be making one of it.
const garbageAge = time.Hour

// retain deletes what only older snapshots than the Keep newest need, and once
// there are two snapshots what older epochs have left. It returns the snapshots
// that stay; another leader's are among them, so it is the bucket that is asked.
// The manifest of a snapshot goes first, so that what is there is always whole;
// garbage that a crash leaves is found again later.
func (s *Shipper) retain(ctx context.Context, cluster string, epoch uint64) ([]*Manifest, error) {
	if err := s.o.Owner.Confirm(ctx); err != nil { // nothing of a foreign cluster is ever deleted
		return nil, err
	}
	var newer error
	snaps, err := manifests(ctx, s.o.Store, cluster, epoch, func(key string, err error) {
		if errors.Is(err, ErrNewer) {
			newer = fmt.Errorf("%s: %w", key, err)
		}
	})
	if err = errors.Join(err, newer); err != nil || len(snaps) == 0 {
		return nil, err
	}
	for len(snaps) > s.o.Keep {
		if err := s.deleteSnapshot(ctx, snaps[0]); err != nil {
			return snaps, err
		}
		snaps = snaps[1:]
	}
	parts := map[string]bool{}
	for _, m := range snaps {
		parts[manifestKey(epoch, m.Index)] = true
		for _, p := range m.Parts {
			parts[p.Key] = true
		}
	}
	return snaps, s.sweep(ctx, func(info object.Info, p parsedKey) bool {
		switch {
		case p.epoch > epoch:
			return false
		case p.epoch < epoch:
			return len(snaps) > 1
		case p.segment:
			return p.index < snaps[0].Next
		}
		return !parts[info.Key] && time.Since(info.Modified) > garbageAge
	})
}

func (s *Shipper) deleteSnapshot(ctx context.Context, m *Manifest) error {
	if err := s.o.Store.Delete(ctx, manifestKey(m.Epoch, m.Index)); err != nil {
		return err
	}
	for _, p := range m.Parts {
		if err := s.o.Store.Delete(ctx, p.Key); err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes the archive's objects that are garbage.
func (s *Shipper) sweep(ctx context.Context, garbage func(object.Info, parsedKey) bool) error {
	var keys []string
	for _, prefix := range []string{snapPrefix, logPrefix} {
		for info, err := range s.o.Store.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			if p, ok := parseKey(info.Key); ok && garbage(info, p) {
				keys = append(keys, info.Key)
			}
		}
	}
	for _, key := range keys {
		if err := s.o.Store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
