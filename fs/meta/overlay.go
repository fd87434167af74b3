package meta

import (
	"bytes"

	"github.com/google/btree"
)

const overlayDegree = 16

// overlay is a store with the writes of the entry being applied on top. A
// journal of what each write replaced lets a refused command leave nothing
// behind.
type overlay struct {
	base    Reader
	t       *btree.BTreeG[Write]
	journal []undo
}

type undo struct {
	before Write
	had    bool
}

func writeLess(a, b Write) bool { return bytes.Compare(a.Key, b.Key) < 0 }

func newOverlay(base Reader) *overlay {
	return &overlay{base: base, t: btree.NewG(overlayDegree, writeLess)}
}

// put keeps both slices.
func (o *overlay) put(key, value []byte) { o.write(Write{Key: key, Value: value}) }

// del keeps the slice.
func (o *overlay) del(key []byte) { o.write(Write{Key: key, Delete: true}) }

func (o *overlay) write(w Write) {
	before, had := o.t.ReplaceOrInsert(w)
	if !had {
		before.Key = w.Key
	}
	o.journal = append(o.journal, undo{before, had})
}

// mark starts a command: rollback returns to this point.
func (o *overlay) mark() { o.journal = o.journal[:0] }

func (o *overlay) rollback() {
	for i := len(o.journal) - 1; i >= 0; i-- {
		if u := o.journal[i]; u.had {
			o.t.ReplaceOrInsert(u.before)
		} else {
			o.t.Delete(u.before)
		}
	}
	o.mark()
}

// writes returns everything written, sorted by key.
func (o *overlay) writes() []Write {
	w := make([]Write, 0, o.t.Len())
	o.t.Ascend(func(x Write) bool {
		w = append(w, x)
		return true
	})
	return w
}

func (o *overlay) Get(key []byte) ([]byte, bool, error) {
	if w, ok := o.t.Get(Write{Key: key}); ok {
		return w.Value, !w.Delete, nil
	}
	return o.base.Get(key)
}

// Scan merges the overlay's range, collected first because it is small, into
// the base's.
func (o *overlay) Scan(lo, hi []byte, f func(k, v []byte) bool) error {
	var over []Write
	o.t.AscendGreaterOrEqual(Write{Key: lo}, func(w Write) bool {
		if hi != nil && bytes.Compare(w.Key, hi) >= 0 {
			return false
		}
		over = append(over, w)
		return true
	})
	if len(over) == 0 {
		return o.base.Scan(lo, hi, f)
	}
	more := true
	emit := func(w Write) bool {
		more = w.Delete || f(w.Key, w.Value)
		return more
	}
	err := o.base.Scan(lo, hi, func(k, v []byte) bool {
		for len(over) > 0 {
			c := bytes.Compare(over[0].Key, k)
			if c > 0 {
				break
			}
			w := over[0]
			over = over[1:]
			if !emit(w) {
				return false
			}
			if c == 0 {
				return true
			}
		}
		more = f(k, v)
		return more
	})
	if err != nil {
		return err
	}
	for len(over) > 0 && more {
		emit(over[0])
		over = over[1:]
	}
	return nil
}

func (o *overlay) Last(lo, hi []byte) (k, v []byte, ok bool, err error) {
	w, over := o.lastLive(lo, hi)
	for end := hi; ; end = k {
		k, v, ok, err = o.base.Last(lo, end)
		if err != nil {
			return nil, nil, false, err
		}
		if !ok || over && bytes.Compare(k, w.Key) <= 0 {
			break
		}
		if _, hidden := o.t.Get(Write{Key: k}); !hidden {
			return k, v, true, nil
		}
	}
	return w.Key, w.Value, over, nil
}

// lastLive is the overlay's own greatest pair in [lo, hi) that is not deleted.
func (o *overlay) lastLive(lo, hi []byte) (found Write, ok bool) {
	o.t.DescendLessOrEqual(Write{Key: hi}, func(w Write) bool {
		if bytes.Compare(w.Key, lo) < 0 {
			return false
		}
		if w.Delete || bytes.Equal(w.Key, hi) {
			return true
		}
		found, ok = w, true
		return false
	})
	return found, ok
}
