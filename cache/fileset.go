package cache

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/wpfs/wpfs/fs"
)

// chunkFile is a chunk's file, open for reading. Whoever has acquired it may
// read it even after it was dropped from the set, moved or removed.
type chunkFile struct {
	hash fs.Hash
	f    file
	stat stat

	verifying sync.Mutex  // held by the one reader that verifies
	good      atomic.Bool // its bytes match its hash

	// Guarded by fileSet.mu.
	refs    int
	dropped bool
	place   *list.Element
}

// fileSet keeps the last used chunk files open, at most max of them plus those
// in use.
type fileSet struct {
	mu   sync.Mutex
	max  int
	open map[fs.Hash]*chunkFile
	used *list.List // of *chunkFile, last used first
}

func newFileSet(limit int) *fileSet {
	return &fileSet{max: limit, open: make(map[fs.Hash]*chunkFile), used: list.New()}
}

// acquire returns the open file of h, or opens it.
func (s *fileSet) acquire(h fs.Hash, open func() (file, error)) (*chunkFile, error) {
	if c := s.lookup(h); c != nil {
		return c, nil
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return s.insert(&chunkFile{hash: h, f: f, stat: st}), nil
}

func (s *fileSet) lookup(h fs.Hash) *chunkFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.open[h]
	if c != nil {
		c.refs++
		s.used.MoveToFront(c.place)
	}
	return c
}

// insert adds c, acquired, unless another reader was faster: then it returns
// that one's.
func (s *fileSet) insert(c *chunkFile) *chunkFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.open[c.hash]; other != nil {
		c.f.Close()
		other.refs++
		s.used.MoveToFront(other.place)
		return other
	}
	c.refs = 1
	c.place = s.used.PushFront(c)
	s.open[c.hash] = c
	for s.used.Len() > s.max {
		s.remove(s.used.Back().Value.(*chunkFile))
	}
	return c
}

// release ends an acquire.
func (s *fileSet) release(c *chunkFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.refs--; c.refs == 0 && c.dropped {
		c.f.Close()
	}
}

// inUse tells whether somebody has acquired the file of h.
func (s *fileSet) inUse(h fs.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.open[h]
	return c != nil && c.refs > 0
}

// drop forgets the open file of h: the next acquire opens what is there then.
func (s *fileSet) drop(h fs.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[h]; c != nil {
		s.remove(c)
	}
}

// dropFile is drop for one file; a newer one of the same hash stays.
func (s *fileSet) dropFile(c *chunkFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[c.hash] == c {
		s.remove(c)
	}
}

func (s *fileSet) dropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.used.Len() > 0 {
		s.remove(s.used.Back().Value.(*chunkFile))
	}
}

func (s *fileSet) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used.Len()
}

// remove is called with mu held.
func (s *fileSet) remove(c *chunkFile) {
	s.used.Remove(c.place)
	delete(s.open, c.hash)
	c.dropped = true
	if c.refs == 0 {
		c.f.Close()
	}
}
