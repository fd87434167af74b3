package meta

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

// State is the metadata at one index of the log. One goroutine at a time calls
// Apply; everything else may be called from any number of goroutines.
type State struct {
	kv KV

	applying     sync.Mutex // held during Apply
	failed       error      // under applying: the first failure of the store
	beforeCommit func(at fs.Index, keys []fs.Key, by []int)
	dropped      func(fs.ChunkID, []byte)

	mu      sync.RWMutex // held for writing while the store commits
	sys     system       // under mu: as in the store
	view    view         // under mu
	applied atomic.Uint64
	hash    atomic.Uint64
}

// Options tunes a State. The zero value is good for a web server.
type Options struct {
	// CacheBytes bounds what is kept of decoded inodes and of names, present and
	// absent, in memory. Default 64 MiB; negative: nothing is kept.
	CacheBytes int
}

func (o Options) withDefaults() Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = cacheBytesDefault
	}
	return o
}

// Open is OpenWith the default options.
func Open(kv KV) (*State, error) { return OpenWith(kv, Options{}) }

// OpenWith returns the state that kv holds. An empty store gets a root directory
// first: mode 0755, owned by root, with all times at the epoch, the same bytes
// on every node. A *VersionError means that a newer release wrote the store.
// The State owns kv afterwards; after an error the caller still does.
func OpenWith(kv KV, o Options) (*State, error) {
	o = o.withDefaults()
	b, ok, err := kv.Get(keyFormat)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	if !ok {
		if err := initialize(kv); err != nil {
			return nil, fmt.Errorf("open metadata: %w", err)
		}
	} else if err := checkFormat(b); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	s := &State{kv: kv}
	s.view = view{reader{kv}, &s.sys, newRecordCache(o.CacheBytes)}
	if s.sys, err = (reader{kv}).system(); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	a, err := readApplied(kv)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	s.applied.Store(uint64(a.at))
	s.hash.Store(a.hash)
	return s, nil
}

func checkFormat(b []byte) error {
	d := &dec{b: b}
	v := d.uint()
	if d.err == nil && v > formatVersion {
		return &VersionError{"store format", v, formatVersion}
	}
	if err := d.end(); err != nil || v == 0 {
		return corrupt("read store format", err)
	}
	return nil
}

func readApplied(r Reader) (a appliedRecord, err error) {
	b, ok, err := r.Get(keyApplied)
	if err != nil || !ok {
		return a, err
	}
	return decodeApplied(b)
}

// initialize makes an empty store a file system with nothing in its root.
func initialize(kv KV) error {
	empty := true
	if err := kv.Scan(nil, nil, func(k, v []byte) bool { empty = false; return false }); err != nil {
		return err
	}
	if !empty {
		return corrupt("read store format", errMissing)
	}
	root := &inode{
		Attr:   fs.Attr{Ino: fs.RootIno, Mode: fs.ModeDir | 0o755, Nlink: 2, Size: dirSize},
		parent: fs.RootIno, nextCookie: firstCookie,
	}
	var format enc
	format.uint(formatVersion)
	return kv.Commit([]Write{
		{Key: keyInode(fs.RootIno), Value: root.encode()},
		{Key: keyFormat, Value: format.b},
		{Key: keySystem, Value: system{nextIno: fs.RootIno + 1, inodes: 1}.encode()},
	})
}

// SetBeforeCommit sets a function that Apply calls with the index and the
// changed keys right before the store commits, while readers still see the old
// state. by[i] is the index in the batch of the one command that changed
// keys[i], or -1 if several did; refused commands change nothing. f must keep
// neither slice. It is set before the first Apply.
func (s *State) SetBeforeCommit(f func(at fs.Index, keys []fs.Key, by []int)) { s.beforeCommit = f }

// SetDroppedInline sets a function that Apply calls after the commit for each
// chunk whose inline content left the metadata because the object store has it
// now. The bytes are the callee's. It is set before the first Apply; nil means
// nobody wants them.
func (s *State) SetDroppedInline(f func(fs.ChunkID, []byte)) { s.dropped = f }

// Apply applies one log entry: all of batch, in order, together with applied =
// at, in one commit. It returns a result per command and the keys that changed,
// each once, in the order of the changes. An entry that is not above Applied is
// skipped and has no results. An error means that the store failed or its
// content is damaged; nothing of the entry is visible then, every later Apply
// fails too, and the node must stop. A refused command is no error. Commands may
// share memory with the caller's buffers, which Apply neither keeps nor changes.
func (s *State) Apply(at fs.Index, batch []fs.Command) ([]fs.Result, []fs.Key, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.failed != nil {
		return nil, nil, s.failed
	}
	if at <= s.Applied() {
		return nil, nil, nil
	}
	t := newTx(s.kv, at, s.sys)
	results := make([]fs.Result, len(batch))
	for i, c := range batch {
		t.cmd = i
		r, err := t.run(c)
		if err != nil {
			s.failed = fmt.Errorf("apply entry %d command %d: %w", at, i, err)
			return nil, nil, s.failed
		}
		results[i] = r
	}
	if err := s.commit(t); err != nil {
		s.failed = fmt.Errorf("apply entry %d: %w", at, err)
		return nil, nil, s.failed
	}
	return results, t.keys, nil
}

func (s *State) commit(t *tx) error {
	writes, hash := t.finish(s.hash.Load())
	if s.beforeCommit != nil {
		s.beforeCommit(t.at, t.keys, t.by)
	}
	edits := s.view.cache.edits(writes)
	s.mu.Lock()
	err := s.kv.Commit(writes)
	if err != nil {
		s.view.cache = nil // what the store holds now is not known
	} else {
		s.view.cache.apply(edits)
		s.sys = t.sys
		s.applied.Store(uint64(t.at))
		s.hash.Store(hash)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.dropped != nil {
		for _, d := range t.dropped {
			s.dropped(d.id, d.content)
		}
	}
	return nil
}

// Applied is the index of the last entry in the state; 0 before the first.
func (s *State) Applied() fs.Index { return fs.Index(s.applied.Load()) }

// StateHash is a hash over the changes of all entries so far. It is equal on two
// nodes that applied the same entries, and almost certainly not on others.
func (s *State) StateHash() uint64 { return s.hash.Load() }

// Flush returns when everything applied before the call survives a crash.
func (s *State) Flush() error { return s.kv.Flush() }

// Checkpoint writes a durable copy of the store into dir, which must not exist.
// The copy holds at least what was applied before the call.
func (s *State) Checkpoint(dir string) error { return s.kv.Checkpoint(dir) }

// Close releases the store. It waits for a running Apply; no method may be
// called afterwards.
func (s *State) Close() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kv.Close()
}
