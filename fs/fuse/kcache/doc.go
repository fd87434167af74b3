// Package kcache keeps the kernel's caches of one mount right: it knows what the
// kernel may have been told to keep, and takes it away before a change counts as
// seen on this node.
//
// It adds two nouns. A [Cache] is what one mount's kernel may hold: names
// (dentries, negative ones too), attributes, listings and pages. A [Notifier] is
// the way to tell that kernel something.
//
// # Names
//
// The kernel drops a name only under its directory's lock (FUSE_NOTIFY_INVAL_ENTRY,
// fuse_reverse_inval_entry in fs/fuse/dir.c), and a program that makes a file there
// holds that lock until all nodes have acknowledged the file: two nodes that do so
// in one directory would wait for each other. So:
//
//   - known: only names that were handed out to be kept have to be dropped. Each is
//     known for as long as the kernel may keep it, a few seconds.
//   - hot: a directory in which a conflict was seen hands out nothing for a while.
//   - the wait for the lock is bounded; after that FUSE_NOTIFY_INC_EPOCH (Linux 6.16)
//     makes all names of the mount be asked for again, without any lock. On older
//     kernels the directory's own name is dropped in its parent, which takes all
//     unused names below with it; when that is locked too, a longer wait must do.
//   - A call of this very kernel changes a name: that cannot be dropped either, and
//     other programs here must not see it as it was once another node has shown the
//     change. Then an epoch comes before the call is proposed.
//
// # Attributes and pages
//
// Attributes and listings are dropped without a lock, pages only when no READ of
// them is under way. A slow READ therefore does not hold the writer: the attributes
// are gone at once, and an answer that would bring new ones waits until the pages
// are gone too. For a READ that is answered from the old state after that, while the
// change is being applied, the pages are dropped once more. An inode whose attributes
// were dropped is unsettled until the kernel has certainly taken new ones: it ignores
// those in the answer to a request from before.
//
// # Locks
//
// Each type has its own; none is held while the kernel is told something.
package kcache
