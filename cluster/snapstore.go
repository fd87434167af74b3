package cluster

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// snapshotStore keeps raft's snapshots as directories of hard links to the
// metadata store's files, so taking one costs milliseconds and no space until
// the files are compacted away. Only when a follower needs one is it read, as a
// tar stream.
//
//	DIR/<term>-<index>/snapshot.json   raft's description
//	DIR/<term>-<index>/state/          the checkpoint
//	DIR/<term>-<index>/taken           the live store has this state, or a later one
//	DIR/.tmp-*                         unfinished; removed at start
type snapshotStore struct {
	dir   string
	confs *confLog // learns the configurations of snapshots

	mu sync.Mutex // guards the directory against pruning while one is opened
}

// snapshotsKept: the newest, and the one before it, which may still be streaming.
const snapshotsKept = 2

const (
	snapshotFile  = "snapshot.json"
	snapshotState = "state"
	snapshotTaken = "taken"
	tmpPrefix     = ".tmp-"
)

func openSnapshotStore(dir string, confs *confLog) (*snapshotStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create snapshot directory: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, tmpPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	s := &snapshotStore{dir: dir, confs: confs}
	metas, err := s.List()
	if err != nil {
		return nil, err
	}
	if len(metas) > 0 {
		confs.sawSnapshot(metas[0].ConfigurationIndex, metas[0].Configuration)
	}
	return s, nil
}

// Create begins a snapshot. It becomes visible when the sink is closed.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	tmp, err := os.MkdirTemp(s.dir, tmpPrefix)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	meta := raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index),
		Index: index, Term: term, Configuration: c, ConfigurationIndex: cIndex,
	}
	return &sink{store: s, tmp: tmp, meta: meta}, nil
}

// List tells the snapshots, newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var metas []*raft.SnapshotMeta
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.dir, e.Name(), snapshotFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		m := new(raft.SnapshotMeta)
		if err := json.Unmarshal(b, m); err != nil {
			return nil, fmt.Errorf("read snapshot %s: %w", e.Name(), err)
		}
		metas = append(metas, m)
	}
	slices.SortFunc(metas, func(a, b *raft.SnapshotMeta) int {
		if a.Term != b.Term {
			return int(b.Term) - int(a.Term)
		}
		return int(b.Index) - int(a.Index)
	})
	return metas, nil
}

// Open streams a snapshot. Its files are opened at once, so that pruning
// meanwhile does no harm. The caller closes the stream.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	metas, err := s.List()
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(metas, func(m *raft.SnapshotMeta) bool { return m.ID == id })
	if i < 0 {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, fs.ErrNotExist)
	}
	files, err := openAll(s.stateDir(id))
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	m := metas[i]
	m.Size = tarSize(files)
	r, w := io.Pipe()
	go func() { // ends when the reader is drained or closed
		err := writeTar(w, files)
		for _, f := range files {
			f.f.Close()
		}
		w.CloseWithError(err)
	}()
	return m, r, nil
}

func (s *snapshotStore) stateDir(id string) string { return filepath.Join(s.dir, id, snapshotState) }

func (s *snapshotStore) publish(k *sink) error {
	b, err := json.MarshalIndent(k.meta, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFileSync(filepath.Join(k.tmp, snapshotFile), b); err != nil {
		return err
	}
	if err := syncDir(k.tmp); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	final := filepath.Join(s.dir, k.meta.ID)
	if _, err := os.Stat(filepath.Join(final, snapshotFile)); err == nil {
		return os.RemoveAll(k.tmp) // the same snapshot again, sent twice
	}
	if err := os.Rename(k.tmp, final); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.confs.sawSnapshot(k.meta.ConfigurationIndex, k.meta.Configuration)
	metas, err := s.List()
	if err != nil {
		return err
	}
	for _, m := range metas[min(len(metas), snapshotsKept):] {
		if err := os.RemoveAll(filepath.Join(s.dir, m.ID)); err != nil {
			return err
		}
	}
	return nil
}

// sink is a snapshot in the making: adopted from a checkpoint on this node, or
// written as a tar stream from another.
type sink struct {
	store *snapshotStore
	tmp   string
	meta  raft.SnapshotMeta

	w    *io.PipeWriter // nil until the first Write
	done chan error     // the unpacker's end
}

func (k *sink) ID() string { return k.meta.ID }

// adopt lets make create the state directory itself, from the live store.
func (k *sink) adopt(make func(dir string) error) error {
	if err := make(filepath.Join(k.tmp, snapshotState)); err != nil {
		return err
	}
	return writeFileSync(filepath.Join(k.tmp, snapshotTaken), nil)
}

// taken tells whether the live store took a received snapshot over.
func (s *snapshotStore) taken(id string) bool {
	_, err := os.Stat(filepath.Join(s.dir, id, snapshotTaken))
	return err == nil
}

// setTaken notes that it did. Without the note it does so again at the next
// start, which costs time only.
func (s *snapshotStore) setTaken(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := filepath.Join(s.dir, id)
	if err := writeFileSync(filepath.Join(dir, snapshotTaken), nil); err != nil {
		return err
	}
	return syncDir(dir)
}

func (k *sink) Write(b []byte) (int, error) {
	if k.w == nil {
		r, w := io.Pipe()
		k.w, k.done = w, make(chan error, 1)
		go func() {
			err := readTar(r, filepath.Join(k.tmp, snapshotState))
			if err == nil {
				_, err = io.Copy(io.Discard, r) // the padding after the last file
			}
			r.CloseWithError(err)
			k.done <- err
		}()
	}
	return k.w.Write(b)
}

func (k *sink) Close() error {
	if k.w != nil {
		k.w.Close()
		if err := <-k.done; err != nil {
			os.RemoveAll(k.tmp)
			return fmt.Errorf("unpack snapshot %s: %w", k.meta.ID, err)
		}
	}
	if err := k.store.publish(k); err != nil {
		os.RemoveAll(k.tmp)
		return fmt.Errorf("finish snapshot %s: %w", k.meta.ID, err)
	}
	return nil
}

func (k *sink) Cancel() error {
	if k.w != nil {
		k.w.CloseWithError(errors.New("snapshot cancelled"))
		<-k.done
	}
	return os.RemoveAll(k.tmp)
}

type tarFile struct {
	name string
	size int64
	f    *os.File
}

func openAll(dir string) (files []tarFile, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.f.Close()
			}
		}
	}()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files = append(files, tarFile{name: name, f: f})
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil {
			files[len(files)-1].size = st.Size()
		}
		return err
	})
	return files, err
}

const tarBlock = 512

// tarSize is what writeTar will write: raft announces it before the stream.
func tarSize(files []tarFile) int64 {
	n := int64(2 * tarBlock)
	for _, f := range files {
		n += tarBlock + (f.size+tarBlock-1)/tarBlock*tarBlock
	}
	return n
}

func writeTar(w io.Writer, files []tarFile) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: f.size, Mode: 0o600, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyN(t, f.f, f.size); err != nil {
			return fmt.Errorf("read %s: %w", f.name, err)
		}
	}
	return t.Close()
}

// readTar unpacks a stream of writeTar below dir and syncs every file.
func readTar(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return syncDir(dir)
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("snapshot holds the file name %q, which leads outside", h.Name)
		}
		if err := unpack(t, filepath.Join(dir, h.Name)); err != nil {
			return err
		}
	}
}

func unpack(r io.Reader, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}
