package cache

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

var errFault = errors.New("injected fault")

// faultFiles is the operating system with its steps counted. The step with the
// number failAt fails, or every step that fails tells to.
type faultFiles struct {
	files
	failAt int64 // from 1; 0: none
	fails  func(op, path string) error
	steps  atomic.Int64
	failed atomic.Bool

	mu     sync.Mutex
	counts map[string]int // calls by operation
	opened int            // files open now
	most   int            // and at most
}

func newFaultFiles(failAt int64) *faultFiles {
	return &faultFiles{files: osFiles{}, failAt: failAt, counts: make(map[string]int)}
}

func (f *faultFiles) step(op, path string) error {
	f.mu.Lock()
	f.counts[op]++
	f.mu.Unlock()
	if f.steps.Add(1) == f.failAt {
		f.failed.Store(true)
		return &os.PathError{Op: op, Path: path, Err: errFault}
	}
	if f.fails != nil {
		return f.fails(op, path)
	}
	return nil
}

func (f *faultFiles) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

func (f *faultFiles) Mkdir(path string) error {
	if err := f.step("mkdir", path); err != nil {
		return err
	}
	return f.files.Mkdir(path)
}

func (f *faultFiles) Create(path string) (file, error) {
	if err := f.step("create", path); err != nil {
		return nil, err
	}
	return f.wrap(f.files.Create(path))
}

func (f *faultFiles) Open(path string) (file, error) {
	if err := f.step("open", path); err != nil {
		return nil, err
	}
	return f.wrap(f.files.Open(path))
}

func (f *faultFiles) wrap(inner file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	f.most = max(f.most, f.opened)
	return &faultFile{inner, f}, nil
}

func (f *faultFiles) Rename(from, to string) error {
	if err := f.step("rename", to); err != nil {
		return err
	}
	return f.files.Rename(from, to)
}

func (f *faultFiles) Remove(path string) error {
	if err := f.step("remove", path); err != nil {
		return err
	}
	return f.files.Remove(path)
}

func (f *faultFiles) Stat(path string) (stat, error) {
	if err := f.step("stat", path); err != nil {
		return stat{}, err
	}
	return f.files.Stat(path)
}

func (f *faultFiles) List(path string) ([]string, error) {
	if err := f.step("list", path); err != nil {
		return nil, err
	}
	return f.files.List(path)
}

func (f *faultFiles) SyncDir(path string) error {
	if err := f.step("syncdir", path); err != nil {
		return err
	}
	return f.files.SyncDir(path)
}

func (f *faultFiles) Free(path string) (uint64, error) {
	if err := f.step("free", path); err != nil {
		return 0, err
	}
	return f.files.Free(path)
}

type faultFile struct {
	file
	fs *faultFiles
}

// Write that fails has written half.
func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.fs.step("write", ""); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.step("read", ""); err != nil {
		return 0, err
	}
	return f.file.ReadAt(p, off)
}

func (f *faultFile) Sync() error {
	if err := f.fs.step("sync", ""); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultFile) Stat() (stat, error) {
	if err := f.fs.step("fstat", ""); err != nil {
		return stat{}, err
	}
	return f.file.Stat()
}

func (f *faultFile) Close() error {
	f.fs.mu.Lock()
	f.fs.opened--
	f.fs.mu.Unlock()
	err := f.file.Close()
	if serr := f.fs.step("close", ""); serr != nil {
		return serr
	}
	return err
}

// crashFiles is the operating system with a memory of what was not synced.
// crash then does to the directory what a power cut may do.
type crashFiles struct {
	files
	attic string // keeps removed files that a crash may bring back

	mu      sync.Mutex
	unsafe  map[uint64]bool // inodes whose content may be lost
	pending []change        // names that may be lost, in order
	removed int
}

// change is a rename (from, to) or, with to "", a removal kept in the attic.
type change struct{ from, to, kept string }

func newCrashFiles(attic string) *crashFiles {
	return &crashFiles{files: osFiles{}, attic: attic, unsafe: make(map[uint64]bool)}
}

func (c *crashFiles) Create(path string) (file, error) {
	f, err := c.files.Create(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsafe[st.ino] = true
	return crashFile{f, c, st.ino}, nil
}

func (c *crashFiles) Open(path string) (file, error) {
	f, err := c.files.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	return crashFile{f, c, st.ino}, err
}

type crashFile struct {
	file
	fs  *crashFiles
	ino uint64
}

func (f crashFile) Sync() error {
	err := f.file.Sync()
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	delete(f.fs.unsafe, f.ino)
	return err
}

func (c *crashFiles) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.files.Rename(from, to); err != nil {
		return err
	}
	c.pending = append(c.pending, change{from: from, to: to})
	return nil
}

func (c *crashFiles) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed++
	kept := filepath.Join(c.attic, strconv.Itoa(c.removed))
	if err := os.Link(path, kept); err != nil {
		return err
	}
	if err := c.files.Remove(path); err != nil {
		return err
	}
	c.pending = append(c.pending, change{from: path, kept: kept})
	return nil
}

func (c *crashFiles) SyncDir(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := c.pending[:0]
	for _, ch := range c.pending {
		name := ch.to // a rename is safe with its new name, a removal with the old one
		if name == "" {
			name = ch.from
		}
		if filepath.Dir(name) != path {
			left = append(left, ch)
		}
	}
	c.pending = left
	return c.files.SyncDir(path)
}

// crash undoes, as rng decides, changes of names from the last to the first, and
// damages content that was not synced. Nobody uses the files meanwhile.
func (c *crashFiles) crash(rng *rand.Rand, dir string) error {
	for i := len(c.pending) - 1; i >= 0; i-- {
		ch := c.pending[i]
		if rng.IntN(2) == 0 {
			continue
		}
		if _, err := os.Lstat(ch.from); err == nil {
			continue // a later change of this name has reached the disk
		}
		if ch.to != "" {
			_ = os.Rename(ch.to, ch.from)
		} else {
			_ = os.Link(ch.kept, ch.from)
		}
	}
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil || !c.unsafe[statOf(info).ino] || info.Size() == 0 {
			return err
		}
		switch rng.IntN(4) {
		case 0:
			return os.Truncate(path, 0)
		case 1:
			return os.Truncate(path, info.Size()/2)
		case 2: // the size arrived, the blocks did not
			return os.WriteFile(path, make([]byte, info.Size()), 0o600)
		}
		return nil
	})
}
