package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/wpfs/wpfs/fs"
)

// Put stores b (1 to ChunkMax bytes) and returns its hash. With sync the bytes
// and their name are on the disk when it returns; without, they are whole or
// absent after a crash of this process and may be anything after one of the
// machine, which the next process finds out. Putting what is there already is
// cheap. ErrNoSpace if there is no room and nothing to drop for it. b is not
// kept. The chunk is not dropped before Cited, or for an hour.
func (d *Disk) Put(b []byte, sync bool) (fs.Hash, error) {
	h := fs.Hash(sha256.Sum256(b))
	if err := checkSize(len(b)); err != nil {
		return h, fail("put chunk", h, err)
	}
	if err := d.store(h, b, sync, true); err != nil {
		return h, fail("put chunk", h, err)
	}
	return h, nil
}

// Keep is Put for bytes that another node says have this hash: ErrCorrupt, and
// nothing is stored, if they do not.
func (d *Disk) Keep(h fs.Hash, b []byte, sync bool) error {
	if err := checkSize(len(b)); err != nil {
		return fail("keep chunk", h, err)
	}
	if sha256.Sum256(b) != h {
		return fail("keep chunk", h, fs.ErrCorrupt)
	}
	if err := d.store(h, b, sync, true); err != nil {
		return fail("keep chunk", h, err)
	}
	return nil
}

// Cache stores a copy that nobody will rely on, for the next reader: ErrCorrupt
// if b does not match h.
func (d *Disk) Cache(h fs.Hash, b []byte) error {
	if err := checkSize(len(b)); err != nil {
		return fail("cache chunk", h, err)
	}
	if sha256.Sum256(b) != h {
		return fail("cache chunk", h, fs.ErrCorrupt)
	}
	if err := d.store(h, b, false, false); err != nil {
		return fail("cache chunk", h, err)
	}
	return nil
}

func checkSize(n int) error {
	if n == 0 || n > fs.ChunkMax {
		return &fs.Error{Op: "check chunk", Kind: fs.ErrInvalid, Err: fmt.Errorf("a chunk has 1 to %d bytes, not %d", fs.ChunkMax, n)}
	}
	return nil
}

var errClosed = errors.New("the cache is closed")

// storeTries bounds how often a put starts again because the file that it wanted
// to share was removed meanwhile.
const storeTries = 5

// store is Put for bytes that are known to match h. owed: somebody is about to
// rely on this copy.
func (d *Disk) store(h fs.Hash, b []byte, sync, owed bool) (err error) {
	if d.closed.Load() {
		return errClosed
	}
	if sync {
		if err := d.checkSync(); err != nil {
			return err
		}
	}
	for range storeTries {
		var replaces bool
		if owed {
			d.renew(h)
		}
		if replaces, err = d.reuse(h, sync); errors.Is(err, fs.ErrNotFound) {
			// A file that has to be replaced may have been promised to survive
			// a power cut; so must its successor.
			err = d.write(h, b, sync || replaces, owed)
		}
		if !errors.Is(err, errVanished) {
			return err
		}
	}
	return err
}

// errVanished: a file that was there is not any more.
var errVanished = errors.New("the chunk was removed meanwhile")

// renew keeps the chunk's file, if there is one, from being dropped. Whoever
// drops one decides under the same lock, so afterwards it is gone or it stays.
func (d *Disk) renew(h fs.Hash) {
	s := d.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.index.Renew(h)
}

// write is store where there is no file to make do with.
func (d *Disk) write(h fs.Hash, b []byte, sync, owed bool) error {
	d.writing.Add(int64(len(b)))
	defer d.writing.Add(-int64(len(b)))
	if err := d.makeRoom(); err != nil {
		d.refused.Add(1)
		return err
	}
	temp := d.path(tempDir, fmt.Sprintf("%d-%s", d.temps.Add(1), hex.EncodeToString(h[:4])))
	st, err := d.writeTemp(temp, b, sync)
	if errors.Is(err, syscall.ENOSPC) && d.evict(2*int64(len(b))) > 0 {
		// The file system was fuller than it said, or a quota is.
		st, err = d.writeTemp(temp, b, sync)
	}
	if err != nil {
		return err
	}
	placed, err := d.place(temp, h, st, owed)
	switch {
	case err != nil || !sync:
		return err
	case placed:
		return d.syncName(h, st.ino)
	default: // another put was faster, perhaps one without sync
		return d.syncChunk(h)
	}
}

// reuse makes do with the file that is there: nil if it is good, and durable if
// sync asks for that; ErrNotFound if one has to be written, which replaces a bad
// one or not. A good file is never written anew: its successor would be less
// durable until it is synced.
func (d *Disk) reuse(h fs.Hash, sync bool) (replaces bool, err error) {
	c, err := d.acquireNamed(h)
	if errors.Is(err, os.ErrNotExist) {
		return false, fs.ErrNotFound
	}
	if err != nil {
		return false, err
	}
	defer d.open.release(c)
	if err := d.verify(c); err != nil {
		if !errors.Is(err, fs.ErrCorrupt) {
			// Unreadable. The caller has the bytes, so the file can go.
			err = d.quarantine(c, err)
		} // else verify has moved it away, or tried to
		if errors.Is(err, errStuck) {
			return false, err
		}
		return true, fs.ErrNotFound
	}
	if sync {
		return false, d.syncFile(c)
	}
	return false, nil
}

// acquireNamed acquires the file that has the chunk's name now. An open file may
// have lost it: a reader can open a file just before it is removed or replaced,
// and is right to go on with it, but a put must not rely on it.
func (d *Disk) acquireNamed(h fs.Hash) (*chunkFile, error) {
	for {
		c, err := d.acquire(h)
		if err != nil {
			return nil, err
		}
		st, err := d.o.files.Stat(d.chunkPath(h))
		if err == nil && st.ino == c.stat.ino {
			return c, nil
		}
		d.open.dropFile(c)
		d.open.release(c)
		if err != nil {
			return nil, err
		}
	}
}

// writeTemp makes a file of b. After a failure there is none.
func (d *Disk) writeTemp(path string, b []byte, sync bool) (st stat, err error) {
	f, err := d.o.files.Create(path)
	if err != nil {
		return stat{}, err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	if err == nil {
		st, err = f.Stat()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		d.discard(path)
		return stat{}, err
	}
	return st, nil
}

// discard removes a temporary file; one that stays goes at the next start.
func (d *Disk) discard(path string) { _ = d.o.files.Remove(path) }

// place gives the temporary file its name, unless the name is taken: everything
// that has it came through here, whole.
func (d *Disk) place(temp string, h fs.Hash, st stat, owed bool) (placed bool, err error) {
	s := d.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	path := d.chunkPath(h)
	_, err = d.o.files.Stat(path)
	if err == nil {
		d.discard(temp)
		d.index.Add(h, st.size, owed)
		return false, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		err = d.o.files.Rename(temp, path)
	}
	if err != nil {
		d.discard(temp)
		return false, err
	}
	d.index.Add(h, st.size, owed)
	d.known.verified(h, st.ino)
	d.open.drop(h)
	return true, nil
}

// syncChunk makes the chunk's file durable, whoever wrote it.
func (d *Disk) syncChunk(h fs.Hash) error {
	c, err := d.acquireNamed(h)
	if errors.Is(err, os.ErrNotExist) {
		return errVanished
	}
	if err != nil {
		return err
	}
	defer d.open.release(c)
	return d.syncFile(c)
}

func (d *Disk) syncFile(c *chunkFile) error {
	if k, ok := d.known.get(c.hash); ok && k.ino == c.stat.ino && k.synced {
		return nil
	}
	if err := c.f.Sync(); err != nil {
		// The kernel reports a lost write once and then believes the pages
		// clean. Without this file the next put writes them again.
		d.removeFile(c)
		return err
	}
	return d.syncName(c.hash, c.stat.ino)
}

// syncName makes the name of a chunk durable.
func (d *Disk) syncName(h fs.Hash, ino uint64) error {
	if err := d.o.files.SyncDir(d.path(chunkDir, hex.EncodeToString(h[:1]))); err != nil {
		// A directory cannot be written anew as a file can, and its next fsync
		// may falsely succeed: never believe one again.
		if d.syncFailed.CompareAndSwap(nil, &err) {
			d.o.Log.Error("the disk of the cache fails: it refuses to store content safely until the agent is restarted; check the disk first",
				"dir", d.dir, "error", err)
		}
		return err
	}
	d.known.synced(h, ino)
	return nil
}

func (d *Disk) checkSync() error {
	if err := d.syncFailed.Load(); err != nil {
		return fmt.Errorf("an earlier fsync failed: %w", *err)
	}
	return nil
}

// Remove deletes a chunk. It succeeds when there is none.
func (d *Disk) Remove(h fs.Hash) error {
	s := d.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := d.removeLocked(h); err != nil {
		return fail("remove chunk", h, err)
	}
	return nil
}

// removeLocked is Remove with the shard's lock held.
func (d *Disk) removeLocked(h fs.Hash) error {
	if err := d.o.files.Remove(d.chunkPath(h)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.index.Remove(h)
	d.known.forget(h)
	d.open.drop(h)
	return nil
}

// removeFile deletes c's file if it still is the chunk's.
func (d *Disk) removeFile(c *chunkFile) {
	s := d.shardOf(c.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	path := d.chunkPath(c.hash)
	if st, err := d.o.files.Stat(path); err == nil && st.ino == c.stat.ino && d.o.files.Remove(path) == nil {
		d.index.Remove(c.hash)
	}
	d.known.forget(c.hash)
	d.open.dropFile(c)
}
