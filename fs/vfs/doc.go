// Package vfs is the file system without a kernel in it: handles, buffered
// content and its publication, on top of ordered metadata ([fs.Meta]) and
// content ([fs.Chunks]). fs/fuse puts a kernel in front of it; tests call it
// directly.
//
// # Nouns
//
// A handle is one open file or directory. A record is what this node remembers
// about an inode that has handles or unpublished content. A segment is
// unpublished content of one inode: either positional (ranges that replace what
// they overlap, a cut, a length to grow to) or append (bytes that go behind the
// end of file, wherever that is when they are published). A record holds its
// segments in the order of the writes; all local handles of an inode share
// them, so local processes see each other's writes at once. A publication turns
// sealed segments into Publish and Append operations, in order.
//
// # What waits for what
//
// A write(2) waits for memory and the local disk only, never for other nodes or
// the log, and so does an ftruncate(2): the kernel holds page or inode locks
// while it waits for us, and another node's invalidation of that page must not
// depend on our waiting (O_SYNC writes are the exception; fs/fuse opens such
// files without a page cache, so that no page lock is held). A read waits for
// [fs.Meta.Read] and for content. Close, fsync and name operations wait for the
// commit.
//
// # What a reader sees
//
// A reader sees the committed state with the local segments painted over it. An
// operation that is committed but whose segment is not yet removed would be
// painted twice, which matters for appends; FS.settled explains how that is
// told apart.
//
// # Locks
//
// In order: record.publishing (held across the network; serialises the
// publications of one inode), FS.mu (the tables), record.mu (one inode's
// segments), and then one of the leaves: queue.mu, syncedSet.mu, staging.mu,
// stagingFile.mu. Nothing waits for the network or for chunks while it holds any
// but the first.
//
// # Goroutines
//
// [FS.Run] owns the only long-lived one, the background publisher; it and
// everybody who publishes start short-lived ones, at most Options.PutParallel
// for content and publishersMax for inodes, and wait for them.
package vfs
