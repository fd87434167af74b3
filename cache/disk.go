package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/cache/policy"
	"github.com/wpfs/wpfs/fs"
)

// What Disk makes below its directory.
const (
	chunkDir      = "chunks"     // chunks/<2 hex>/<64 hex>, the bytes and nothing else
	tempDir       = "tmp"        // files being written, removed at start
	quarantineDir = "quarantine" // files that failed their hash, kept for a look
	indexFile     = "index"      // names, sizes and order, written at the end; see package policy
	scrubFile     = "scrub"      // how far the scrub has come
	lockFile      = "lock"
	formatFile    = "format"
	formatText    = "wpfs cache 1\n"
)

// shards is the fan-out: the first byte of the hash.
const shards = 256

// DiskOptions for OpenDisk; the zero value means the defaults.
type DiskOptions struct {
	// ReserveBytes stay free on the file system, so that the log beside the
	// cache never meets a full disk: chunks that nobody relies on are dropped
	// for that, and a put that would go below is refused. Default 1 GiB.
	ReserveBytes uint64
	// MaxBytes bounds what is held, in the same way; 0 is no bound.
	MaxBytes int64
	// Holdings tells what may be dropped; nil: nothing.
	Holdings Holdings
	// OpenFilesMax bounds the chunk files kept open; default 512.
	OpenFilesMax int
	// QuarantineMax bounds the corrupt files that are kept; default 64.
	// Further ones are removed.
	QuarantineMax int
	// OnCorrupt hears of every file that failed its hash, for metrics. It must
	// not block.
	OnCorrupt func(h fs.Hash)
	// Log receives what an operator may have to act on; default: discarded.
	Log *slog.Logger

	files files // tests replace it
}

func (o *DiskOptions) setDefaults() {
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 1 << 30
	}
	if o.OpenFilesMax <= 0 {
		o.OpenFilesMax = 512
	}
	if o.QuarantineMax <= 0 {
		o.QuarantineMax = 64
	}
	if o.OnCorrupt == nil {
		o.OnCorrupt = func(fs.Hash) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.files == nil {
		o.files = osFiles{}
	}
}

// Disk holds chunks as files of one local directory. It never returns bytes
// that do not match their hash: a file is verified when this process first
// touches it. All methods may be called at the same time; they block on the
// disk only.
type Disk struct {
	dir  string
	o    DiskOptions
	lock *os.File

	shard [shards]shard
	open  *fileSet
	known *knownSet
	index *policy.Index

	evicting sync.Mutex   // held by the one who makes room
	checked  atomic.Int64 // when pinned chunks were looked at last, in Unix ns
	scanned  atomic.Bool  // index has every chunk

	temps       atomic.Uint64 // names of temporary files
	writing     atomic.Int64  // bytes of puts that the file system may not have counted yet
	quarantined atomic.Int64
	corrupt     atomic.Uint64
	refused     atomic.Uint64 // puts for lack of space
	evicted     atomic.Uint64
	evictedSize atomic.Uint64 // bytes
	syncFailed  atomic.Pointer[error]
	closed      atomic.Bool
}

// shard is one of the directories below chunks. The lock is held while names in
// it change, so that a check and the change after it are one step; the index
// changes within it.
type shard struct{ mu sync.Mutex }

// DiskStats are for metrics and status pages.
type DiskStats struct {
	Chunks, Bytes int64   // what is held; all of it once Counted
	Counted       bool    // Scan has finished
	Pressure      float64 // see Disk.Pressure
	Free          uint64
	OpenFiles     int
	Corrupt       uint64 // files that failed their hash since the start
	Quarantined   int64  // files in quarantine
	Refused       uint64 // puts refused for lack of space
	Evicted       uint64 // chunks dropped to make room
	EvictedBytes  uint64
}

// OpenDisk opens the directory, makes it if it is not there (its parent must
// be), and removes what a crash left half written. It fails if another process
// has it open, or if it was written by a newer version.
func OpenDisk(dir string, o DiskOptions) (*Disk, error) {
	o.setDefaults()
	d := &Disk{dir: dir, o: o, open: newFileSet(o.OpenFilesMax), known: newKnownSet(knownMax), index: policy.New(policy.Options{})}
	if err := d.prepare(); err != nil {
		if d.lock != nil {
			d.lock.Close()
		}
		return nil, fmt.Errorf("open cache %s: %w", dir, err)
	}
	return d, nil
}

func (d *Disk) prepare() error {
	if err := d.o.files.Mkdir(d.dir); err != nil {
		return err
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	if err := d.checkFormat(); err != nil {
		return err
	}
	for _, sub := range []string{chunkDir, tempDir, quarantineDir} {
		if err := d.o.files.Mkdir(d.path(sub)); err != nil {
			return err
		}
	}
	made, err := d.o.files.List(d.path(chunkDir))
	if err != nil {
		return err
	}
	for i := 0; i < shards && len(made) < shards; i++ {
		if err := d.o.files.Mkdir(d.path(chunkDir, hex.EncodeToString([]byte{byte(i)}))); err != nil {
			return err
		}
	}
	// The names of the directories are as durable as what will be put there.
	for _, dir := range []string{d.path(chunkDir), d.dir, filepath.Dir(d.dir)} {
		if err := d.o.files.SyncDir(dir); err != nil {
			return err
		}
	}
	return d.tidy()
}

// takeLock keeps two processes from working in one directory: each would remove
// the other's temporary files.
func (d *Disk) takeLock() error {
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("another process is using it: stop that agent, or give this one its own directory")
		}
		return err
	}
	d.lock = f
	return nil
}

func (d *Disk) checkFormat() error {
	path := d.path(formatFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 { // empty: a crash while it was made
		return os.WriteFile(path, []byte(formatText), 0o600)
	}
	if err != nil {
		return err
	}
	if string(b) != formatText {
		return fmt.Errorf("it holds %q but this version knows %q: install the version of wpfs that wrote it, or empty the directory", firstLine(b), firstLine([]byte(formatText)))
	}
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b[:min(len(b), 80)]), "\n")
	return line
}

// tidy removes temporary files and counts the quarantine.
func (d *Disk) tidy() error {
	names, err := d.o.files.List(d.path(tempDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.o.files.Remove(d.path(tempDir, name)); err != nil {
			return err
		}
	}
	names, err = d.o.files.List(d.path(quarantineDir))
	d.quarantined.Store(int64(len(names)))
	return err
}

// Close closes the files. Calls that are running end normally or with an error.
func (d *Disk) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	d.saveIndex()
	d.open.dropAll()
	return d.lock.Close()
}

// Stats reads the counters; it asks the file system for the free space.
func (d *Disk) Stats() DiskStats {
	x := d.index.Stats()
	st := DiskStats{
		Chunks: int64(x.Chunks), Bytes: x.Bytes, Counted: d.scanned.Load(), Pressure: d.Pressure(),
		OpenFiles: d.open.count(), Corrupt: d.corrupt.Load(), Quarantined: d.quarantined.Load(), Refused: d.refused.Load(),
		Evicted: d.evicted.Load(), EvictedBytes: d.evictedSize.Load(),
	}
	if free, err := d.o.files.Free(d.dir); err == nil {
		st.Free = free
	}
	return st
}

func (d *Disk) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

func (d *Disk) chunkPath(h fs.Hash) string {
	return d.path(chunkDir, hex.EncodeToString(h[:1]), h.String())
}

func (d *Disk) shardOf(h fs.Hash) *shard { return &d.shard[h[0]] }

// fail makes the error of an operation on a chunk; of a cause that is no kind
// yet it finds the kind.
func fail(op string, h fs.Hash, err error) error {
	kind := fs.KindOf(err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind = fs.ErrNoSpace
	case errors.Is(err, context.Canceled):
		kind = fs.ErrInterrupted
	}
	if k, bare := err.(fs.Kind); bare && k == kind {
		err = nil
	}
	return &fs.Error{Op: op, Name: h.String(), Kind: kind, Err: err}
}
