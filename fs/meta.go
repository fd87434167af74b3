package fs

import (
	"context"
	"time"
)

// View reads one state of the metadata. Its methods do not block on the
// network. Errors are *Error; ErrNotFound for a missing name or xattr is the
// answer, not a fault; an inode that is gone is ErrStale.
type View interface {
	// Lookup finds name in dir: ErrNotFound, ErrNotDir. It does not know "."
	// and "..": see Parent.
	Lookup(dir Ino, name string) (Attr, error)
	// Attr tells the attributes of an inode, orphans included.
	Attr(ino Ino) (Attr, error)
	// Parent is the directory that holds the directory dir; of the root, the root.
	Parent(dir Ino) (Ino, error)
	// List returns up to n entries of dir with cookies above after, in cookie
	// order, without "." and "..". Fewer than n means the end was reached.
	List(dir Ino, after uint64, n int) ([]Entry, error)
	// Readlink tells a symbolic link's target: ErrInvalid if it is none.
	Readlink(ino Ino) (string, error)
	// Extents returns the extents that overlap [off, off+n), in order, whole
	// (not clipped).
	Extents(ino Ino, off, n uint64) ([]Extent, error)
	// Chunk tells what is known about a chunk.
	Chunk(id ChunkID) (ChunkInfo, error)
	// Xattr reads an extended attribute: ErrNoXattr if there is none.
	Xattr(ino Ino, name string) ([]byte, error)
	// Xattrs lists their names, sorted.
	Xattrs(ino Ino) ([]string, error)
	// Usage is the file system's size.
	Usage() (Usage, error)
}

// Meta is the ordered metadata of the whole cluster as one node sees it.
type Meta interface {
	// Read runs f on this node's state and returns when what f saw may be
	// shown: every key it touched is stable, that is applied by every lease
	// holder, and the lease was still valid afterwards. f runs again when it
	// was not, so it must not have effects of its own. Read blocks for keys in
	// flight (normally a millisecond), and seconds for a lost lease;
	// then the node's policy decides: f's result from the last state it had
	// ("stale"), or ErrIO ("fail"). f's error is returned as it is. f must not
	// keep the View.
	//
	// keep is how long what f saw may be answered again without asking, by who
	// hears of each Change of it (rule R4); 0 is not at all. It counts from the
	// return of Read, and goes with an error of f as well: absence is cached too.
	Read(ctx context.Context, f func(View) error) (keep time.Duration, err error)
	// Do commits op and returns its result once every lease holder has applied
	// it. After an error of kind ErrIO the outcome is unknown; any other kind
	// is the decided result (Result.Kind). Do retries across leader changes
	// for 30 s. Cancelling ctx abandons only the wait, never the operation.
	Do(ctx context.Context, op Op) (Result, error)
}

// Chunks is the content behind the metadata.
type Chunks interface {
	// ReadAt fills p with the chunk's bytes from off and returns how many there
	// were (fewer than len(p) only at the chunk's end). It takes them from this
	// node's disk, from other nodes, or from the object store, and verifies
	// them: ErrCorrupt is never served, another copy is tried first. ErrIO if
	// no copy can be had; the message says where it looked.
	ReadAt(ctx context.Context, chunk ChunkInfo, p []byte, off int64) (int, error)
	// Put stores b (at most ChunkMax bytes) on this node's disk and on as many
	// others as the cluster's replica count asks for, and tells which nodes
	// have it. With sync the bytes are fsynced there. b may be reused
	// afterwards. Cited by a committed Piece it stays until the object store
	// has it.
	Put(ctx context.Context, b []byte, sync bool) (Hash, []NodeID, error)
}
