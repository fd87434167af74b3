package vfs

import (
	"sort"
	"sync/atomic"
)

const (
	// storeMemoryMax is how much of one segment stays in memory.
	storeMemoryMax = 1 << 20
	// storeRunsMax bounds the list that a write into a segment in memory walks.
	storeRunsMax = 512
	// runMin is the smallest buffer for a run that may grow.
	runMin = 512
)

// budget counts bytes of memory against a limit that all segments share.
type budget struct {
	max  int64
	used atomic.Int64
}

// take reserves n bytes, or reports that there is no room.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// run is content in memory from off on. No two runs share memory.
type run struct {
	off  uint64
	data []byte
}

func (r run) end() uint64 { return r.off + uint64(len(r.data)) }

// store keeps the bytes of one segment by offset: in memory while they are
// few, in a staging file after that. Its user serialises the calls; readAt and
// view may run side by side while nobody writes.
type store struct {
	budget *budget
	stage  *staging

	dirty  spans // what has been written
	runs   []run // sorted, disjoint; together exactly dirty, nil once spilled
	memory int64 // capacity of runs, taken from budget
	file   *stagingFile
	slots  map[uint64]slot // by offset / slotSize
}

// writeAt copies p to off. After a failure any part of p may be stored; the
// bytes that were there before are then lost, so the caller must not report
// the range as unwritten.
func (s *store) writeAt(p []byte, off uint64) error {
	if len(p) == 0 {
		return nil
	}
	if s.file == nil && !s.fits(len(p)) {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if s.file != nil {
		if err := s.stageAt(p, off); err != nil {
			return err
		}
	} else {
		s.keep(p, off)
	}
	s.dirty = s.dirty.add(off, off+uint64(len(p)))
	return nil
}

// fits reserves memory for n more bytes; keep corrects the reservation.
func (s *store) fits(n int) bool {
	if s.memory+int64(n) > storeMemoryMax || len(s.runs) >= storeRunsMax || !s.budget.take(int64(n)) {
		return false
	}
	s.memory += int64(n)
	return true
}

// keep copies p into the runs. The caller has reserved len(p) bytes.
func (s *store) keep(p []byte, off uint64) {
	grown := 0
	defer func() { s.give(int64(len(p) - grown)) }()
	end := off + uint64(len(p))
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end() > off })
	for at := off; at < end; {
		if i < len(s.runs) && s.runs[i].off <= at {
			at += uint64(copy(s.runs[i].data[at-s.runs[i].off:], p[at-off:]))
			i++
			continue
		}
		stop := end
		if i < len(s.runs) {
			stop = min(stop, s.runs[i].off)
		}
		piece := p[at-off : stop-off]
		if i > 0 && s.runs[i-1].end() == at {
			r := &s.runs[i-1]
			grown -= cap(r.data)
			r.data = append(r.data, piece...)
			grown += cap(r.data)
		} else {
			data := make([]byte, len(piece), max(len(piece), runMin))
			grown += cap(data)
			copy(data, piece)
			s.runs = append(s.runs, run{})
			copy(s.runs[i+1:], s.runs[i:])
			s.runs[i] = run{at, data}
			i++
		}
		at = stop
	}
}

func (s *store) give(n int64) {
	s.memory -= n
	s.budget.give(n)
}

// spill moves everything to a staging file, where later writes go too.
func (s *store) spill() error {
	s.file, s.slots = s.stage.pick(), map[uint64]slot{}
	for _, r := range s.runs {
		if err := s.stageAt(r.data, r.off); err != nil {
			s.dropSlots()
			s.file = nil
			return err
		}
	}
	s.runs = nil
	s.give(s.memory)
	return nil
}

func (s *store) stageAt(p []byte, off uint64) error {
	for len(p) > 0 {
		sl, ok := s.slots[off/slotSize]
		if !ok {
			var err error
			if sl, err = s.file.alloc(); err != nil {
				return err
			}
			s.slots[off/slotSize] = sl
		}
		n := min(uint64(len(p)), slotSize-off%slotSize)
		if err := sl.writeAt(p[:n], off%slotSize); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// cut forgets what is at or after at.
func (s *store) cut(at uint64) {
	s.dirty = s.dirty.cut(at)
	for len(s.runs) > 0 {
		r := &s.runs[len(s.runs)-1]
		if r.end() <= at {
			break
		}
		if r.off < at {
			r.data = r.data[:at-r.off]
			break
		}
		s.give(int64(cap(r.data)))
		s.runs = s.runs[:len(s.runs)-1]
	}
	for n, sl := range s.slots {
		if n*slotSize >= at {
			delete(s.slots, n)
			sl.drop()
		}
	}
}

// readAt fills p with the bytes from off. All of them must be dirty.
func (s *store) readAt(p []byte, off uint64) error {
	if s.file == nil {
		i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end() > off })
		for len(p) > 0 {
			n := copy(p, s.runs[i].data[off-s.runs[i].off:])
			p, off = p[n:], off+uint64(n)
			i++
		}
		return nil
	}
	for len(p) > 0 {
		n := min(uint64(len(p)), slotSize-off%slotSize)
		if err := s.slots[off/slotSize].readAt(p[:n], off%slotSize); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// view returns the n bytes from off, all dirty, without a copy where they lie
// together in memory, and in a fresh slice otherwise. The caller must not
// change them.
func (s *store) view(off uint64, n int) ([]byte, error) {
	if s.file == nil {
		i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end() > off })
		if r := s.runs[i]; r.end() >= off+uint64(n) {
			return r.data[off-r.off:][:n:n], nil
		}
	}
	p := make([]byte, n)
	return p, s.readAt(p, off)
}

// drop gives memory and disk space back. The store is empty afterwards.
func (s *store) drop() {
	s.give(s.memory)
	s.dropSlots()
	s.dirty, s.runs, s.file = nil, nil, nil
}

func (s *store) dropSlots() {
	for _, sl := range s.slots {
		sl.drop()
	}
	s.slots = nil
}
