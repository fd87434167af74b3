package vfs

import (
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// record is what this node remembers about an inode that has handles here or
// unpublished content. It lives in FS.records as long as it has either.
type record struct {
	ino  fs.Ino
	refs int // handles and callers that hold it; guarded by FS.mu

	// publishing serialises the publications of the inode. It is held across
	// the network and taken before every other lock.
	publishing sync.Mutex

	mu     sync.RWMutex
	opened bool    // base was read, or made, while a handle kept the inode from being reclaimed
	base   fs.Attr // newest committed attributes seen here
	// segs is the unpublished content in the order of the writes. The sealed
	// ones come first; while one is being committed it is segs[0].
	segs    []*segment
	flight  *flight   // the operation in flight for segs[0], nil if none
	pubSeq  uint64    // FS.pubSeq when a segment was last removed, 0 if never
	mtime   fs.Time   // of the last local write
	shown   fs.Attr   // Version and Mtime as last reported with segments over them
	failing time.Time // since when publications have failed; zero if the last did not
	loss    error     // why unpublished content was given up, for handles older than lossSeq
	lossSeq uint64
	late    error // of a committed publication of which it is not known whether all nodes have it; for whoever waits for it
	// cutFirst: O_TRUNC found the file empty. There is nothing to cut, but what is
	// written next replaces what another node may publish meanwhile (rule R23).
	cutFirst bool
	durable  fs.Index // Version whose chunks are known to be on stable storage

	// The background publisher's; guarded by queue.mu.
	due   time.Time
	index int // in the heap, -1 if not queued
	tries int // failed publications in a row
}

// flight is one operation on its way through the log.
type flight struct {
	seen fs.Index      // committed content up to here certainly lacks the operation
	done chan struct{} // closed once it is decided and record.segs tells so
}

// hold returns the record of ino, made if need be, for the caller to release.
func (f *FS) hold(ino fs.Ino) *record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holdLocked(ino)
}

func (f *FS) holdLocked(ino fs.Ino) *record {
	r := f.records[ino]
	if r == nil {
		r = &record{ino: ino, index: -1}
		f.records[ino] = r
	}
	r.refs++
	return r
}

// release ends a hold and tells whether nobody holds the record any more
// although it has unpublished content.
func (f *FS) release(r *record) (orphaned bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.refs--; r.refs > 0 {
		return false
	}
	if r.isDirty() {
		return true
	}
	delete(f.records, r.ino)
	return false
}

// holdQueued holds a record that the queue gave out, if it is still in use.
func (f *FS) holdQueued(r *record) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.records[r.ino] != r {
		return false
	}
	r.refs++
	return true
}

// lookupRecord returns the record of ino or nil, without holding it.
func (f *FS) lookupRecord(ino fs.Ino) *record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[ino]
}

func (r *record) isDirty() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.segs) > 0
}

// learn takes over committed attributes if they are not older than the known
// ones. The caller holds r.mu.
func (r *record) learn(a fs.Attr) {
	if a.Version >= r.base.Version {
		r.base = a
	}
}

// size is the file's size with all segments over a file of size bytes. The
// caller holds r.mu.
func (r *record) size(size uint64) uint64 {
	for _, s := range r.segs {
		size = s.sizeAfter(size)
	}
	return size
}

// local is a with the segments over it, as local processes see it. The caller
// holds r.mu for writing.
func (r *record) local(a fs.Attr) fs.Attr {
	if len(r.segs) == 0 {
		return a
	}
	version := a.Version
	for _, s := range r.segs {
		if s.cut {
			a.Bytes = min(a.Bytes, s.cutTo)
		}
		a.Bytes += s.data.dirty.bytes()
		if s.kill {
			a.Mode = killSetid(a.Mode)
		}
	}
	a.Size = r.size(a.Size)
	// The time reported now is the one published later, and it changes with
	// everything a reader can see, other nodes' publications below our segments
	// included: the kernel drops its pages when, and only when, it changes.
	r.mtime = changedAt(r.mtime, a.Mtime)
	if version != r.shown.Version && r.shown.Version != 0 && !r.shown.Mtime.Before(r.mtime) {
		r.mtime = r.shown.Mtime.Next()
	}
	last := r.segs[len(r.segs)-1]
	if last.mtime.Before(r.mtime) && !last.sealed {
		last.mtime = r.mtime
	}
	r.shown.Version, r.shown.Mtime = version, r.mtime
	a.Mtime = r.mtime
	if a.Ctime.Before(a.Mtime) {
		a.Ctime = a.Mtime
	}
	return a
}

// futureSlack is how far ahead of the clock, in seconds, a file's mtime may be
// without having been set so on purpose.
const futureSlack = 10

// changedAt is the mtime of a file whose content changes at t and whose mtime
// was old, by the rule that the metadata applies as well: a different one, and a
// later one unless the old one lies in the future on purpose.
func changedAt(t, old fs.Time) fs.Time {
	limit := fs.Time{Sec: t.Sec + futureSlack, Nsec: t.Nsec}
	if t == old || t.Before(old) && !limit.Before(old) {
		return old.Next()
	}
	return t
}

// killSetid is mode without the bits that a write by an unprivileged process
// clears.
func killSetid(mode uint32) uint32 {
	mode &^= fs.ModeSetuid
	if mode&0o010 != 0 {
		mode &^= fs.ModeSetgid
	}
	return mode
}
