package fs

// Op is one change of the file system. A new operation is a new struct here and
// a case in fs/meta, not a method on an interface. Whether it succeeds is
// decided when the entry is applied, the same way on every node.
type Op interface{ isOp() }

// Cred is who asks. The kernel has already checked permissions
// (default_permissions); Apply uses it for ownership, the sticky bit and the
// clearing of set-id bits. Uid 0 may do everything.
type Cred struct{ Uid, Gid uint32 }

// Create makes a regular file, or finds it: without Excl an existing regular
// file is a success with Result.Existed, because the kernel sends CREATE when
// it believes the name absent and another node may have been faster. An
// existing file of another type is ErrExist, a directory ErrIsDir.
type Create struct {
	Parent Ino
	Name   string
	Mode   uint32 // permission bits; the umask is already applied
	Excl   bool
	Cred   Cred
}

// Mkdir makes a directory.
type Mkdir struct {
	Parent Ino
	Name   string
	Mode   uint32
	Cred   Cred
}

// Mknod makes a fifo, socket, device or (as mknod(2) may) a regular file.
type Mknod struct {
	Parent Ino
	Name   string
	Mode   uint32 // type and permission bits
	Rdev   uint32
	Cred   Cred
}

// Symlink makes a symbolic link.
type Symlink struct {
	Parent Ino
	Name   string
	Target string
	Cred   Cred
}

// Tmpfile makes a regular file without a name (O_TMPFILE): an orphan from
// birth, until Link gives it a name.
type Tmpfile struct {
	Parent Ino // for the set-gid rule
	Mode   uint32
	Cred   Cred
}

// Link makes another name for an inode that is no directory.
type Link struct {
	Ino    Ino
	Parent Ino
	Name   string
}

// Unlink removes a name of something that is no directory.
type Unlink struct {
	Parent Ino
	Name   string
	Cred   Cred
}

// Rmdir removes an empty directory.
type Rmdir struct {
	Parent Ino
	Name   string
	Cred   Cred
}

// RenameFlags as in renameat2(2).
type RenameFlags uint32

// The flags; both together are ErrInvalid.
const (
	RenameNoReplace RenameFlags = 1
	RenameExchange  RenameFlags = 2
)

// Rename moves a name, replacing what the new name held unless told otherwise.
type Rename struct {
	Parent    Ino
	Name      string
	NewParent Ino
	NewName   string
	Flags     RenameFlags
	Cred      Cred
}

// AttrMask says which fields of SetAttr are meant.
type AttrMask uint32

// The fields.
const (
	SetMode AttrMask = 1 << iota
	SetUid
	SetGid
	SetSize
	SetAtime
	SetMtime
	// KillSetid clears set-uid, and set-gid where the group may execute, as a
	// write or truncate by an unprivileged process does.
	KillSetid
)

// SetAttr is chmod, chown, truncate and utimensat in one. UTIME_NOW is a plain
// time here: the proposer has stamped it.
type SetAttr struct {
	Ino   Ino
	Mask  AttrMask
	Mode  uint32 // permission bits
	Uid   uint32
	Gid   uint32
	Size  uint64
	Atime Time
	Mtime Time
	Cred  Cred
}

// XattrFlags as in setxattr(2).
type XattrFlags uint32

// The flags.
const (
	XattrCreate  XattrFlags = 1
	XattrReplace XattrFlags = 2
)

// SetXattr sets one extended attribute.
type SetXattr struct {
	Ino   Ino
	Name  string
	Value []byte
	Flags XattrFlags
}

// RemoveXattr removes one extended attribute.
type RemoveXattr struct {
	Ino  Ino
	Name string
}

// Piece is content on its way into a file: Len bytes at Off (Publish) or after
// the previous piece (Append, where Off is ignored). Either Data carries the
// bytes themselves (Data has Len bytes, Hash and ChunkOff are ignored and Apply
// computes the hash) or Hash names a chunk of ChunkLen bytes that Holders
// already have on disk.
type Piece struct {
	Off      uint64
	Len      uint64
	Data     []byte
	Hash     Hash
	ChunkOff uint32
	ChunkLen uint32
	Holders  []NodeID
}

// Publish makes buffered changes of a file's content visible, all at once:
// first the file is cut to *Cut bytes if Cut is set (so that O_TRUNC or
// ftruncate is never seen apart from the bytes that follow it, rule R23), then
// Pieces replace what they overlap, then the file grows to Grow bytes if it is
// shorter. Attr, if not nil, is applied after that in the same entry; its Ino
// is ignored. Mtime is when the last of the writes happened.
type Publish struct {
	Ino    Ino
	Cut    *uint64
	Pieces []Piece
	Grow   uint64
	Mtime  Time
	Mask   AttrMask // KillSetid or 0
	Attr   *SetAttr
}

// Append puts Pieces behind the end of file, wherever that is when the entry is
// applied; Result.Offset says where. Nothing from another node lands between
// the pieces of one Append.
type Append struct {
	Ino    Ino
	Pieces []Piece
	Mtime  Time
	Mask   AttrMask // KillSetid or 0
	Attr   *SetAttr
}

// OpenSession registers one run of a node's daemon. Commands of a session that
// is not registered are refused with ErrStale.
type OpenSession struct {
	Session SessionID
	Node    NodeID
}

// ExpireSession ends sessions whose node is gone or has ended; every later
// command of theirs is refused (rule R25).
type ExpireSession struct{ Sessions []SessionID }

// Reclaim removes orphans that no node holds open any more (rule R30). Inodes
// that are no orphans are skipped.
type Reclaim struct{ Inos []Ino }

// MarkDurable records that the object store has these chunks; inline content
// of them is dropped from the metadata.
type MarkDurable struct{ Chunks []ChunkID }

// StorePack records that the object store has a pack of Size bytes and which
// chunks are in it. It does as much as can be done and succeeds: chunks that are
// unknown, condemned or durable elsewhere are skipped, and a pack that is
// condemned takes no more. What was skipped and is still wanted is in the list
// of what is not durable. Inline content of chunks that became durable is
// dropped from the metadata.
type StorePack struct {
	Pack   PackID
	Size   uint32
	Chunks []Placed
}

// Placed is a chunk in a pack. From is zero for a chunk that was not durable,
// and the pack that the chunk is to leave if it is moved; if it is not there (any
// more), it stays where it is.
type Placed struct {
	Chunk ChunkID
	From  PackID
	Off   uint32
	Len   uint32
}

// Condemn gives up chunks that nothing cites: from this entry on they cannot be
// cited, and the same bytes make a new generation (rule R37). Chunks that are
// cited again by now are skipped. Packs are objects that were found in the store
// and that no StorePack ever recorded; known ones are skipped.
type Condemn struct {
	Chunks []ChunkID
	Packs  []PackID
}

// Forget ends the life of condemned things: of chunks without an object of their
// own, of chunks whose own object has been deleted, and of packs whose object has
// been deleted. Whatever is not condemned, and packs that known chunks are in,
// are skipped.
type Forget struct {
	Chunks []ChunkID
	Packs  []PackID
}

// MarkLost records that content is gone: neither the object store has it, nor the
// nodes that had it on disk. Whoever cites a chunk goes on citing it, and cannot
// read it until the same bytes are written again, which makes it whole. Content in
// the metadata stays, and so does what is unknown or condemned.
type MarkLost struct{ Chunks []ChunkID }

// SetLimits sets the limits of the whole file system; 0 means none.
type SetLimits struct{ BytesMax, InodeMax uint64 }

// InitCluster gives a new cluster its identity. Only the first one counts.
type InitCluster struct{ UUID string }

// AdoptCluster makes a state that was restored from a bucket the first one of a
// new cluster: it gets another identity, and the sessions of the old one's nodes
// go without a trace, so that their names are free again. It is the first entry
// of the new cluster and never comes later.
type AdoptCluster struct{ UUID string }

// RecordShipped records that the bucket has the log up to Index, and that nothing
// before Oldest can be restored from it any more (rule R40). Both only grow.
type RecordShipped struct{ Index, Oldest Index }

// Limits of settings.
const (
	SettingKeyMax   = 512
	SettingValueMax = 64 << 10
)

// SetSetting gives a setting of the cluster the value Value (nil: removes it), if
// its value is Old (nil: there is none); otherwise it is ErrExist. Settings are no
// part of the file system: a balancer keeps its certificates there.
type SetSetting struct {
	Key        string
	Old, Value []byte
}

// Barrier changes nothing. A new leader commits one to learn what is committed.
type Barrier struct{}

func (Create) isOp()        {}
func (Mkdir) isOp()         {}
func (Mknod) isOp()         {}
func (Symlink) isOp()       {}
func (Tmpfile) isOp()       {}
func (Link) isOp()          {}
func (Unlink) isOp()        {}
func (Rmdir) isOp()         {}
func (Rename) isOp()        {}
func (SetAttr) isOp()       {}
func (SetXattr) isOp()      {}
func (RemoveXattr) isOp()   {}
func (Publish) isOp()       {}
func (Append) isOp()        {}
func (OpenSession) isOp()   {}
func (ExpireSession) isOp() {}
func (Reclaim) isOp()       {}
func (MarkDurable) isOp()   {}
func (StorePack) isOp()     {}
func (Condemn) isOp()       {}
func (Forget) isOp()        {}
func (MarkLost) isOp()      {}
func (SetLimits) isOp()     {}
func (InitCluster) isOp()   {}
func (SetSetting) isOp()    {}
func (Barrier) isOp()       {}
func (AdoptCluster) isOp()  {}
func (RecordShipped) isOp() {}

// Command is an Op on its way through the log. Session and Seq make it exactly
// once however often it is sent; LowWater tells that the session has its answer
// to every Seq below it, so those results may be forgotten. Session 0 is the
// cluster's own housekeeping (Reclaim, MarkDurable, OpenSession, …), which is
// idempotent and keeps no results. The proposer stamps Now: Apply reads no clock.
type Command struct {
	Session  SessionID
	Seq      uint64 // from 1
	LowWater uint64
	Now      Time
	Op       Op
}

// Result is the outcome of a Command, errors included.
type Result struct {
	Index   Index  // of the entry that decided it
	Kind    Kind   // OK, or why the operation failed
	Attr    Attr   // after the operation: of the made, found, linked or changed inode; of the removed one for Unlink and Rmdir; of the moved one for Rename
	Offset  uint64 // Append: where the data went
	Existed bool   // Create: the file was already there
}

// KeyKind says which part of an inode a Key means.
type KeyKind uint8

// The kinds of keys.
const (
	KeyName KeyKind = iota + 1 // the name Name in the directory Ino, present or not
	KeyAttr                    // attributes, link target and xattrs of the inode
	KeyData                    // content of the file
	KeyList                    // the listing of the directory
)

// Key names something that readers can see and entries change. Visibility
// (rule R22) and kernel invalidation are decided per key.
type Key struct {
	Kind KeyKind
	Ino  Ino
	Name string // KeyName only
}

// Change is a key that an entry of the log changes, as told to the kernel of one
// node before the entry can be seen there.
type Change struct {
	Key
	// Own: a call of this node's own kernel makes the change and waits for the
	// entry, and no other command of the entry makes it too. The kernel updates
	// what it has cached of the key by itself when the call is answered, and holds
	// the directory's lock until then.
	Own bool
	// Listed: of what the attributes of a directory tell, only that follows from its
	// names has changed.
	Listed bool
	// Moved: the name's inode has got a name in another directory. If it is a
	// directory, the kernel must let go of this name even if it may not keep it:
	// it has one dentry for each directory, and does not move it where others hold
	// a lock (ESTALE from d_splice_alias).
	Moved bool
}
