package cache

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// Has reports whether there is a file for h. It may yet fail its hash.
func (d *Disk) Has(h fs.Hash) bool {
	_, err := d.o.files.Stat(d.chunkPath(h))
	return err == nil
}

// ReadAt fills p from off with bytes of the chunk h, which has size bytes, and
// returns how many there were: fewer than len(p) only at its end. The first
// touch by this process reads and verifies the whole file. ErrNotFound if there
// is none, ErrCorrupt if it fails (it is gone then, and may be put again).
func (d *Disk) ReadAt(h fs.Hash, size uint32, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fail("read chunk", h, fs.ErrInvalid)
	}
	c, err := d.verified(h)
	if err != nil {
		return 0, fail("read chunk", h, err)
	}
	defer d.open.release(c)
	if c.stat.size != int64(size) {
		return 0, fail("read chunk", h, fmt.Errorf("%w: the metadata gives it %d bytes, it has %d", fs.ErrCorrupt, size, c.stat.size))
	}
	if off >= c.stat.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), c.stat.size-off)]
	d.index.Use(h)
	if n, err := c.f.ReadAt(p, off); n < len(p) {
		return 0, fail("read chunk", h, unexpected(err))
	}
	return len(p), nil
}

// Fetch returns the whole chunk, for another node that asks for it. Errors are
// those of ReadAt.
func (d *Disk) Fetch(h fs.Hash) ([]byte, error) {
	c, err := d.verified(h)
	if err != nil {
		return nil, fail("fetch chunk", h, err)
	}
	defer d.open.release(c)
	b := make([]byte, c.stat.size)
	if n, err := c.f.ReadAt(b, 0); n < len(b) {
		return nil, fail("fetch chunk", h, unexpected(err))
	}
	return b, nil
}

// unexpected: the size was known before the read, so its end is no excuse.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (d *Disk) acquire(h fs.Hash) (*chunkFile, error) {
	if d.closed.Load() {
		return nil, errClosed
	}
	return d.open.acquire(h, func() (file, error) { return d.o.files.Open(d.chunkPath(h)) })
}

// verified acquires the chunk's file and makes sure that it is good.
func (d *Disk) verified(h fs.Hash) (*chunkFile, error) {
	c, err := d.acquire(h)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fs.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if err := d.verify(c); err != nil {
		d.open.release(c)
		return nil, err
	}
	return c, nil
}

// verify reads c's file unless this process has done so before. Of several
// callers one reads. A file that fails is moved to quarantine.
func (d *Disk) verify(c *chunkFile) error {
	if c.good.Load() {
		return nil
	}
	c.verifying.Lock()
	defer c.verifying.Unlock()
	if c.good.Load() {
		return nil
	}
	if k, ok := d.known.get(c.hash); ok && k.ino == c.stat.ino {
		c.good.Store(true)
		return nil
	}
	sum, err := hashFile(c.f, c.stat.size)
	if err != nil {
		return err
	}
	if sum != c.hash {
		err := fmt.Errorf("%w: the bytes have hash %s", fs.ErrCorrupt, sum)
		if stuck := d.quarantine(c, err); stuck != nil {
			err = fmt.Errorf("%w; %w", err, stuck)
		}
		return err
	}
	d.known.verified(c.hash, c.stat.ino)
	c.good.Store(true)
	return nil
}

// hashBuffer is how much of a file is read at once to hash it.
const hashBuffer = 256 << 10

var hashBuffers = sync.Pool{New: func() any { return new([hashBuffer]byte) }}

// hashFile hashes the first size bytes of f. A file that cannot be a chunk is
// not read; its hash is that of nothing, which no chunk has.
func hashFile(f io.ReaderAt, size int64) (fs.Hash, error) {
	sum := sha256.New()
	if size > fs.ChunkMax {
		size = 0
	}
	buf := hashBuffers.Get().(*[hashBuffer]byte)
	defer hashBuffers.Put(buf)
	for off := int64(0); off < size; {
		p := buf[:min(hashBuffer, size-off)]
		n, err := f.ReadAt(p, off)
		if n < len(p) {
			return fs.Hash{}, unexpected(err)
		}
		sum.Write(p)
		off += int64(n)
	}
	return fs.Hash(sum.Sum(nil)), nil
}

// errStuck: a file that failed could not be taken out of use. It is still found
// out by every reader, but a put cannot take its place.
var errStuck = errors.New("the damaged file cannot be moved away")

// quarantine takes c's file out of use and reports it. A newer file of the same
// name, from a put meanwhile, stays. It fails with errStuck.
func (d *Disk) quarantine(c *chunkFile, why error) error {
	d.corrupt.Add(1)
	promised := false
	if d.o.Holdings != nil {
		promised, _ = d.o.Holdings.CopyOf(c.hash)
	}
	kept, err := d.moveAway(c, promised)
	d.o.OnCorrupt(c.hash)
	d.o.Log.Error("a chunk's file is damaged and not used any more; another copy will be fetched. Check the disk if this happens again",
		"chunk", c.hash, "kept_as", kept, "error", why)
	if err != nil {
		return fmt.Errorf("%w: %w", errStuck, err)
	}
	return nil
}

// moveAway returns the file's new path, or "" if it was removed or is not the
// chunk's any more. One that was promised is never removed, however full the
// quarantine is: what is left of it may be all there is.
func (d *Disk) moveAway(c *chunkFile, promised bool) (kept string, err error) {
	s := d.shardOf(c.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer d.open.dropFile(c)
	path := d.chunkPath(c.hash)
	st, err := d.o.files.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && st.ino != c.stat.ino {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	d.known.forget(c.hash)
	if promised || d.quarantined.Load() < int64(d.o.QuarantineMax) {
		kept = d.path(quarantineDir, fmt.Sprintf("%s-%d", c.hash, st.ino))
		err := d.o.files.Rename(path, kept)
		if err == nil {
			d.quarantined.Add(1)
			d.index.Remove(c.hash)
			return kept, nil
		}
		if promised {
			return "", err
		}
	}
	if err := d.o.files.Remove(path); err != nil {
		return "", err
	}
	d.index.Remove(c.hash)
	return "", nil
}
