package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrLogCorrupt means that this node's log lost entries it had promised to
// keep, or holds an entry that fails its checksum. Such a node must come back
// as a new member (rules R27, R28): voting on with a shorter log could undo
// acknowledged writes.
var ErrLogCorrupt = errors.New("the log is damaged")

// logStore is raft's log on disk: raft-wal with three additions. Each entry
// carries a CRC32C that is checked when it is read. The highest index ever
// stored is remembered beside the log, so a log that opens shorter than that
// is found out. And the first write error is final: after a failed fsync the
// kernel may report success for pages it dropped, so onFatal is called (the
// process must end) and every later write fails.
type logStore struct {
	*wal.WAL
	onFatal func(error)
	confs   *confLog

	mu    sync.Mutex
	high  *highWater
	fatal error
}

func openLogStore(dir string, confs *confLog, onFatal func(error)) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	w, err := wal.Open(dir)
	if err != nil {
		if errors.Is(err, wal.ErrCorrupt) {
			return nil, fmt.Errorf("open log in %s: %w: %w", dir, ErrLogCorrupt, err)
		}
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	s := &logStore{WAL: w, onFatal: onFatal, confs: confs}
	if err := s.checkHigh(dir); err != nil {
		w.Close()
		return nil, err
	}
	if err := s.verify(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log in %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// verify reads every entry. Raft does so as well when it starts, but panics at
// the first that it cannot read.
func (s *logStore) verify() error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i != 0 && i <= last; i++ {
		if err := s.read(i, new(raft.Log)); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrLogCorrupt, i, err)
		}
	}
	return nil
}

func (s *logStore) checkHigh(dir string) (err error) {
	if s.high, err = openHighWater(filepath.Join(dir, "high-water")); err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log's end in %s: %w", dir, err)
	}
	if last < s.high.index {
		s.high.f.Close()
		return fmt.Errorf("open log in %s: %w: it ends at entry %d, but entry %d had been stored", dir, ErrLogCorrupt, last, s.high.index)
	}
	return nil
}

func (s *logStore) Close() error {
	return errors.Join(s.WAL.Close(), s.high.f.Close())
}

// IsMonotonic makes raft reset the log after a snapshot from the leader
// instead of leaving a gap in it, which raft-wal does not allow.
func (s *logStore) IsMonotonic() bool { return true }

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	err := s.read(index, l)
	if errors.Is(err, ErrLogCorrupt) {
		s.latch(err)
	}
	return err
}

// read is GetLog for a log that nobody uses yet.
func (s *logStore) read(index uint64, l *raft.Log) error {
	if err := s.WAL.GetLog(index, l); err != nil {
		return err
	}
	n := len(l.Data) - 4
	if n < 0 || crc32.Checksum(l.Data[:n], castagnoli) != binary.BigEndian.Uint32(l.Data[n:]) {
		return fmt.Errorf("read log entry %d: %w: its checksum is wrong", index, ErrLogCorrupt)
	}
	l.Data = l.Data[:n:n]
	s.confs.sawEntry(l)
	return nil
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if err := s.failed(); err != nil {
		return err
	}
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Data = binary.BigEndian.AppendUint32(append(make([]byte, 0, len(l.Data)+4), l.Data...), crc32.Checksum(l.Data, castagnoli))
		sealed[i] = &c
	}
	if err := s.WAL.StoreLogs(sealed); err != nil {
		return s.latch(fmt.Errorf("store log entries from %d: %w", logs[0].Index, err))
	}
	for _, l := range logs {
		s.confs.sawEntry(l)
	}
	s.mu.Lock()
	err := s.high.raise(logs[len(logs)-1].Index)
	s.mu.Unlock()
	if err != nil {
		return s.latch(err) // the entries are stored, but raft would believe they are not
	}
	return nil
}

func (s *logStore) DeleteRange(lo, hi uint64) error {
	if err := s.failed(); err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	if hi >= last {
		if err := s.expectLess(lo, first); err != nil {
			return s.latch(err)
		}
	}
	if err := s.WAL.DeleteRange(lo, hi); err != nil {
		return s.latch(fmt.Errorf("delete log entries %d to %d: %w", lo, hi, err))
	}
	switch {
	case hi >= last && lo <= first:
		s.confs.emptied()
	case hi >= last:
		s.confs.cut(lo)
	}
	return nil
}

// expectLess lowers the high-water mark, durably, before entries from lo to the
// log's end go.
func (s *logStore) expectLess(lo, first uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := min(lo-1, s.high.index)
	if lo <= first {
		to = 0
	}
	return errors.Join(s.high.set(to), s.high.f.Sync())
}

func (s *logStore) Set(key, val []byte) error {
	if err := s.failed(); err != nil {
		return err
	}
	if err := s.WAL.Set(key, val); err != nil {
		return s.latch(fmt.Errorf("store raft's %s: %w", key, err))
	}
	return nil
}

func (s *logStore) SetUint64(key []byte, val uint64) error {
	if err := s.failed(); err != nil {
		return err
	}
	if err := s.WAL.SetUint64(key, val); err != nil {
		return s.latch(fmt.Errorf("store raft's %s: %w", key, err))
	}
	return nil
}

func (s *logStore) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal
}

func (s *logStore) latch(err error) error {
	s.mu.Lock()
	first := s.fatal == nil
	if first {
		s.fatal = err
	}
	s.mu.Unlock()
	if first {
		s.onFatal(err)
	}
	return err
}

// highWater is the highest index stored, in 12 bytes of a file: the index and
// its CRC32C. It is written after the entries are synced and not synced itself,
// so after a power loss it may be too low, which only weakens the check; it is
// never too high.
type highWater struct {
	f     *os.File
	index uint64
}

func openHighWater(path string) (*highWater, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log's high-water mark: %w", err)
	}
	h := &highWater{f: f}
	var b [12]byte
	if n, _ := f.ReadAt(b[:], 0); n == len(b) && crc32.Checksum(b[:8], castagnoli) == binary.BigEndian.Uint32(b[8:]) {
		h.index = binary.BigEndian.Uint64(b[:])
	}
	return h, nil
}

func (h *highWater) raise(index uint64) error {
	if index <= h.index {
		return nil
	}
	return h.set(index)
}

func (h *highWater) set(index uint64) error {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], index)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	if _, err := h.f.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write the log's high-water mark: %w", err)
	}
	h.index = index
	return nil
}
