package protocol

import "github.com/wpfs/wpfs/fs"

// flight remembers which keys are changed by entries that are not stable yet,
// so that they can be held back until S has passed them (R22).
type flight struct {
	limit   int
	floor   fs.Index // everything is in flight up to here: restart, snapshot, overflow
	keys    map[fs.Key]fs.Index
	order   []flown // in log order; order[:head] is done with
	head    int
	closing map[fs.Key]fs.Index
}

// flown is one entry's share of keys.
type flown struct {
	index fs.Index
	keys  []fs.Key
}

func newFlight(limit int, floor fs.Index) flight {
	return flight{limit: limit, floor: floor, keys: map[fs.Key]fs.Index{}, closing: map[fs.Key]fs.Index{}}
}

// add notes keys as changed by index. Beyond the limit single keys are not
// remembered: then everything waits for this index, which is slower and safe.
func (f *flight) add(index fs.Index, keys []fs.Key) {
	for _, k := range keys {
		if f.closing[k] <= index {
			delete(f.closing, k)
		}
	}
	if len(f.keys)+len(keys) > f.limit {
		f.floor = max(f.floor, index)
		return
	}
	for _, k := range keys {
		f.keys[k] = max(f.keys[k], index)
	}
	f.order = append(f.order, flown{index, append([]fs.Key(nil), keys...)})
}

// settle forgets what S has passed.
func (f *flight) settle(stable fs.Index) {
	for f.head < len(f.order) && f.order[f.head].index <= stable {
		for _, k := range f.order[f.head].keys {
			if f.keys[k] <= stable {
				delete(f.keys, k)
			}
		}
		f.order[f.head].keys = nil
		f.head++
	}
	if f.head == len(f.order) {
		f.order, f.head = f.order[:0], 0
	} else if f.head > 64 && f.head > len(f.order)/2 {
		f.order = append(f.order[:0], f.order[f.head:]...)
		f.head = 0
	}
}

// waitFor is the index that S must reach before keys may be shown; 0 if they may.
func (f *flight) waitFor(stable fs.Index, keys []fs.Key) fs.Index {
	var i fs.Index
	if f.floor > stable {
		i = f.floor
	}
	if len(f.keys) == 0 {
		return i
	}
	for _, k := range keys {
		i = max(i, f.keys[k])
	}
	return i
}

// cacheable reports whether the kernel may keep what it is told about keys.
func (f *flight) cacheable(stable fs.Index, keys []fs.Key) bool {
	if f.waitFor(stable, keys) > 0 {
		return false
	}
	if len(f.closing) > 0 {
		for _, k := range keys {
			if f.closing[k] > 0 {
				return false
			}
		}
	}
	return true
}
