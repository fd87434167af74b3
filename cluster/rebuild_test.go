package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/object/mem"
)

// shipped runs a cluster of one node on st, writes names into it, and ends it when
// the bucket has them all. It returns the entry at which each was made.
func shipped(t *testing.T, st *mem.Store, names ...string) []fs.Index {
	t.Helper()
	c := newCluster(t, 1)
	c.ready()
	n := c.nodes[0]
	owner := archive.NewOwnership(archive.OwnershipOptions{Store: st, UUID: n.UUID, Leads: n.Leads, Name: "test", Node: "n1", First: n.Fresh(), Log: testLogger(t)})
	s := archive.New(archive.Options{
		Store: st, Source: n.ArchiveSource(), Owner: owner, SpoolDir: filepath.Join(c.dirs[0], "spool"), Name: "test", Node: "n1",
		Interval: 10 * time.Millisecond, Log: testLogger(t),
	})
	done := make(chan error, 2)
	ctx := t.Context()
	go func() { done <- owner.Run(ctx) }()
	go func() { done <- s.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); s.Status().Snapshot == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no snapshot: %+v", s.Status())
		}
	}
	var at []fs.Index
	for _, name := range names {
		res, err := n.Do(ctx, fs.Mkdir{Parent: fs.RootIno, Name: name, Mode: 0o755})
		if err != nil || res.Kind != fs.OK {
			t.Fatal(res.Kind, err)
		}
		at = append(at, res.Index)
	}
	last := at[len(at)-1]
	for deadline := time.Now().Add(20 * time.Second); s.Status().Shipped < last; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("shipped %+v, want %d", s.Status(), last)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); n.PinnedBefore() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the log is not told how far the bucket is")
		}
	}
	if index, oldest := n.Shipped(); oldest == 0 || index < oldest {
		t.Errorf("shipped up to %d from %d", index, oldest)
	}
	return at
}

func rebuildOptions(t *testing.T, c *trio) RebuildOptions {
	return RebuildOptions{DataDir: c.dirs[0], ID: c.peers[0].ID, Cluster: "test", Advertise: c.peers[0].Addr, Logger: testLogger(t)}
}

// emptyCluster has directories and addresses, and no running node.
func emptyCluster(t *testing.T, size int) *trio {
	c := &trio{t: t, nodes: make([]*running, size)}
	for i, p := range ports(t, size) {
		c.peers = append(c.peers, Peer{fs.NodeID(fmt.Sprintf("n%d", i+1)), fmt.Sprintf("127.0.0.1:%d", p)})
		c.dirs = append(c.dirs, filepath.Join(t.TempDir(), "data"))
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	return c
}

func load(t *testing.T, st *mem.Store, re *Rebuild) *archive.Loaded {
	t.Helper()
	b, err := archive.Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.Load(t.Context(), re, archive.LoadOptions{Index: re.o.UntilIndex})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestRebuild: a node on a rebuilt directory is a cluster that goes on; another
// node, of a name that the old cluster knew, joins it.
func TestRebuild(t *testing.T) {
	st := mem.New()
	shipped(t, st, "a", "b", "c")
	c := emptyCluster(t, 2)
	re, err := NewRebuild(rebuildOptions(t, c))
	if err != nil {
		t.Fatal(err)
	}
	l := load(t, st, re)
	if p := re.State().Check(); len(p) > 0 || len(l.Problems) > 0 {
		t.Fatal(p, l.Problems)
	}
	if err := re.Finish("new-uuid", l.Term, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(re.Publish(), re.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRebuild(rebuildOptions(t, c)); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("over a node: %v", err)
	}
	c.start(0)
	c.ready()
	n := c.nodes[0]
	for _, name := range []string{"a", "b", "c"} {
		if _, err := n.lookup(t, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n.UUID() != "new-uuid" || n.Fresh() || n.Status().Applied < rebuildGap {
		t.Errorf("uuid %q, fresh %t, status %+v", n.UUID(), n.Fresh(), n.Status())
	}
	if res, err := n.Do(t.Context(), fs.Mkdir{Parent: fs.RootIno, Name: "d", Mode: 0o755}); err != nil || res.Kind != fs.OK {
		t.Fatal(res.Kind, err)
	}
	if err := os.Mkdir(c.dirs[1], 0o755); err != nil {
		t.Fatal(err)
	}
	o := c.options(1)
	o.Peers, o.Join = nil, []string{c.peers[0].Addr}
	second, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[1] = run(second)
	c.ready()
	for _, name := range []string{"a", "d"} {
		if _, err := c.nodes[1].lookup(t, name); err != nil {
			t.Errorf("%s on the node that joined: %v", name, err)
		}
	}
	c.stop(1)
	c.stop(0)
}

// TestRebuildEarlier ends before an entry.
func TestRebuildEarlier(t *testing.T) {
	st := mem.New()
	at := shipped(t, st, "a", "b", "c")
	b, err := archive.Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	o := rebuildOptions(t, emptyCluster(t, 1))
	o.UntilIndex = at[1]
	re, err := NewRebuild(o)
	if err != nil {
		t.Fatal(err)
	}
	defer re.Close()
	if l, err := b.Load(t.Context(), re, archive.LoadOptions{Index: o.UntilIndex}); err != nil || l.Index != at[1] {
		t.Fatal(l, err)
	}
	err = re.State().Read(func(v fs.View) error {
		if _, err := v.Lookup(fs.RootIno, "b"); err != nil {
			t.Errorf("b: %v", err)
		}
		if _, err := v.Lookup(fs.RootIno, "c"); fs.KindOf(err) != fs.ErrNotFound {
			t.Errorf("c: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRebuildIsInterrupted: until Publish has returned another one may begin.
func TestRebuildIsInterrupted(t *testing.T) {
	st := mem.New()
	shipped(t, st, "a")
	o := rebuildOptions(t, emptyCluster(t, 1))
	for _, step := range []string{"begun", "loaded", "finished", "half published"} {
		re, err := NewRebuild(o)
		if err != nil {
			t.Fatalf("before %q: %v", step, err)
		}
		if step != "begun" {
			l := load(t, st, re)
			if step != "loaded" {
				if err := re.Finish("u", l.Term, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := re.Close(); err != nil {
			t.Fatal(err)
		}
		if step == "half published" {
			if err := os.Rename(filepath.Join(re.dir, "log"), filepath.Join(o.DataDir, "log")); err != nil {
				t.Fatal(err)
			}
		}
	}
	re, err := NewRebuild(o)
	if err != nil {
		t.Fatalf("after all: %v", err)
	}
	if err := re.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.DataDir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRebuild(o); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("with a foreign file: %v", err)
	}
}

// TestRebuildFindsDamage that checksums do not.
func TestRebuildFindsDamage(t *testing.T) {
	re, err := NewRebuild(rebuildOptions(t, emptyCluster(t, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer re.Close()
	m := &archive.Manifest{Index: 7, Hash: 8}
	if err := re.Begin(m); err != nil {
		t.Fatal(err)
	}
	if err := re.StateDone(m); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("an empty state: %v", err)
	}
	if err := re.Begin(m); err != nil {
		t.Fatal(err)
	}
	if err := re.Record([]byte("b"), nil); err != nil {
		t.Fatal(err)
	}
	if err := re.Record([]byte("a"), nil); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("records out of order: %v", err)
	}
	if err := re.Apply(archive.Entry{Index: 8, Data: []byte{1, 200}}); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("an entry that is none: %v", err)
	}
}

// TestEntriesOfACompactedLog: what raft has dropped is said to be gone, never left
// out.
func TestEntriesOfACompactedLog(t *testing.T) {
	c := newCluster(t, 1)
	c.ready()
	n := c.nodes[0]
	for i := range 20 {
		if _, err := n.Do(t.Context(), fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprint(i), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	src := n.ArchiveSource()
	end := src.Stable()
	log, last, err := src.Entries(1, end, 1<<20)
	if err != nil || last != end || len(log) < 20 {
		t.Fatalf("%d entries up to %d of %d: %v", len(log), last, end, err)
	}
	if some, upTo, err := src.Entries(1, end, 1); err != nil || len(some) != 1 || upTo != some[0].Index {
		t.Errorf("a byte of them: %d up to %d, %v", len(some), upTo, err)
	}
	if err := n.logs.DeleteRange(1, uint64(end)-5); err != nil {
		t.Fatal(err)
	}
	if _, _, err := src.Entries(1, end, 1<<20); !errors.Is(err, archive.ErrCompacted) {
		t.Errorf("from the beginning: %v", err)
	}
	if log, last, err := src.Entries(end-4, end, 1<<20); err != nil || last != end || len(log) == 0 {
		t.Errorf("the rest: %d up to %d, %v", len(log), last, err)
	}
}

// TestIdleEntry: the archive's own records do not keep it busy.
func TestIdleEntry(t *testing.T) {
	entry := func(ops ...fs.Op) []byte {
		var all [][]byte
		for _, op := range ops {
			all = append(all, meta.EncodeCommand(fs.Command{Op: op}))
		}
		return meta.EncodeBatch(all)
	}
	for _, row := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"own record", entry(fs.RecordShipped{Index: 5}, fs.Barrier{}), true},
		{"own record and a change", entry(fs.RecordShipped{Index: 5}, fs.Mkdir{Parent: 1, Name: "d"}), false},
		{"a change", entry(fs.Unlink{Parent: 1, Name: "f"}), false},
		{"nonsense", []byte("?"), false},
		{"large", bytes.Repeat([]byte{1}, idleEntryMax+1), false},
	} {
		if got := idleEntry(row.b); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}
