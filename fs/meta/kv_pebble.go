package meta

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/wpfs/wpfs/fs"
)

// pebbleFormat is pebble's on-disk format. It is pinned because it is a one-way
// door: a library upgrade must not keep a cluster from going back a release.
const pebbleFormat = pebble.FormatTableFormatV6

// PebbleOptions tunes a store on disk. The zero value is good for a node with a
// million files.
type PebbleOptions struct {
	CacheBytes    int64  // blocks kept in memory; default 128 MiB
	MemTableBytes uint64 // changes kept in memory before they are written; default 32 MiB
	// Logger gets what an operator should know. Default: slog.Default().
	Logger *slog.Logger

	fs vfs.FS // of tests: a disk that fails or crashes
}

func (o PebbleOptions) withDefaults() PebbleOptions {
	if o.CacheBytes == 0 {
		o.CacheBytes = 128 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 32 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	return o
}

// Validate names the field that cannot be and why.
func (o PebbleOptions) Validate() error {
	switch {
	case o.CacheBytes < 0:
		return errors.New("CacheBytes must not be negative")
	case o.MemTableBytes != 0 && (o.MemTableBytes < 64<<10 || o.MemTableBytes > 1<<30):
		return errors.New("MemTableBytes must be between 64 KiB and 1 GiB")
	}
	return nil
}

// pebbleKV is a KV on disk. It has no write-ahead log: the log of the cluster is
// one, and the applied index in each Commit says where to continue.
type pebbleKV struct {
	db    *pebble.DB
	cache *pebble.Cache
	lock  *pebble.Lock

	once   sync.Once
	failed chan struct{} // closed after the first failed write in the background
	broken error         // that failure; set before failed is closed
}

// OpenPebble opens or makes the store in dir; one process at a time has it.
// Errors: a *VersionError if a newer release wrote it, kind fs.ErrCorrupt if it
// is damaged, kind fs.ErrBusy if another process has it.
func OpenPebble(dir string, o PebbleOptions) (KV, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open metadata store %s: %w", dir, err)
	}
	o = o.withDefaults()
	if err := checkPebbleFormat(o.fs, dir); err != nil {
		return nil, fmt.Errorf("open metadata store %s: %w", dir, err)
	}
	p := &pebbleKV{failed: make(chan struct{})}
	if err := p.open(dir, o); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pebbleKV) open(dir string, o PebbleOptions) error {
	if err := o.fs.MkdirAll(dir, 0o700); err != nil {
		return &fs.Error{Op: "open metadata store", Name: dir, Kind: fs.ErrIO, Err: err}
	}
	var err error
	if p.lock, err = pebble.LockDirectory(dir, o.fs); err != nil {
		return lockError(dir, err)
	}
	p.cache = pebble.NewCache(o.CacheBytes)
	if p.db, err = pebble.Open(dir, p.options(o)); err != nil {
		p.cache.Unref()
		return errors.Join(openError(dir, err), p.lock.Close())
	}
	return nil
}

// checkPebbleFormat reads the format's number from the name of pebble's marker
// file, because pebble itself refuses a newer one only in words.
func checkPebbleFormat(disk vfs.FS, dir string) error {
	names, err := disk.List(dir)
	if err != nil {
		return nil //nolint:nilerr // pebble makes the directory, or reports why it cannot
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "marker.format-version.") {
			continue
		}
		v, err := strconv.ParseUint(name[strings.LastIndexByte(name, '.')+1:], 10, 64)
		if err == nil && v > uint64(pebble.FormatNewest) {
			return &VersionError{"metadata store on disk", v, uint64(pebble.FormatNewest)}
		}
	}
	return nil
}

// lockError tells a directory that another process has from one that cannot be
// used: only the latter's error comes from a call that names a file.
func lockError(dir string, err error) error {
	e := &fs.Error{Op: "lock metadata store", Name: dir, Kind: fs.ErrBusy, Err: err}
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		e.Kind = fs.ErrIO
	}
	return e
}

// openError tells damage from failing calls: what is neither a system call's
// error nor about a missing file is pebble disliking what it read.
func openError(dir string, err error) error {
	e := &fs.Error{Op: "open metadata store", Name: dir, Kind: fs.ErrIO, Err: err}
	errno := syscall.Errno(0)
	if pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) || !errors.As(err, &errno) {
		e.Kind = fs.ErrCorrupt
		e.Err = fmt.Errorf("move this directory away and start again, the node then takes the state from the others: %w", err)
	}
	return e
}

func (p *pebbleKV) options(o PebbleOptions) *pebble.Options {
	po := &pebble.Options{
		Cache:                       p.cache,
		Lock:                        p.lock,
		DisableWAL:                  true,
		FormatMajorVersion:          pebbleFormat,
		FS:                          o.fs,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                1000,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      pebbleLogger{o.Logger},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { p.fail(o.Logger, err) },
			DataCorruption:  func(i pebble.DataCorruptionInfo) { p.fail(o.Logger, i.Details) },
		},
	}
	// The usual one wakes ten times a second to see whether more compactions may run;
	// here there is never more than one, whose end starts the next.
	po.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	for i := range po.Levels {
		po.Levels[i].BlockSize = 8 << 10
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		po.Levels[i].FilterType = pebble.TableFilter
	}
	return po
}

// fail is called by pebble, maybe under its lock, and again for each retry, so it
// records the first error and returns.
func (p *pebbleKV) fail(log *slog.Logger, err error) {
	p.once.Do(func() {
		p.broken = damage("write metadata store in the background", err)
		close(p.failed)
		log.Error("the metadata store cannot use its disk; this node applies no more changes until it is restarted", "err", err)
	})
}

// pebbleLogger passes on what an operator can act on.
type pebbleLogger struct{ log *slog.Logger }

func (pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, a ...any) {
	l.log.Error("metadata store", "err", fmt.Sprintf(format, a...))
}

// Fatalf must not return: pebble's state is undefined afterwards.
func (l pebbleLogger) Fatalf(format string, a ...any) {
	msg := fmt.Sprintf(format, a...)
	l.log.Error("metadata store cannot go on", "err", msg)
	panic("meta: " + msg)
}

// damage gives errors of damaged files their kind.
func damage(op string, err error) error {
	if err == nil {
		return nil
	}
	if pebble.IsCorruptionError(err) {
		return corrupt(op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// pebbleReader is what a pebble.DB and a pebble.Snapshot have in common.
type pebbleReader struct{ pebble.Reader }

func (r pebbleReader) Get(key []byte) ([]byte, bool, error) {
	v, closer, err := r.Reader.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, damage("read metadata store", err)
	}
	v = append([]byte{}, v...)
	return v, true, damage("read metadata store", closer.Close())
}

func (r pebbleReader) Scan(lo, hi []byte, f func(k, v []byte) bool) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return damage("scan metadata store", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return damage("scan metadata store", errors.Join(err, it.Close()))
		}
		if !f(it.Key(), v) {
			break
		}
	}
	return damage("scan metadata store", it.Close())
}

func (r pebbleReader) Last(lo, hi []byte) (k, v []byte, ok bool, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return nil, nil, false, damage("search metadata store", err)
	}
	if it.Last() {
		if v, err = it.ValueAndErr(); err == nil {
			k, v, ok = bytes.Clone(it.Key()), append([]byte{}, v...), true
		}
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return k, v, ok, damage("search metadata store", err)
}

func (p *pebbleKV) Get(key []byte) ([]byte, bool, error) { return pebbleReader{p.db}.Get(key) }
func (p *pebbleKV) Scan(lo, hi []byte, f func(k, v []byte) bool) error {
	return pebbleReader{p.db}.Scan(lo, hi, f)
}
func (p *pebbleKV) Last(lo, hi []byte) (k, v []byte, ok bool, err error) {
	return pebbleReader{p.db}.Last(lo, hi)
}

// Commit fails from the first failed background write on. Without that the
// changes would pile up in memory until pebble blocks Commit for ever, and with
// it every reader.
func (p *pebbleKV) Commit(w []Write) error {
	if err := p.err(); err != nil {
		return err
	}
	b := p.db.NewBatch()
	for _, x := range w {
		var err error
		if x.Delete {
			err = b.Delete(x.Key, nil)
		} else {
			err = b.Set(x.Key, x.Value, nil)
		}
		if err != nil {
			return errors.Join(damage("write metadata store", err), b.Close())
		}
	}
	return damage("write metadata store", b.Commit(pebble.NoSync))
}

// err is the first failure in the background.
func (p *pebbleKV) err() error {
	select {
	case <-p.failed:
		return p.broken
	default:
		return nil
	}
}

func (p *pebbleKV) Snapshot() (Snapshot, error) {
	s := p.db.NewSnapshot()
	return pebbleSnapshot{pebbleReader{s}, s}, nil
}

type pebbleSnapshot struct {
	pebbleReader
	s *pebble.Snapshot
}

func (s pebbleSnapshot) Close() error { return s.s.Close() }

// Flush gives up when the disk fails; pebble itself would retry for ever.
func (p *pebbleKV) Flush() error {
	if err := p.err(); err != nil {
		return err
	}
	done, err := p.db.AsyncFlush()
	if err != nil {
		return damage("flush metadata store", err)
	}
	select {
	case <-done:
		return nil
	case <-p.failed:
		return p.broken
	}
}

func (p *pebbleKV) Checkpoint(dir string) error {
	if err := p.Flush(); err != nil {
		return err
	}
	return damage("checkpoint metadata store", p.db.Checkpoint(dir))
}

func (p *pebbleKV) Close() error {
	err := p.db.Close()
	p.cache.Unref()
	return damage("close metadata store", errors.Join(err, p.lock.Close()))
}
