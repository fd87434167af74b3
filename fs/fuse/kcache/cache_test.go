package kcache

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// keep is a time that the lease would allow.
const keep = 2 * time.Second

// fakeKernel notes what it is told, and holds locks as a kernel does.
type fakeKernel struct {
	mu      sync.Mutex
	told    []string
	lock    map[fs.Ino]chan struct{} // a directory's, or that of a file's pages: closed when it is let go
	unknown map[fs.Ino]int           // how often an inode is not known yet
	noPrune bool
	epochs  chan struct{} // an epoch waits for it; nil: for nothing
	attrs   chan struct{} // so do attributes
}

func (k *fakeKernel) say(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = append(k.told, fmt.Sprintf(format, args...))
}

// hold locks ino until the returned function is called.
func (k *fakeKernel) hold(ino fs.Ino) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lock == nil {
		k.lock = map[fs.Ino]chan struct{}{}
	}
	c := make(chan struct{})
	k.lock[ino] = c
	return func() {
		k.mu.Lock()
		delete(k.lock, ino)
		k.mu.Unlock()
		close(c)
	}
}

func (k *fakeKernel) wait(ino fs.Ino) {
	k.mu.Lock()
	c := k.lock[ino]
	k.mu.Unlock()
	if c != nil {
		<-c
	}
}

func (k *fakeKernel) Inode(ino fs.Ino, off, _ int64) error {
	if off >= 0 {
		k.wait(ino)
	} else if k.attrs != nil {
		<-k.attrs
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unknown[ino] > 0 {
		k.unknown[ino]--
		k.told = append(k.told, fmt.Sprintf("unknown %d", ino))
		return syscall.ENOENT
	}
	k.told = append(k.told, fmt.Sprintf("inode %d %d", ino, off))
	return nil
}

func (k *fakeKernel) Entry(dir fs.Ino, name string) error {
	k.wait(dir)
	k.say("entry %d/%s", dir, name)
	return nil
}

func (k *fakeKernel) Epoch() error {
	if k.epochs != nil {
		<-k.epochs
	}
	k.say("epoch")
	return nil
}

func (k *fakeKernel) Prune(ino fs.Ino) error {
	if k.noPrune {
		return fs.ErrNotSupported
	}
	k.say("prune %d", ino)
	return nil
}

// heard returns what was said since the last call, sorted.
func (k *fakeKernel) heard() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	said := k.told
	k.told = nil
	slices.Sort(said)
	return said
}

func wantHeard(t *testing.T, k *fakeKernel, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := k.heard(); !slices.Equal(got, want) {
		t.Errorf("the kernel was told %q, want %q", got, want)
	}
}

func name(dir fs.Ino, s string) fs.Change {
	return fs.Change{Key: fs.Key{Kind: fs.KeyName, Ino: dir, Name: s}}
}

func key(kind fs.KeyKind, ino fs.Ino) fs.Change {
	return fs.Change{Key: fs.Key{Kind: kind, Ino: ino}}
}

// found answers a LOOKUP of a file or directory, and returns how long its name may
// be kept.
func found(c *Cache, dir fs.Ino, s string, ino fs.Ino, what Meaning) time.Duration {
	m := c.Begin()
	a := fs.Attr{Ino: ino, Mode: fs.ModeRegular}
	if what == Directory {
		a.Mode = fs.ModeDir
	}
	c.Refer(a, dir, s)
	d, _ := c.Named(m, dir, s, what, keep)
	return d
}

func inBubble(t *testing.T, o Options, f func(t *testing.T, c *Cache, k *fakeKernel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{}
		f(t, New(k, o), k)
	})
}

// TestOnlyWhatIsKnownIsDropped: the kernel is told of what it may have, of nothing
// else, and of nothing twice.
func TestOnlyWhatIsKnownIsDropped(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		if d := found(c, 1, "f", 7, File); d != keep {
			t.Errorf("a file in a quiet directory is kept for %v", d)
		}
		change := []fs.Change{name(1, "f"), name(1, "g"), key(fs.KeyAttr, 7), key(fs.KeyAttr, 8), key(fs.KeyList, 1), key(fs.KeyAttr, 1), key(fs.KeyData, 7)}
		c.Invalidate(change)
		wantHeard(t, k, "entry 1/f", "inode 7 -1", "inode 1 -1", "inode 1 0", "inode 7 0")
		c.Switched()
		c.Invalidate(change)
		wantHeard(t, k, "inode 7 -1", "inode 1 -1", "inode 1 0", "inode 7 0")
		c.Switched()
		c.Forget(7, 1)
		c.Invalidate(change)
		wantHeard(t, k, "inode 1 -1", "inode 1 0")
		c.Switched()
	})
}

// TestNamesAreForgotten when the kernel cannot have them any more.
func TestNamesAreForgotten(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		time.Sleep(keep + 500*time.Millisecond)
		c.Invalidate([]fs.Change{name(1, "f")})
		wantHeard(t, k, "entry 1/f") // perhaps still kept: it is dropped
		found(c, 1, "f", 7, File)
		time.Sleep(2*keptMax + time.Second)
		c.Invalidate([]fs.Change{name(1, "f")})
		wantHeard(t, k)
		if n := c.Stats().KnownNames; n != 0 {
			t.Errorf("%d names are known", n)
		}
	})
}

// TestAnswerBesideAChange: an answer that was begun before something was taken
// away may not be kept, for it was not there to be taken away.
func TestAnswerBesideAChange(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		m := c.Begin()
		c.Invalidate([]fs.Change{name(1, "x")})
		if d, retry := c.Named(m, 1, "f", File, keep); d != 0 || !retry {
			t.Errorf("the name is kept for %v, retry %t; want 0, true", d, retry)
		}
		if d := c.Known(m, keep); d != 0 {
			t.Errorf("the attributes are kept for %v", d)
		}
		m = c.Begin()
		c.Drop(false)
		if d := c.Known(m, keep); d != 0 {
			t.Errorf("attributes outlive Drop for %v", d)
		}
	})
}

// TestLockedDirectory: a change does not wait for a directory that is locked; the
// names are made to be asked for again, and nothing in it is kept for a while but
// directories.
func TestLockedDirectory(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 9, "f", 7, File)
		release := k.hold(9)
		began := time.Now()
		c.Invalidate([]fs.Change{name(9, "f")})
		if took := time.Since(began); took > 2*lockWait {
			t.Errorf("it took %v", took)
		}
		wantHeard(t, k, "epoch")
		if d := found(c, 9, "f", 7, File); d != 0 {
			t.Errorf("a file in a hot directory is kept for %v", d)
		}
		if d := found(c, 9, "sub", 8, Directory); d != keep {
			t.Errorf("a directory in a hot directory is kept for %v", d)
		}
		if d := found(c, 5, "f", 7, File); d != keep {
			t.Errorf("a file in another directory is kept for %v", d)
		}
		c.Invalidate([]fs.Change{name(9, "f")}) // nothing is kept of it, so nothing is waited for
		wantHeard(t, k)
		release()
		synctest.Wait()
		wantHeard(t, k, "entry 9/f")
		time.Sleep(hotFor)
		c.Sweep()
		if d := found(c, 9, "f", 7, File); d != keep {
			t.Errorf("a file in a directory that has cooled down is kept for %v", d)
		}
		if s := c.Stats(); s.Epochs != 1 || s.Conflicts != 1 || s.HotDirs != 0 || s.Waiting != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestOneThreadForADirectory: names that wait for one lock wait in a queue.
func TestOneThreadForADirectory(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		var changes []fs.Change
		for i := range 50 {
			s := fmt.Sprint("f", i)
			found(c, 9, s, fs.Ino(100+i), File)
			changes = append(changes, name(9, s))
		}
		release := k.hold(9)
		c.Invalidate(changes)
		synctest.Wait()
		c.notify.mu.Lock()
		inKernel := len(c.notify.open)
		c.notify.mu.Unlock()
		if inKernel != 1 {
			t.Errorf("%d notifications are in the kernel, want 1", inKernel)
		}
		wantHeard(t, k, "epoch")
		release()
		synctest.Wait()
		if got := k.heard(); len(got) != 50 {
			t.Errorf("%d names were dropped in the end, want 50", len(got))
		}
	})
}

// TestWithoutEpochs: the directory's own name is dropped in its parent instead, and
// if that is locked too, the change waits a little and is let go.
func TestWithoutEpochs(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "dir", 9, Directory)
		found(c, 9, "f", 7, File)
		release := k.hold(9)
		c.Invalidate([]fs.Change{name(9, "f")})
		wantHeard(t, k, "entry 1/dir")
		releaseParent := k.hold(1)
		time.Sleep(hotFor)
		found(c, 9, "g", 8, File)
		began := time.Now()
		c.Invalidate([]fs.Change{name(9, "g")})
		if took := time.Since(began); took < relaxWait || took > 2*relaxWait {
			t.Errorf("it took %v, want about %v", took, relaxWait)
		}
		if n := c.Stats().Relaxed; n != 1 {
			t.Errorf("%d changes were let go, want 1", n)
		}
		release()
		releaseParent()
		time.Sleep(keep + time.Second)
		began = time.Now()
		c.Drop(false)
		if took := time.Since(began); took != 0 { // everything has run out
			t.Errorf("dropping took %v", took)
		}
		found(c, 1, "dir", 9, Directory)
		began = time.Now()
		c.Drop(false)
		if took := time.Since(began); took < keep {
			t.Errorf("dropping took %v; names are kept for %v", took, keep)
		}
	})
}

// TestOwnChange: before a program here changes a name that its kernel keeps, all
// names are made to be asked for again, and none of it is kept meanwhile.
func TestOwnChange(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 9, "f", 7, File)
		c.Mutating(9, "f")
		wantHeard(t, k, "epoch")
		if d := found(c, 9, "f", 7, File); d != 0 {
			t.Errorf("a name that is being changed is kept for %v", d)
		}
		own := name(9, "f")
		own.Own = true
		c.Invalidate([]fs.Change{own})
		wantHeard(t, k)
		c.Mutated(9, "f")
		time.Sleep(ownHotFor)
		c.Mutating(9, "new") // not known: no epoch
		c.Mutated(9, "new")
		wantHeard(t, k)
		for i, want := range []time.Duration{0, keep, keep} {
			if d := found(c, 9, "h", 8, File); d != want {
				t.Errorf("a file in a busy directory, asked for %d times: kept for %v, want %v", i+1, d, want)
			}
		}
	})
}

// TestAbsenceIsKept from the second time on.
func TestAbsenceIsKept(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		for i, want := range []time.Duration{0, keep} {
			if d, _ := c.Named(c.Begin(), 1, "none", Nothing, keep); d != want {
				t.Errorf("absence is kept for %v at question %d, want %v", d, i+1, want)
			}
		}
		c.Invalidate([]fs.Change{name(1, "none")})
		wantHeard(t, k, "entry 1/none")
	})
}

// TestInodeAboutToBeKnown: the reply that names an inode is written, but the kernel
// has not looked at it yet. The attributes in it must not stay.
func TestInodeAboutToBeKnown(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		k.unknown = map[fs.Ino]int{7: 3}
		c.Invalidate([]fs.Change{key(fs.KeyAttr, 7)})
		wantHeard(t, k, "unknown 7", "unknown 7", "unknown 7", "inode 7 -1")
		k.unknown[7] = 1 << 30
		time.AfterFunc(time.Millisecond, func() { c.Forget(7, 1) })
		c.Invalidate([]fs.Change{key(fs.KeyAttr, 7)}) // ends when the kernel forgets it
		found(c, 1, "f", 7, File)
		began := time.Now()
		c.Invalidate([]fs.Change{key(fs.KeyAttr, 7)}) // or when it takes too long
		if took := time.Since(began); took > 2*relaxWait {
			t.Errorf("it took %v", took)
		}
		if n := c.Stats().Relaxed; n != 1 {
			t.Errorf("%d times let go, want 1", n)
		}
		time.Sleep(2 * unknownMax)
	})
}

// TestSlowRead: a READ that holds pages does not hold the writer, and nobody is
// told the new attributes before the pages are gone.
func TestSlowRead(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		release := k.hold(7)
		began := time.Now()
		c.Invalidate([]fs.Change{key(fs.KeyAttr, 7), key(fs.KeyData, 7)})
		c.Switched()
		if took := time.Since(began); took > 2*pageWait {
			t.Errorf("the writer waited %v", took)
		}
		wantHeard(t, k, "inode 7 -1")
		answered := make(chan time.Duration, 1)
		go func() {
			c.AwaitPages(7)
			answered <- time.Since(began)
		}()
		c.AwaitPages(8) // another file's answer does not wait
		time.Sleep(time.Second)
		release()
		if at := <-answered; at < time.Second {
			t.Errorf("attributes were shown after %v", at)
		}
		wantHeard(t, k, "inode 7 0")
	})
}

// TestReadBesideAChange: what is read while the state is about to change may be
// old, and come after the pages were dropped. They are dropped again.
func TestReadBesideAChange(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		change := []fs.Change{key(fs.KeyData, 7)}
		c.Invalidate(change)
		wantHeard(t, k, "inode 7 -1", "inode 7 0")
		c.Reading(7)
		c.Switched()
		c.AwaitPages(7)
		wantHeard(t, k, "inode 7 0")
		c.Reading(7) // from the new state
		c.Invalidate(change)
		c.Switched()
		c.AwaitPages(7)
		wantHeard(t, k, "inode 7 -1", "inode 7 0")
		own := change[0]
		own.Own = true
		c.Invalidate([]fs.Change{own}) // the kernel's own cut
		c.Switched()
		wantHeard(t, k, "inode 7 -1")
		if n := c.pages.any.Load(); n != 0 || len(c.pages.of) != 0 {
			t.Errorf("%d files are still looked after", n)
		}
	})
}

// TestKnownUntilTheEpoch: what makes room for an epoch does not make anybody
// believe that the kernel has nothing, before the epoch has begun.
func TestKnownUntilTheEpoch(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 9, "f", 7, File)
		found(c, 9, "g", 8, File)
		k.epochs = make(chan struct{})
		go c.Mutating(9, "f")
		synctest.Wait() // it waits for its epoch
		c.Invalidate([]fs.Change{name(9, "g"), name(9, "f")})
		wantHeard(t, k, "entry 9/f", "entry 9/g")
		close(k.epochs)
		synctest.Wait()
		wantHeard(t, k, "epoch")
		c.Invalidate([]fs.Change{name(9, "g"), name(9, "f")})
		wantHeard(t, k)
	})
}

// TestListingBeingRead: a listing that a program is just copying, however slowly,
// does not hold the writer, but nobody is told the directory's attributes meanwhile.
func TestListingBeingRead(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "d", 9, Directory)
		release := k.hold(9)
		began := time.Now()
		c.Invalidate([]fs.Change{key(fs.KeyList, 9), key(fs.KeyAttr, 9)})
		c.Switched()
		if took := time.Since(began); took > 2*pageWait {
			t.Errorf("the writer waited %v", took)
		}
		wantHeard(t, k, "inode 9 -1")
		if c.Clean(9) || !c.Clean(7) {
			t.Error("want the directory, and only that, to wait for its listing")
		}
		release()
		c.AwaitPages(9)
		wantHeard(t, k, "inode 9 0")
		if !c.Clean(9) {
			t.Error("the directory still waits for its listing")
		}
	})
}

// TestSlowAnswer: what took long to find out is not kept, for it would reach the
// kernel late.
func TestSlowAnswer(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		m := c.Begin()
		time.Sleep(2 * slowAnswer)
		if d, retry := c.Named(m, 1, "f", File, keep); d != 0 || !retry {
			t.Errorf("the name is kept for %v, retry %t", d, retry)
		}
		if d := c.Known(m, keep); d != 0 {
			t.Errorf("attributes are kept for %v", d)
		}
	})
}

// TestEnd: when the connection is cut off, programs are answered from the caches
// until End has returned, and nothing is handed out after it.
func TestEnd(t *testing.T) {
	for _, epoch := range []bool{true, false} {
		inBubble(t, Options{Epoch: epoch}, func(t *testing.T, c *Cache, k *fakeKernel) {
			found(c, 1, "f", 7, File)
			k.unknown = map[fs.Ino]int{7: 1 << 30} // nothing is on its way any more
			began := time.Now()
			c.End()
			if took := time.Since(began); epoch != (took == 0) || !epoch && took < keep {
				t.Errorf("epoch %t: it took %v", epoch, took)
			}
			if d := found(c, 1, "f", 7, File); d != 0 || c.Known(c.Begin(), keep) != 0 {
				t.Errorf("a name is kept for %v after the end", d)
			}
		})
	}
}

// TestLost: content that was given up is taken out of the kernel.
func TestLost(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		c.Lost(7)
		c.AwaitPages(7)
		wantHeard(t, k, "inode 7 0")
	})
}

// TestDropWithContent takes every page as well.
func TestDropWithContent(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		c.Drop(true)
		c.AwaitPages(7)
		c.AwaitPages(1)
		wantHeard(t, k, "epoch", "inode 1 -1", "inode 1 0", "inode 7 -1", "inode 7 0")
	})
}

// TestLateReply: what was told too late is taken back.
func TestLateReply(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		c.Late(1, "f", 7)
		wantHeard(t, k, "entry 1/f", "inode 7 -1")
		c.Late(1, "", 7)
		wantHeard(t, k, "inode 7 -1")
	})
}

// TestPinned: a removed directory stays while the kernel holds on to it.
func TestPinned(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "d", 9, Directory)
		found(c, 1, "f", 7, File)
		if !c.Pinned(9) || c.Pinned(7) || c.Pinned(8) {
			t.Error("want the directory to be pinned, and nothing else")
		}
		wantHeard(t, k, "prune 9")
		c.Forget(9, 1)
		if c.Pinned(9) {
			t.Error("a forgotten directory is pinned")
		}
		k.noPrune = true
		found(c, 1, "d", 9, Directory)
		if !c.Pinned(9) {
			t.Error("without PRUNE the directory is not pinned")
		}
		time.Sleep(pinMax)
		if c.Pinned(9) {
			t.Error("without PRUNE the directory is pinned for ever")
		}
	})
}

// TestStalled: a change that cannot be acknowledged is noticed.
func TestStalled(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		k.attrs = make(chan struct{})
		ended := make(chan struct{})
		go func() {
			c.Invalidate([]fs.Change{key(fs.KeyAttr, 1)})
			close(ended)
		}()
		time.Sleep(time.Minute)
		if d := c.Stalled(); d < time.Minute-time.Second {
			t.Errorf("stalled for %v, want a minute", d)
		}
		close(k.attrs)
		<-ended
		if d := c.Stalled(); d != 0 {
			t.Errorf("stalled for %v after the end", d)
		}
	})
}

// TestStuck finds the notification that does not return.
func TestStuck(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 9, "f", 7, File)
		release := k.hold(9)
		c.Invalidate([]fs.Change{name(9, "f")})
		time.Sleep(11 * time.Second)
		if s := c.Stuck(10 * time.Second); len(s) != 1 || s[0].Ino != 9 || s[0].Name != "f" {
			t.Errorf("stuck: %v", s)
		}
		release()
		synctest.Wait()
		if s := c.Stuck(0); len(s) != 0 {
			t.Errorf("stuck after it has returned: %v", s)
		}
	})
}
