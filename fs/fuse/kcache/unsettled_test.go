package kcache

import (
	"testing"
	"testing/synctest"

	"github.com/wpfs/wpfs/fs"
)

// TestUnsettled: an inode whose attributes were dropped is settled by an answer that
// nothing overlapped, and by no other.
func TestUnsettled(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		if c.Unsettled(7) != 0 {
			t.Error("unsettled before anything was dropped")
		}
		change := []fs.Change{key(fs.KeyAttr, 7), key(fs.KeyData, 7)}
		c.Invalidate(change)
		c.Switched()
		mark := c.Unsettled(7)
		if mark == 0 {
			t.Fatal("settled although its attributes were dropped")
		}
		c.Invalidate(change)
		c.Switched()
		if c.Settled(7, mark) || c.Unsettled(7) == 0 {
			t.Error("settled by an answer that another change overlapped")
		}
		if !c.Settled(7, c.Unsettled(7)) || c.Unsettled(7) != 0 {
			t.Error("not settled by an answer that nothing overlapped")
		}
	})
}

// TestUnsettledWhileTold: while a notification is under way nobody knows whether a
// request came before it.
func TestUnsettledWhileTold(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "f", 7, File)
		k.attrs = make(chan struct{})
		go c.Invalidate([]fs.Change{key(fs.KeyAttr, 7)})
		synctest.Wait()
		mark := c.Unsettled(7)
		if mark == 0 || c.Settled(7, mark) {
			t.Errorf("mark %d: settled while the kernel was being told", mark)
		}
		close(k.attrs)
		synctest.Wait()
		if c.Settled(7, c.Unsettled(7)) {
			t.Error("settled by an answer from the state before the change")
		}
		c.Switched()
		if c.Settled(7, mark) || !c.Settled(7, c.Unsettled(7)) {
			t.Error("settled by what came before the switch, or not by what came after")
		}
	})
}

// TestWhatIsNotUnsettled: names in a directory, and what the kernel has forgotten.
func TestWhatIsNotUnsettled(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		found(c, 1, "d", 5, Directory)
		listed := key(fs.KeyAttr, 5)
		listed.Listed = true
		made := []fs.Change{listed, key(fs.KeyList, 5)}
		c.Invalidate(made)
		c.Switched()
		c.AwaitPages(5)
		if c.Unsettled(5) != 0 {
			t.Error("a directory is unsettled by a name")
		}
		c.Invalidate([]fs.Change{key(fs.KeyAttr, 5)}) // its mode
		c.Switched()
		mark := c.Unsettled(5)
		if mark == 0 {
			t.Fatal("a directory is not unsettled by a change of its own")
		}
		c.Invalidate(made)
		c.Switched()
		c.AwaitPages(5)
		if c.Settled(5, mark) {
			t.Error("settled although names changed meanwhile, which the kernel was told")
		}
		c.Forget(5, 1)
		if c.Unsettled(5) != 0 {
			t.Error("still noted although the kernel forgot it")
		}
	})
}

// TestKnownByAnOldAnswer: the kernel may know an inode by an answer from before a
// change only, and was told nothing of the change.
func TestKnownByAnOldAnswer(t *testing.T) {
	inBubble(t, Options{Epoch: true}, func(t *testing.T, c *Cache, k *fakeKernel) {
		m := c.Begin()
		c.Invalidate([]fs.Change{key(fs.KeyAttr, 7)})
		c.Switched()
		c.Refer(fs.Attr{Ino: 7, Mode: fs.ModeRegular, Generation: 9}, 1, "f")
		c.Overtaken(m, 7)
		if c.Unsettled(7) == 0 || c.Generation(7) != 9 {
			t.Errorf("mark %d, generation %d; want one, and 9", c.Unsettled(7), c.Generation(7))
		}
		m = c.Begin()
		c.Refer(fs.Attr{Ino: 8, Mode: fs.ModeRegular}, 1, "g")
		c.Overtaken(m, 8)
		if c.Unsettled(8) != 0 {
			t.Error("unsettled although nothing has changed")
		}
	})
}
