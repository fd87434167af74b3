package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// rebuildGap is how far above the last restored entry a new cluster's log begins.
// The old one may have had entries that never reached the bucket, with chunks that
// did; the gap is wider than any such tail, so the new cluster never gives a chunk
// a name that was used (rule R36).
const rebuildGap = 1 << 32

// rebuildDir is the directory of an unfinished rebuild below the data directory.
const rebuildDir = "restoring"

// ErrNotEmpty means that a data directory holds something already.
var ErrNotEmpty = errors.New("the data directory is not empty")

// RebuildOptions for NewRebuild; those without a comment are as in Options.
type RebuildOptions struct {
	DataDir   string // made when absent
	ID        fs.NodeID
	Cluster   string
	Advertise string
	// UntilIndex and Until bound the log that is taken; zero: all of it.
	UntilIndex fs.Index
	Until      time.Time
	Logger     *slog.Logger
}

// Rebuild makes the data directory of the first node of a new cluster from a state
// and a log of another. The order: everything is given to it as an archive.Target,
// then Finish, then Publish; until that has returned there is no node in the
// directory, and another Rebuild may begin there. The caller closes it.
type Rebuild struct {
	o     RebuildOptions
	dir   string
	lock  *os.File
	kv    meta.KV // nil: none open
	in    *meta.Importer
	state *meta.State // owns kv once it is open
}

var _ archive.Target = (*Rebuild)(nil)

// NewRebuild prepares the directory. ErrNotEmpty, or ErrInUse.
func NewRebuild(o RebuildOptions) (*Rebuild, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.Mkdir(o.DataDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := checkRebuildable(o.DataDir); err != nil {
		return nil, err
	}
	r := &Rebuild{o: o, dir: filepath.Join(o.DataDir, rebuildDir)}
	var err error
	if r.lock, err = lockDir(o.DataDir); err != nil {
		return nil, err
	}
	for _, name := range rebuilt { // what another rebuild had moved when it was interrupted
		if err := os.RemoveAll(filepath.Join(o.DataDir, name)); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if err := errors.Join(os.RemoveAll(r.dir), os.Mkdir(r.dir, 0o700)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// rebuilt are the directories that Publish moves into their places.
var rebuilt = []string{"log", "snapshots", metaDir}

// checkRebuildable wants an empty directory, or one that a rebuild left unfinished.
func checkRebuildable(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into the data directory: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	unfinished := slices.Contains(names, rebuildDir) && !slices.Contains(names, identityFile)
	for _, name := range names {
		harmless := name == "lock" || name == "lost+found" || unfinished && (name == rebuildDir || slices.Contains(rebuilt, name))
		if !harmless {
			return fmt.Errorf("%s: %w: it has %q", dir, ErrNotEmpty, name)
		}
	}
	return nil
}

// Close gives the directory back; what was not published stays unfinished.
func (r *Rebuild) Close() error {
	return errors.Join(r.discard(), r.lock.Close())
}

func (r *Rebuild) discard() error {
	var err error
	switch {
	case r.state != nil:
		err = r.state.Close()
	case r.kv != nil:
		err = r.kv.Close()
	}
	r.kv, r.state, r.in = nil, nil, nil
	return err
}

// Begin implements archive.Target.
func (r *Rebuild) Begin(*archive.Manifest) error {
	path := filepath.Join(r.dir, metaDir)
	if err := errors.Join(r.discard(), os.RemoveAll(path)); err != nil {
		return err
	}
	kv, err := meta.OpenPebble(path, meta.PebbleOptions{Logger: r.o.Logger})
	if err != nil {
		return err
	}
	r.kv, r.in = kv, meta.NewImporter(kv)
	return nil
}

// Record implements archive.Target.
func (r *Rebuild) Record(k, v []byte) error {
	err := r.in.Add(k, v)
	if errors.Is(err, fs.ErrCorrupt) {
		return fmt.Errorf("%w: %w", archive.ErrDamaged, err)
	}
	return err
}

// StateDone implements archive.Target.
func (r *Rebuild) StateDone(m *archive.Manifest) error {
	if err := r.in.Close(); err != nil {
		return err
	}
	s, err := meta.Open(r.kv)
	if errors.Is(err, fs.ErrCorrupt) {
		return fmt.Errorf("%w: %w", archive.ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	r.state = s
	if s.Applied() != m.Index || s.StateHash() != m.Hash {
		return fmt.Errorf("%w: the state is at %d with hash %x, the manifest says %d with %x", archive.ErrDamaged, s.Applied(), s.StateHash(), m.Index, m.Hash)
	}
	return nil
}

// Apply implements archive.Target.
func (r *Rebuild) Apply(e archive.Entry) error {
	if r.o.UntilIndex > 0 && e.Index > r.o.UntilIndex {
		return archive.ErrEnough
	}
	batch, err := meta.DecodeBatch(e.Data)
	if errors.Is(err, fs.ErrCorrupt) {
		return fmt.Errorf("%w: %w", archive.ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	if len(batch) > 0 && !r.o.Until.IsZero() && fs.TimeOf(r.o.Until).Before(batch[0].Now) {
		return archive.ErrEnough
	}
	_, _, err = r.state.Apply(e.Index, batch)
	return err
}

// State is the restored state, from the end of the load to Publish or Close.
func (r *Rebuild) State() *meta.State { return r.state }

// Finish makes the state the first one of cluster uuid: it records what was learned
// of the bucket (MarkDurable, StorePack, MarkLost), and writes everything that a node needs to
// start. term is the last one of the old log.
func (r *Rebuild) Finish(uuid string, term uint64, learned []fs.Op) error {
	now := fs.TimeOf(time.Now())
	batch := []fs.Command{{Now: now, Op: fs.AdoptCluster{UUID: uuid}}}
	for _, op := range learned {
		batch = append(batch, fs.Command{Now: now, Op: op})
	}
	at := r.state.Applied() + rebuildGap
	results, _, err := r.state.Apply(at, batch)
	if err != nil {
		return err
	}
	for _, res := range results {
		if res.Kind != fs.OK {
			return fmt.Errorf("begin the new cluster: %w", res.Kind)
		}
	}
	id := identity{Version: identityVersion, Node: r.o.ID, Cluster: r.o.Cluster, UUID: uuid, Token: randomHex()}
	if err := r.writeLog(id.Token, term+1); err != nil {
		return fmt.Errorf("make the log: %w", err)
	}
	if err := r.writeSnapshot(at, term+1); err != nil {
		return fmt.Errorf("make the snapshot: %w", err)
	}
	if err := r.state.Flush(); err != nil {
		return err
	}
	return id.save(r.dir)
}

// writeLog makes an empty log with raft's term and the identity's token in it.
func (r *Rebuild) writeLog(token string, term uint64) error {
	var fatal error
	logs, err := openLogStore(filepath.Join(r.dir, "log"), &confLog{changed: func() {}}, func(err error) { fatal = err })
	if err != nil {
		return err
	}
	err = errors.Join(logs.Set(tokenKey, []byte(token)), logs.SetUint64(raftTermKey, term))
	return errors.Join(err, logs.Close(), fatal)
}

// raftTermKey is where raft's stable store has the current term.
var raftTermKey = []byte("CurrentTerm")

// writeSnapshot makes raft's snapshot of the state, with this node as the only
// member of the cluster.
func (r *Rebuild) writeSnapshot(at fs.Index, term uint64) error {
	store, err := openSnapshotStore(filepath.Join(r.dir, "snapshots"), &confLog{changed: func() {}})
	if err != nil {
		return err
	}
	conf := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(r.o.ID), Address: raft.ServerAddress(r.o.Advertise),
	}}}
	out, err := store.Create(raft.SnapshotVersionMax, uint64(at), term, conf, uint64(at), nil)
	if err != nil {
		return err
	}
	k := out.(*sink)
	if err := k.adopt(r.state.Checkpoint); err != nil {
		return errors.Join(err, k.Cancel())
	}
	return k.Close()
}

// Publish puts what Finish has made into its place; the identity, by which a node
// knows its directory, comes last.
func (r *Rebuild) Publish() error {
	if err := r.discard(); err != nil {
		return err
	}
	if err := syncDir(r.dir); err != nil {
		return err
	}
	for _, name := range rebuilt {
		if err := os.Rename(filepath.Join(r.dir, name), filepath.Join(r.o.DataDir, name)); err != nil {
			return err
		}
	}
	if err := syncDir(r.o.DataDir); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(r.dir, identityFile), filepath.Join(r.o.DataDir, identityFile)); err != nil {
		return err
	}
	if err := os.Remove(r.dir); err != nil {
		return err
	}
	return syncDir(r.o.DataDir)
}

// NewUUID draws the identity of a new cluster.
func NewUUID() string { return newUUID() }
