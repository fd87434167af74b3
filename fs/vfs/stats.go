package vfs

import "sync/atomic"

// metrics are the counters behind Stats.
type metrics struct {
	read, written, published, copied atomic.Uint64
	publications, failures           atomic.Uint64
}

// Stats is what an FS has done and holds. Counters only grow; gauges are marked.
type Stats struct {
	ReadBytes      uint64 // handed to readers
	WrittenBytes   uint64 // taken from writers
	PublishedBytes uint64 // committed
	CopiedBytes    uint64 // shared by copy_file_range(2)

	Publications       uint64 // operations that brought content
	PublicationsFailed uint64

	Handles     int    // gauge: open files and directories
	DirtyInodes int    // gauge: inodes with unpublished content
	DirtyBytes  uint64 // gauge: that content
	MemoryBytes int64  // gauge: the part of it that is in memory
}

// Stats takes a snapshot.
func (f *FS) Stats() Stats {
	s := Stats{
		ReadBytes:          f.metrics.read.Load(),
		WrittenBytes:       f.metrics.written.Load(),
		PublishedBytes:     f.metrics.published.Load(),
		CopiedBytes:        f.metrics.copied.Load(),
		Publications:       f.metrics.publications.Load(),
		PublicationsFailed: f.metrics.failures.Load(),
		MemoryBytes:        f.memory.used.Load(),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Handles = len(f.handles)
	for _, r := range f.records {
		if n, dirty := r.dirtyBytes(); dirty {
			s.DirtyInodes++
			s.DirtyBytes += n
		}
	}
	return s
}

func (r *record) dirtyBytes() (n uint64, dirty bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.segs {
		n += s.data.dirty.bytes()
	}
	return n, len(r.segs) > 0
}
