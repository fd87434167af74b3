package kcache

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Bounds on how long Invalidate waits for what the kernel has locked. They were
// measured to keep two nodes that write in one directory going (reference: the
// two-mount torture, 240,000 operations, no hang and no stale name).
const (
	lockWait = 300 * time.Microsecond // for a directory's lock, before the way around it
	// busyWait is that while a local call is known to hold the lock.
	busyWait = lockWait / 4
	// relaxWait is how long the older way waits in the end; then the change is
	// acknowledged although a name may still be answered from before, until its
	// timeout. Counted and logged.
	relaxWait = 20 * time.Millisecond
	// pageWait is for pages that a READ under way holds locked.
	pageWait = time.Millisecond
	// unknownMax bounds the repetition of a notification for an inode that the
	// kernel is about to know. After that nothing it was told before is kept.
	unknownMax = keptMax
	// dropSlack is what a reply may come later than it says (replyGap of package
	// fuse, and a tick of the kernel's clock).
	dropSlack = 60 * time.Millisecond
	// askedFor is how long a name that was asked for counts as likely to be asked
	// for again.
	askedFor = 10 * time.Second
)

// Notifier tells one mount's kernel to drop things. Its methods return when that
// is done, and may block for as long as the kernel has locked what is to go.
// ENOENT: the kernel does not have it.
type Notifier interface {
	// Inode drops attributes, and pages or listing from off on if off >= 0 (n
	// bytes, 0 for all); only that can block: for pages under READ or write-back,
	// for a listing that is being copied to memory which has to be paged in.
	Inode(ino fs.Ino, off, n int64) error
	// Entry drops a name. It blocks while the directory is locked.
	Entry(dir fs.Ino, name string) error
	// Epoch makes all names of the mount be asked for again. It never blocks.
	Epoch() error
	// Prune drops the names of an inode that nobody uses, so that it is
	// forgotten. EOPNOTSUPP where the kernel knows no such thing.
	Prune(ino fs.Ino) error
}

// Options of a Cache. The zero value of a field means its default.
type Options struct {
	// Epoch: Notifier.Epoch works.
	Epoch bool
	// Logger gets what an operator can act on. Default: nothing.
	Logger *slog.Logger
}

// Cache is what one mount's kernel may hold. Invalidate and Switched are called by
// who applies changes, one at a time; all other methods at any time from any
// goroutine.
type Cache struct {
	notify  *meter
	epoch   bool
	log     *slog.Logger
	started time.Time

	// seq grows when something begins to be taken away. An answer that was begun
	// before and ended after may not be kept: it may be too old, and was not there
	// to be taken away.
	seq          atomic.Uint64
	handed       atomic.Int64 // time until which the kernel may keep something
	ended        atomic.Bool  // nothing is handed out any more
	invalidating atomic.Int64 // since when Invalidate has been running, 0 if it is not

	known     *nameSet // names that the kernel may answer about by itself
	asked     *nameSet // names in busy directories that it has asked for
	hot       dirSet
	busy      dirSet
	counts    counts
	names     nameJobs
	pages     pageJobs
	unsettled unsettled
	mutating  mutations
	dirs      dirNames
	pins      pins
	count     counters
	held      []held       // since the last Invalidate
	relaxLog  atomic.Int64 // earliest time of the next line
}

// New makes a Cache of a kernel that holds nothing yet.
func New(n Notifier, o Options) *Cache {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{epoch: o.Epoch, log: o.Logger, started: time.Now(),
		known: newNameSet(keptMax), asked: newNameSet(askedFor)}
	c.notify = newMeter(n, c.now)
	return c
}

// now is the time since New, on the clock that kernels count timeouts with: it
// stands still while the machine is suspended, as jiffies do.
func (c *Cache) now() time.Duration { return time.Since(c.started) }

// Invalidate implements the cluster's Kernel: it returns when the kernel answers
// about none of changes from its caches.
func (c *Cache) Invalidate(changes []fs.Change) {
	c.invalidating.Store(int64(c.now()) | 1)
	defer c.invalidating.Store(0)
	c.seq.Add(1)
	done := map[fs.Ino]bool{} // attributes
	var names, pages []*job
	for _, ch := range changes {
		switch {
		case ch.Kind == fs.KeyName:
			if j := c.dropName(ch); j != nil {
				names = append(names, j)
			}
			continue
		case !done[ch.Ino]:
			done[ch.Ino] = true
			c.changing(ch.Ino, ch.Listed)
			c.dropAttr(ch.Ino, ch.Listed)
		}
		if ch.Kind == fs.KeyAttr || ch.Own {
			continue
		}
		if j := c.dropPages(ch.Ino); j != nil {
			pages = append(pages, j)
		}
	}
	c.awaitNames(names)
	awaitJobs(pages, pageWait) // whoever is told new attributes waits for the rest
}

// Stalled tells for how long Invalidate has been running.
func (c *Cache) Stalled() time.Duration {
	if since := c.invalidating.Load(); since != 0 {
		return c.now() - time.Duration(since)
	}
	return 0
}

// Switched implements the cluster's Kernel: from now on answers come from the
// state after the changes of the last Invalidate.
func (c *Cache) Switched() {
	for _, h := range c.held {
		c.unsettled.end(h.ino, h.doubt)
	}
	c.held = c.held[:0]
	c.pages.open(c.repeatInode)
}

// Drop implements the cluster's Kernel: it returns when the kernel answers
// nothing that it was told before. Nothing may be handed out to be kept any more.
func (c *Cache) Drop(content bool) {
	c.seq.Add(1)
	c.count.drops.Add(1)
	all := c.counts.all()
	for _, ino := range all {
		c.dropAttr(ino, false)
	}
	if content {
		c.pages.startAll(all, c.repeatInode)
	}
	c.dropAllNames()
}

// End is Drop for a connection that was cut off: nothing is handed out any more,
// and no reply is on its way. Programs that still use the mount go on to be
// answered from the caches until it returns.
func (c *Cache) End() {
	c.ended.Store(true)
	c.seq.Add(1)
	for _, ino := range c.counts.all() {
		_ = c.notify.inode(ino, -1) // what it does not know cannot be kept
	}
	c.dropAllNames()
}

// dropAllNames makes all names be asked for again, or waits until they are.
func (c *Cache) dropAllNames() {
	if c.epoch && c.incEpoch() == nil {
		return
	}
	if until := time.Duration(c.handed.Load()); until != 0 {
		time.Sleep(until + dropSlack - c.now())
	}
}

// changing holds ino unsettled until Switched: answers before that come from the
// old state, and what the kernel takes of them settles nothing.
func (c *Cache) changing(ino fs.Ino, listed bool) {
	if r := c.counts.get(ino); r.n > 0 {
		c.held = append(c.held, held{ino, c.unsettled.begin(ino, !listed || !r.dir)})
	}
}

// dropAttr drops an inode's attributes. If the kernel is about to know the inode
// and takes long over it, the rest is done in the background, and counted. listed
// says that names in it have changed.
func (c *Cache) dropAttr(ino fs.Ino, listed bool) {
	if c.dropInode(ino, -1, relaxWait, listed) {
		return
	}
	c.relaxed("attributes", ino, "")
	go c.dropInode(ino, -1, unknownMax, listed)
}

// repeatInode drops pages or a listing, and attributes with them.
func (c *Cache) repeatInode(ino fs.Ino) { c.dropInode(ino, 0, unknownMax, true) }

// dropInode drops an inode's attributes, and its pages or listing if off is 0.
//
// ENOENT may mean that the kernel has the reply that names the inode but has not
// looked at it yet: then it would keep attributes that are about to be wrong
// (seen in 300 of 300 tries). So while it holds a reference the notification is
// repeated, for limit at most; false means that it was of no use so far.
//
// A directory in which only names have changed (listed) is not unsettled by that:
// it happens too often, and the kernel goes by nothing that a name changes.
func (c *Cache) dropInode(ino fs.Ino, off int64, limit time.Duration, listed bool) bool {
	const pauseMin, pauseMax = 20 * time.Microsecond, 100 * time.Microsecond
	pause := pauseMin
	var since time.Duration
	for {
		r := c.counts.get(ino)
		if r.n == 0 {
			c.forgetDoubt(ino)
			return true
		}
		d := c.unsettled.begin(ino, !listed || !r.dir)
		err := c.notify.inode(ino, off)
		c.unsettled.end(ino, d)
		if !errors.Is(err, syscall.ENOENT) || ino == fs.RootIno {
			return true
		}
		c.count.retries.Add(1)
		switch now := c.now(); {
		case since == 0:
			since = now
		case now-since > limit:
			return false
		}
		time.Sleep(pause)
		pause = min(2*pause, pauseMax)
	}
}

// incEpoch makes all names be asked for again. The known ones are known until the
// epoch has begun; those that are handed out from here on stay known: the kernel
// takes what it was asking for meanwhile for older than the epoch.
func (c *Cache) incEpoch() error {
	r := c.known.retire()
	err := c.notify.epoch()
	if err != nil {
		c.log.Error("the kernel does not take a new epoch; names may be answered from before for seconds", "error", err)
	}
	c.known.forget(r)
	return err
}

// job is one notification under way.
type job struct {
	dir  fs.Ino
	name string
	done chan struct{}
}

func (j *job) isDone() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// awaitJobs waits until all jobs are done, or for limit, and returns the others.
func awaitJobs(jobs []*job, limit time.Duration) (left []*job) {
	if len(jobs) == 0 {
		return nil
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for i, j := range jobs {
		select {
		case <-j.done:
		case <-timer.C:
			for _, j := range jobs[i:] {
				if !j.isDone() {
					left = append(left, j)
				}
			}
			return left
		}
	}
	return nil
}
