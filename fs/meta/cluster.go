package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/wpfs/wpfs/fs"
)

// Session is one registered run of a node's daemon.
type Session struct {
	ID     fs.SessionID
	Node   fs.NodeID
	Opened fs.Index // of the entry that registered it
}

// Orphan is an inode without a name that waits for Reclaim.
type Orphan struct {
	Ino   fs.Ino
	Since fs.Index // of the entry that took the last name, or made it without
}

// Undurable is a chunk that the object store does not have yet.
type Undurable struct {
	Info   fs.ChunkInfo // Inline is nil: View.Chunk has the content
	Inline bool         // the content is in the metadata
}

// Session tells which node registered a session that has not ended.
func (s *State) Session(id fs.SessionID) (node fs.NodeID, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok, err := reader{s.kv}.session(id)
	if err != nil || !ok || r.expired {
		return "", false
	}
	return r.node, true
}

// Sessions lists the sessions that have not ended, by number.
func (s *State) Sessions() ([]Session, error) {
	lo := []byte{kindSession}
	return collect(s, lo, after(lo), 0, func(k, v []byte) (Session, bool, error) {
		r, err := decodeSession(v)
		return Session{fs.SessionID(keyTail(k)), r.node, r.opened}, !r.expired, err
	})
}

// SessionResult tells the stored result of a command, if it is still in the
// session's window.
func (s *State) SessionResult(id fs.SessionID, seq uint64) (fs.Result, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return reader{s.kv}.result(id, seq)
}

// Orphans lists up to n orphans with numbers above ino.
func (s *State) Orphans(ino fs.Ino, n int) ([]Orphan, error) {
	if n <= 0 || ino == ^fs.Ino(0) {
		return nil, nil
	}
	return collect(s, keyOrphan(ino+1), after([]byte{kindOrphan}), n, func(k, v []byte) (Orphan, bool, error) {
		r, err := decodeOrphan(v)
		return Orphan{fs.Ino(keyTail(k)), r.since}, true, err
	})
}

// Undurable lists up to n chunks that are cited and not durable, behind last in
// the order of generation and hash: the oldest first.
func (s *State) Undurable(last fs.ChunkID, n int) ([]Undurable, error) {
	if n <= 0 {
		return nil, nil
	}
	var list []Undurable
	err := s.Read(func(fs.View) error {
		ids, err := scan(s.kv, append(keyUndurable(last), 0), after([]byte{kindUndurable}), n,
			func(k, _ []byte) (fs.ChunkID, bool, error) { return chunkOfUndurable(k), true, nil })
		if err != nil {
			return err
		}
		for _, id := range ids {
			r, err := reader{s.kv}.mustChunk(id)
			if err != nil {
				return err
			}
			list = append(list, Undurable{r.info(id), r.inline})
		}
		return nil
	})
	return list, err
}

// UUID is the cluster's identity; "" before InitCluster.
func (s *State) UUID() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok, err := s.kv.Get(keyUUID)
	if err != nil || !ok {
		return ""
	}
	id, err := decodeBlob("uuid", b)
	if err != nil {
		return ""
	}
	return string(id)
}

// collect scans the latest state.
func collect[T any](s *State, lo, hi []byte, n int, read func(k, v []byte) (T, bool, error)) ([]T, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return scan(s.kv, lo, hi, n, read)
}

// scan reads up to n elements (0: all) from [lo, hi), skipping those for which
// read returns false.
func scan[T any](src Reader, lo, hi []byte, n int, read func(k, v []byte) (T, bool, error)) ([]T, error) {
	var list []T
	var bad error
	err := src.Scan(lo, hi, func(k, v []byte) bool {
		x, want, err := read(k, v)
		if err != nil {
			bad = err
			return false
		}
		if want {
			list = append(list, x)
		}
		return n == 0 || len(list) < n
	})
	if err == nil {
		err = bad
	}
	return list, err
}

// Digest is the SHA-256 of the whole store. It reads everything, from a
// snapshot, so commits go on.
func (s *State) Digest() (sum [32]byte, err error) {
	snap, err := s.kv.Snapshot()
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	err = snap.Scan(nil, nil, func(k, v []byte) bool {
		var b bytes.Buffer
		n := binary.AppendUvarint(nil, uint64(len(k)))
		b.Write(binary.AppendUvarint(n, uint64(len(v))))
		b.Write(k)
		b.Write(v)
		_, _ = h.Write(b.Bytes()) // a hash never fails
		return true
	})
	if cerr := snap.Close(); err == nil {
		err = cerr
	}
	h.Sum(sum[:0])
	return sum, err
}
