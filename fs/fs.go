package fs

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// Ino is an inode number. Numbers are never reused within one cluster, so a
// number names the same file for ever. It doubles as the FUSE node id.
type Ino uint64

// RootIno is the root directory. FUSE_ROOT_ID in the kernel's
// include/uapi/linux/fuse.h has the same value, on purpose.
const RootIno Ino = 1

func (i Ino) String() string { return strconv.FormatUint(uint64(i), 10) }

// Index is a position in the replicated log. It only grows.
type Index uint64

// NodeID names a member of the cluster for as long as it keeps its data
// directory. A node that lost its log comes back under a new one.
type NodeID string

// SessionID names one run of one node's daemon (its incarnation). It is drawn
// at random at start, is never 0, and is registered by [OpenSession].
type SessionID uint64

// Hash is the SHA-256 of a chunk's bytes.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ChunkID names immutable bytes. Gen is the index of the log entry that created
// the chunk, so a name is never used twice even when the same bytes come back
// after they were deleted (rule R36): a late DELETE cannot hit a new upload.
type ChunkID struct {
	Hash Hash
	Gen  Index
}

func (c ChunkID) String() string { return fmt.Sprintf("%s-%x", c.Hash, uint64(c.Gen)) }

// PackID names an object that holds chunks. Who makes the object draws it at
// random, so no name is ever used twice (rule R36). The zero PackID is none.
type PackID [16]byte

func (p PackID) String() string { return hex.EncodeToString(p[:]) }

// Place is where the object store has a chunk: Len bytes at Off of a pack. The
// zero Place of a durable chunk means an object of its own, as the first
// releases made them.
type Place struct {
	Pack PackID
	Off  uint32
	Len  uint32 // bytes in the object, not of the chunk
}

// Limits that every part agrees on.
const (
	NameMax     = 255             // bytes in one directory entry's name
	SymlinkMax  = 4095            // bytes in a symbolic link's target
	LinkMax     = 65000           // links to one inode, as ext4 has it
	XattrMax    = 64 << 10        // bytes in one extended attribute's value
	XattrSumMax = 256 << 10       // bytes of all names and values of one inode
	ChunkMax    = 4 << 20         // bytes in one chunk
	PackMax     = 8 << 20         // bytes in one pack
	InlineMax   = 256 << 10       // bytes of content that one command may carry
	ExtentsMax  = 8192            // extents in one publication
	FileMax     = uint64(1) << 60 // bytes in one file
)

// Time is a point in time with nanoseconds, as statx(2) reports it: it covers
// the whole range of 64-bit seconds, which a count of nanoseconds would not.
type Time struct {
	Sec  int64
	Nsec uint32
}

// TimeOf converts t.
func TimeOf(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// Next is the smallest time after t.
func (t Time) Next() Time {
	if t.Nsec == 999_999_999 {
		return Time{t.Sec + 1, 0}
	}
	return Time{t.Sec, t.Nsec + 1}
}

// Std converts t to the standard library's type.
func (t Time) Std() time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// File types and special permission bits of Attr.Mode, as in stat(2).
const (
	ModeType    uint32 = 0o170000
	ModeSocket  uint32 = 0o140000
	ModeSymlink uint32 = 0o120000
	ModeRegular uint32 = 0o100000
	ModeBlock   uint32 = 0o060000
	ModeDir     uint32 = 0o040000
	ModeChar    uint32 = 0o020000
	ModeFifo    uint32 = 0o010000
	ModeSetuid  uint32 = 0o4000
	ModeSetgid  uint32 = 0o2000
	ModeSticky  uint32 = 0o1000
	ModePerm    uint32 = 0o7777 // all permission bits, special ones included
)

// Attr is what stat(2) tells about an inode.
type Attr struct {
	Ino        Ino
	Generation uint64 // index of the entry that created the inode, for file handles
	Mode       uint32 // type and permission bits
	Uid, Gid   uint32
	Nlink      uint32
	Rdev       uint32
	Size       uint64 // bytes; of a directory: 4096
	Bytes      uint64 // bytes that extents cover; holes are not counted
	Atime      Time
	Mtime      Time
	Ctime      Time
	Btime      Time
	// Version is the index of the last entry that changed the content (of a
	// directory: its entries). It only grows.
	Version Index
}

// IsDir, IsRegular and IsSymlink ask for the file type.
func (a Attr) IsDir() bool     { return a.Mode&ModeType == ModeDir }
func (a Attr) IsRegular() bool { return a.Mode&ModeType == ModeRegular }
func (a Attr) IsSymlink() bool { return a.Mode&ModeType == ModeSymlink }

// Entry is one name in a directory.
type Entry struct {
	Name string
	Ino  Ino
	Type uint32 // the ModeType bits of the inode
	// Cookie orders the entries of one directory for readdir. It is given when
	// the name is made and never changes or returns, so a listing that is
	// continued after other entries came and went neither repeats nor misses
	// the ones that stayed. Cookies start at 3: 1 and 2 are "." and "..".
	Cookie uint64
}

// Extent maps Len bytes of a file from Off to a chunk's bytes from ChunkOff.
// Bytes of a file that no extent covers are zero.
type Extent struct {
	Off      uint64
	Len      uint64
	Chunk    ChunkID
	ChunkOff uint32
}

// ChunkInfo is what the metadata knows about a chunk.
type ChunkInfo struct {
	ID      ChunkID
	Size    uint32
	Refs    uint64   // extents that cite it
	Holders []NodeID // nodes that had it on disk when it was committed
	Durable bool     // the object store has it
	Place   Place    // where; zero unless Durable
	// Condemned is the index of the entry that gave the chunk up for removal;
	// 0: none has. Nothing cites it and nothing ever will again. CondemnedAt is
	// when that entry was proposed.
	Condemned   Index
	CondemnedAt Time
	// Inline is the content of a chunk that travelled inside the log and is
	// not durable yet; nil otherwise. The caller must not change it.
	Inline []byte
}

// PackInfo is what the metadata knows about a pack.
type PackInfo struct {
	ID          PackID
	Size        uint64 // bytes of the object; 0 if only a listing told of it
	Made        Index  // of the entry that recorded it
	Chunks      uint64 // chunks that the metadata knows to be in it
	Live        uint64 // of these, not condemned
	LiveBytes   uint64 // bytes of the object that the live ones take
	Condemned   Index  // of the entry with which the last live chunk went; 0: there are some
	CondemnedAt Time   // when that entry was proposed
}

// Usage is what statfs(2) and limits are made of.
type Usage struct {
	Bytes    uint64 // sum of the sizes of regular files
	Inodes   uint64
	BytesMax uint64 // 0: no limit
	InodeMax uint64 // 0: no limit
}
