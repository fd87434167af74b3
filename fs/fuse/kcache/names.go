package kcache

import (
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// nameJobs drops names: one at a time in each directory, because each that waits
// for the directory's lock costs a thread that nothing can end.
type nameJobs struct {
	mu    sync.Mutex
	queue map[fs.Ino][]*job // the first of each is under way
	// pending finds a job by what it drops, so that a later change of the same
	// name waits for it too, as long as that matters.
	pending map[nameKey]*job
}

type nameKey struct {
	dir  fs.Ino
	name string
}

// submit queues a job, or finds the one that waits for the same. run does the
// work, on a goroutine of the directory that ends with its queue.
func (n *nameJobs) submit(dir fs.Ino, name string, run func(*job)) *job {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := nameKey{dir, name}
	if n.queue == nil {
		n.queue, n.pending = map[fs.Ino][]*job{}, map[nameKey]*job{}
	}
	q := n.queue[dir]
	if j := n.pending[key]; j != nil && j != q[0] { // the first may have looked already
		return j
	}
	j := &job{dir: dir, name: name, done: make(chan struct{})}
	n.pending[key] = j
	n.queue[dir] = append(q, j)
	if len(q) == 0 {
		go n.work(j, run)
	}
	return j
}

// find returns the job for a name, nil if there is none.
func (n *nameJobs) find(dir fs.Ino, name string) *job {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pending[nameKey{dir, name}]
}

// resolve tells that nobody needs to wait for j any more, although it goes on: the
// kernel keeps nothing of its name from before.
func (n *nameJobs) resolve(j *job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if key := (nameKey{j.dir, j.name}); n.pending[key] == j {
		delete(n.pending, key)
	}
}

func (n *nameJobs) work(j *job, run func(*job)) {
	for j != nil {
		run(j)
		j = n.next(j)
	}
}

// next ends j and returns the job after it.
func (n *nameJobs) next(j *job) *job {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := nameKey{j.dir, j.name}
	if n.pending[key] == j {
		delete(n.pending, key)
	}
	close(j.done)
	q := n.queue[j.dir][1:]
	if len(q) == 0 {
		delete(n.queue, j.dir)
		return nil
	}
	n.queue[j.dir] = q
	return q[0]
}

func (n *nameJobs) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.pending)
}

// dropName begins to drop a changed name, if the kernel may have it.
//
// A name that a local call changes is not dropped: the kernel holds the
// directory's lock for that call, and changes the name itself when the call is
// answered; see Mutating. Without epochs it may keep it with the time that another
// name was given (rename moves the dentry), so it is known from now on.
func (c *Cache) dropName(ch fs.Change) *job {
	now := c.now()
	if ch.Own {
		if !c.epoch {
			c.known.add(now, ch.Ino, ch.Name)
		}
		return nil
	}
	if !c.known.take(now, ch.Ino, ch.Name) {
		if ch.Moved {
			c.submit(ch.Ino, ch.Name) // nobody waits: it answers about nothing
			return nil
		}
		return c.names.find(ch.Ino, ch.Name)
	}
	return c.submit(ch.Ino, ch.Name)
}

func (c *Cache) submit(dir fs.Ino, name string) *job {
	return c.names.submit(dir, name, func(j *job) { _ = c.notify.entry(j.dir, j.name) }) // ENOENT: it is gone already
}

// awaitNames returns when the kernel answers about none of the jobs' names from
// its cache, by the way around the lock if need be.
func (c *Cache) awaitNames(jobs []*job) {
	wait := lockWait
	for _, j := range jobs {
		if c.mutating.locked(j.dir) {
			wait = busyWait
		}
	}
	left := awaitJobs(jobs, wait)
	if len(left) == 0 {
		return
	}
	c.count.conflicts.Add(1)
	for _, j := range left {
		c.hot.mark(c.now()+hotFor, j.dir)
	}
	if !c.epoch {
		c.aroundParents(left)
		return
	}
	c.count.epochs.Add(1)
	_ = c.incEpoch() // logged; nothing else could be done
	for _, j := range left {
		c.names.resolve(j)
	}
}

// aroundParents drops the directories of the jobs in their own parents: that
// takes all names below with it that nobody uses at this moment. The jobs go on.
func (c *Cache) aroundParents(jobs []*job) {
	up := map[fs.Ino]*job{}
	for _, j := range jobs {
		if at, ok := c.dirs.get(j.dir); ok && up[j.dir] == nil {
			up[j.dir] = c.submit(at.dir, at.name)
		}
	}
	timer := time.NewTimer(relaxWait)
	defer timer.Stop()
	for _, j := range jobs {
		var around <-chan struct{}
		if u := up[j.dir]; u != nil {
			around = u.done
		}
		select {
		case <-around:
			c.names.resolve(j)
		case <-j.done:
		case <-timer.C:
			timer.Reset(0) // the others have had the same time
			c.relaxed("a name", j.dir, j.name)
		}
	}
}

// relaxed notes that a change is acknowledged although the kernel may answer from
// before it, for as long as it was told to keep what.
func (c *Cache) relaxed(what string, ino fs.Ino, name string) {
	c.count.relaxed.Add(1)
	now := int64(c.now())
	next := c.relaxLog.Load()
	if now < next || !c.relaxLog.CompareAndSwap(next, now+int64(time.Second)) {
		return
	}
	c.log.Warn("the kernel could not drop something in time; programs here may see it as it was, for 2.5 seconds at most",
		"what", what, "inode", uint64(ino), "name", name)
}

// dirNames remembers under which name the kernel was given each directory, for
// the way around on kernels without epochs.
type dirNames struct {
	mu sync.Mutex
	at map[fs.Ino]nameKey
}

func (d *dirNames) set(ino, dir fs.Ino, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = map[fs.Ino]nameKey{}
	}
	d.at[ino] = nameKey{dir, name}
}

func (d *dirNames) get(ino fs.Ino) (nameKey, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.at[ino]
	return k, ok
}

func (d *dirNames) forget(ino fs.Ino) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.at, ino)
}
