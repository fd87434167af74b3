package cluster

import (
	"context"
	"slices"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// Kernel is this node's mount, as far as its kernel answers from caches of its
// own. What those hold counts as shown by this node: so it is taken away before
// the node says that it has applied what changed it.
//
// The order of one entry, on the goroutine that applies: its keys are marked as
// closing, so that no answer about them may be kept any more; Invalidate; the
// keys are marked as pending, so that answers about them wait for S; the state
// switches; Switched; the node acknowledges. Answers that are given while
// Invalidate runs come from the old state, and wait for nothing but lower
// indices (invariant I9): they cannot be in its way for long.
type Kernel interface {
	// Invalidate returns when the kernel answers about none of changes from its
	// caches. It blocks for milliseconds at most, whatever the kernel is busy
	// with: what takes longer is kept from being shown in other ways. One call at a
	// time, in the order of the log.
	Invalidate(changes []fs.Change)
	// Switched tells that the state has switched to the entry of the last
	// Invalidate. It does not block.
	Switched()
	// Drop returns when the kernel answers nothing from its caches that it was
	// told before the call; with content also no page of a file. It may block for
	// as long as the longest time that an answer was given to keep.
	Drop(content bool)
}

// SetKernel tells the node its mount, before that answers the first call; nil
// when the mount's connection has ended.
func (n *Node) SetKernel(k Kernel) {
	if k == nil {
		n.kernel.Store(nil)
		return
	}
	n.kernel.Store(&k)
}

// closeKeys is meta's hook, on the goroutine that applies: the state is about to
// switch to at.
func (n *Node) closeKeys(at fs.Index, keys []fs.Key, by []int) {
	n.pmu.Lock()
	n.member.Closing(at, keys)
	n.pmu.Unlock()
	// Looked up after that: a mount that begins now hands nothing out behind our back.
	if k := n.kernel.Load(); k != nil {
		(*k).Invalidate(n.changes(keys, by))
	}
	n.pmu.Lock()
	defer n.pmu.Unlock()
	n.member.Pending(at, keys)
}

// changes tells the mount's own changes from those of others. A command counts
// as its own only while somebody here waits for it: after an answer of unknown
// outcome the kernel has not updated anything.
func (n *Node) changes(keys []fs.Key, by []int) []fs.Change {
	out := make([]fs.Change, len(keys))
	onlyNames := !slices.ContainsFunc(n.entry, func(c fs.Command) bool { return !changesNames(c.Op) })
	for i, k := range keys {
		out[i].Key = k
		out[i].Listed = k.Kind == fs.KeyAttr && (onlyNames || by[i] >= 0 && changesNames(n.entry[by[i]].Op))
		if by[i] >= 0 {
			op := n.entry[by[i]].Op
			out[i].Own = n.own[by[i]] && keepsOwn(k.Kind, op)
			out[i].Moved = k.Kind == fs.KeyName && moves(op, k)
		}
	}
	return out
}

// changesNames tells whether op makes, moves or removes names, and changes the
// attributes of directories in no other way.
func changesNames(op fs.Op) bool {
	switch op.(type) {
	case fs.Create, fs.Mkdir, fs.Mknod, fs.Symlink, fs.Link, fs.Unlink, fs.Rmdir, fs.Rename:
		return true
	}
	return false
}

// moves tells whether op gives the inode that name means a name in another directory.
func moves(op fs.Op, name fs.Key) bool {
	r, ok := op.(fs.Rename)
	if !ok || r.Parent == r.NewParent {
		return false
	}
	return r.Flags&fs.RenameExchange != 0 || name.Ino == r.Parent && name.Name == r.Name
}

// keepsOwn tells whether the kernel's own idea of a key is right after a call of
// its own: of a name, and of content that it has cut. Not of content that was
// published, which may have been written past the page cache or land where the log
// says, and never of attributes, which carry times that it does not know.
func keepsOwn(kind fs.KeyKind, op fs.Op) bool {
	if kind == fs.KeyData {
		_, cuts := op.(fs.SetAttr)
		return cuts
	}
	return kind == fs.KeyName
}

// beginEntry notes whose the commands of an entry are. Only the goroutine that
// applies uses it.
func (n *Node) beginEntry(batch []fs.Command) {
	n.entry, n.own = batch, n.own[:0]
	for _, c := range batch {
		n.own = append(n.own, c.Session != 0 && n.propose.awaited(c.Session, c.Seq))
	}
}

// switched ends what beginEntry began.
func (n *Node) switched() {
	n.entry = nil
	if k := n.kernel.Load(); k != nil {
		(*k).Switched()
	}
}

// dropKernelCaches answers Revoke, Adopt and Release until ctx ends.
func (n *Node) dropKernelCaches(ctx context.Context) {
	for {
		select {
		case <-n.redrop:
			n.dropOnce()
		case <-ctx.Done():
			return
		}
	}
}

// dropOnce drops the kernel's caches if package protocol wants that, and says so.
// Nothing is handed out to be kept meanwhile: the lease is gone already.
func (n *Node) dropOnce() {
	n.pmu.Lock()
	ticket, want := n.member.Drop()
	n.pmu.Unlock()
	if !want {
		return
	}
	if k := n.kernel.Load(); k != nil {
		(*k).Drop(false)
	}
	n.step(func(now protocol.Instant) []protocol.Message { return n.member.Dropped(now, ticket) })
}
