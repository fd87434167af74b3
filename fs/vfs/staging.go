package vfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

const (
	// stagingFiles bounds the descriptors that spilled content costs, however
	// many inodes have some; several, because the kernel lets one writer at a
	// time into a file.
	stagingFiles = 4
	// slotSize is the unit of allocation in a staging file. The files are
	// sparse: a slot costs disk only where it was written. It is the chunk
	// size, so that a full chunk lies in one slot.
	slotSize = fs.ChunkMax
	// slotsMax slots make 8 TiB, below the 16 TiB that ext4 allows in one file.
	slotsMax = 2 << 20
)

// staging is where unpublished content goes that memory has no room for: a few
// unlinked files, so that a crash leaves nothing behind. What is in them was
// promised to nobody but local processes of this run.
type staging struct {
	mu    sync.Mutex
	next  int
	files []*stagingFile
}

// stagingFile is one of the files.
type stagingFile struct {
	f    *os.File
	mu   sync.Mutex
	free []uint32
	used uint32 // slots ever given out since the file was last empty
	live uint32 // slots in use
}

// slot is a place for slotSize bytes.
type slot struct {
	file *stagingFile
	n    uint32
}

func openStaging(dir string) (*staging, error) {
	s := &staging{}
	for range stagingFiles {
		f, err := os.CreateTemp(dir, "staging-*")
		if err == nil {
			err = os.Remove(f.Name())
		}
		if err != nil {
			_ = s.close() // the first error is the one to report
			return nil, fmt.Errorf("open staging file in %s: %w", dir, err)
		}
		s.files = append(s.files, &stagingFile{f: f})
	}
	return s, nil
}

func (s *staging) close() error {
	var err error
	for _, sf := range s.files {
		err = errors.Join(err, sf.f.Close())
	}
	return err
}

// pick chooses the file for another segment.
func (s *staging) pick() *stagingFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = (s.next + 1) % len(s.files)
	return s.files[s.next]
}

// alloc returns a slot whose bytes are undefined.
func (sf *stagingFile) alloc() (slot, error) {
	sf.mu.Lock()
	defer sf.mu.Unlock()
	n := sf.used
	switch l := len(sf.free); {
	case l > 0:
		n, sf.free = sf.free[l-1], sf.free[:l-1]
	case sf.used == slotsMax:
		return slot{}, &fs.Error{Op: "spill content", Kind: fs.ErrNoSpace}
	default:
		sf.used++
	}
	sf.live++
	return slot{sf, n}, nil
}

// drop gives the slot's space back to the disk.
func (sl slot) drop() {
	sf := sl.file
	// Not every file system can punch holes; then the space comes back when
	// the file has no slot in use.
	_ = unix.Fallocate(int(sf.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, sl.pos(0), slotSize)
	sf.mu.Lock()
	defer sf.mu.Unlock()
	sf.free = append(sf.free, sl.n)
	if sf.live--; sf.live == 0 {
		sf.free, sf.used = nil, 0
		_ = sf.f.Truncate(0) // a failure costs disk space until the next time
	}
}

func (sl slot) pos(off uint64) int64 { return int64(sl.n)*slotSize + int64(off) }

func (sl slot) writeAt(p []byte, off uint64) error {
	if _, err := sl.file.f.WriteAt(p, sl.pos(off)); err != nil {
		kind := fs.ErrIO
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			kind = fs.ErrNoSpace
		}
		return &fs.Error{Op: "spill content", Kind: kind, Err: err}
	}
	return nil
}

func (sl slot) readAt(p []byte, off uint64) error {
	if _, err := sl.file.f.ReadAt(p, sl.pos(off)); err != nil {
		return &fs.Error{Op: "read spilled content", Kind: fs.ErrIO, Err: err}
	}
	return nil
}
