package kcache

import (
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

// unsettled is the inodes whose attributes the kernel has been told to drop, and
// that it has not certainly taken anew since.
//
// The kernel ignores the attributes in a GETATTR's answer if it was told to drop
// them after it had sent the request (attr_version, fuse_change_attributes in
// fs/fuse/inode.c). stat(2) shows them all the same; but read(2) and lseek(2) go
// on with the size, and permission checks with the mode, from before the change.
// Nobody but the kernel knows when a request was sent: a process may be stopped
// for any time between that and the daemon's read. So the first to ask for such an
// inode has it settled before the answer. What is not here, the kernel has as it
// was at some moment after the call began.
type unsettled struct {
	any atomic.Int32 // how many there are: spares the others the lock

	mu   sync.Mutex
	last uint64
	of   map[fs.Ino]*doubt
}

type doubt struct {
	mark    uint64 // a new one whenever the kernel is told, before and after
	telling int    // notifications under way: their order with a request is not known
}

// again gives d a new mark. The caller holds mu.
func (u *unsettled) again(d *doubt) {
	u.last++
	d.mark = u.last
}

// begin comes before the kernel is told to drop ino's attributes, and end with
// what it returned comes after. If not fresh, only an inode that is there already
// is marked anew.
func (u *unsettled) begin(ino fs.Ino, fresh bool) *doubt {
	if !fresh && u.any.Load() == 0 {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	d := u.of[ino]
	if d == nil && !fresh {
		return nil
	}
	if d == nil {
		if u.of == nil {
			u.of = map[fs.Ino]*doubt{}
		}
		d = &doubt{}
		u.of[ino] = d
		u.any.Add(1)
	}
	u.again(d)
	d.telling++
	return d
}

func (u *unsettled) end(ino fs.Ino, begun *doubt) {
	if begun == nil && u.any.Load() == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if begun != nil {
		begun.telling--
	}
	if d := u.of[ino]; d != nil {
		u.again(d)
	}
}

// get returns ino's mark, 0 if it has none.
func (u *unsettled) get(ino fs.Ino) uint64 {
	if u.any.Load() == 0 {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.of[ino]; d != nil {
		return d.mark
	}
	return 0
}

// clear removes ino if it still has this mark, and tells whether it is gone.
func (u *unsettled) clear(ino fs.Ino, mark uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.of[ino]; d != nil && (d.mark != mark || d.telling > 0) {
		return false
	}
	u.remove(ino)
	return true
}

// held is a doubt that ends with Switched.
type held struct {
	ino   fs.Ino
	doubt *doubt // nil: there was none
}

// forgetDoubt removes an inode that the kernel does not know any more, unless it
// knows it again by now.
func (c *Cache) forgetDoubt(ino fs.Ino) {
	u := &c.unsettled
	if u.any.Load() == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.of[ino]; d != nil && d.telling == 0 && c.counts.get(ino).n == 0 {
		u.remove(ino)
	}
}

// Overtaken tells of an answer that was begun at m and brings attributes of ino as
// they were before a change: if something was dropped since, the kernel may know the
// inode by that answer only, and was told nothing.
func (c *Cache) Overtaken(m Mark, ino fs.Ino) {
	if c.seq.Load() != m.seq {
		c.unsettled.end(ino, c.unsettled.begin(ino, true))
	}
}

// Generation is what Refer was last told of ino's.
func (c *Cache) Generation(ino fs.Ino) uint64 { return c.counts.get(ino).generation }

func (u *unsettled) remove(ino fs.Ino) {
	if u.of[ino] != nil {
		delete(u.of, ino)
		u.any.Add(-1)
	}
}

// Unsettled returns a mark other than 0 if the kernel may ignore the attributes in
// an answer to a request that it has sent before now.
func (c *Cache) Unsettled(ino fs.Ino) (mark uint64) { return c.unsettled.get(ino) }

// Settled tells that the kernel has taken the attributes in an answer to a request
// that was sent after Unsettled had returned mark. It returns false if the kernel
// was told something since, or is being told.
func (c *Cache) Settled(ino fs.Ino, mark uint64) bool { return c.unsettled.clear(ino, mark) }

// GaveUp tells that a call goes on although its inode is unsettled.
func (c *Cache) GaveUp() { c.count.unsettled.Add(1) }
