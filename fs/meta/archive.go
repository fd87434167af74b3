package meta

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// Shipped is what the bucket has of the cluster's log (rule R40).
type Shipped struct {
	Index  fs.Index // everything up to here
	Oldest fs.Index // no state before this one can be restored from it; 0: none can
}

// Shipped is what was recorded last. It lags behind what was shipped.
func (s *State) Shipped() (Shipped, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return reader{s.kv}.shipped()
}

func (r reader) shipped() (Shipped, error) {
	b, ok, err := r.src.Get(keyShipped)
	if err != nil || !ok {
		return Shipped{}, err
	}
	return decodeShipped(b)
}

func (t *tx) recordShipped(o fs.RecordShipped) error {
	if o.Index > t.at || o.Oldest > o.Index {
		return fs.ErrInvalid
	}
	old, err := t.shipped()
	if err != nil {
		return err
	}
	t.o.put(keyShipped, Shipped{max(old.Index, o.Index), max(old.Oldest, o.Oldest)}.encode())
	return nil
}

func (t *tx) adoptCluster(o fs.AdoptCluster) error {
	if o.UUID == "" || len(o.UUID) > UUIDMax {
		return fs.ErrInvalid
	}
	t.o.put(keyUUID, encodeBlob([]byte(o.UUID)))
	t.o.del(keyShipped)
	for _, kind := range []byte{kindSession, kindResult} {
		lo := []byte{kind}
		if err := t.deleteRange(lo, after(lo)); err != nil {
			return err
		}
	}
	return nil
}

// Image is one state as Export hands it out.
type Image struct {
	Applied fs.Index
	Hash    uint64 // State.StateHash at Applied
}

// Export hands out every record of the present state, in the order of keys:
// begin is called first, once, and then f for each. Neither may keep k and v nor
// use the State; Apply goes on meanwhile. The first error ends the export and is
// returned as it is.
func (s *State) Export(begin func(Image) error, f func(k, v []byte) error) error {
	snap, err := s.kv.Snapshot()
	if err != nil {
		return err
	}
	a, err := readApplied(snap)
	if err == nil {
		err = begin(Image{a.at, a.hash})
	}
	if err == nil {
		var failed error
		err = snap.Scan(nil, nil, func(k, v []byte) bool {
			failed = f(k, v)
			return failed == nil
		})
		if failed != nil {
			err = failed
		}
	}
	return errors.Join(err, snap.Close())
}

// Importer fills an empty store with the records of an export.
type Importer struct {
	kv    KV
	batch []Write
	size  int
	last  []byte
}

// importBatch bounds what an Importer holds in memory, in bytes.
const importBatch = 1 << 20

// NewImporter fills kv, which must be empty and which the caller still owns.
func NewImporter(kv KV) *Importer { return &Importer{kv: kv} }

// Add takes the next record; its slices are copied. Keys must ascend.
func (i *Importer) Add(k, v []byte) error {
	if len(k) == 0 || bytes.Compare(k, i.last) <= 0 {
		return corrupt("import metadata", fmt.Errorf("key %x is not above %x", k, i.last))
	}
	w := Write{Key: bytes.Clone(k), Value: append([]byte{}, v...)}
	i.batch, i.last = append(i.batch, w), w.Key
	if i.size += len(k) + len(v); i.size < importBatch {
		return nil
	}
	return i.commit()
}

func (i *Importer) commit() error {
	err := i.kv.Commit(i.batch)
	i.batch, i.size = nil, 0
	return err
}

// Close writes the rest. The store is not flushed.
func (i *Importer) Close() error { return i.commit() }
