package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/object/dir"
)

// BenchmarkDo is one directory made from a node that does not lead, until every
// node of three has applied it: three state machines, logs and disks in one
// process.
func BenchmarkDo(b *testing.B) {
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			c := newCluster(b, 3)
			c.ready()
			n := c.nodes[(c.leader()+1)%3]
			var count atomic.Int64
			b.SetParallelism(parallel)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					name := fmt.Sprintf("%d-%d", b.N, count.Add(1))
					if _, err := n.Do(b.Context(), fs.Mkdir{Parent: fs.RootIno, Name: name}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkRead is one lookup on a node that holds a lease.
func BenchmarkRead(b *testing.B) {
	c := newCluster(b, 3)
	c.ready()
	n := c.nodes[0]
	if _, err := n.Do(b.Context(), fs.Mkdir{Parent: fs.RootIno, Name: "d"}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := n.Read(b.Context(), func(v fs.View) error { _, err := v.Lookup(fs.RootIno, "d"); return err }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkArchive is what a snapshot of the metadata costs the leader, and a
// restore whoever waits for it: WPFS_BENCH_FILES files (default 50,000), 50 to a
// directory, each with a chunk.
func BenchmarkArchive(b *testing.B) {
	files := 50_000
	if s := os.Getenv("WPFS_BENCH_FILES"); s != "" {
		var err error
		if files, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	s := stateOf(b, files)
	st, err := dir.New(dir.Options{Root: filepath.Join(b.TempDir(), "objects"), Create: true})
	if err != nil {
		b.Fatal(err)
	}
	owner := archive.NewOwnership(archive.OwnershipOptions{Store: st, UUID: func() string { return "u" }, Leads: func() bool { return true }})
	if err := owner.Confirm(b.Context()); err != nil {
		b.Fatal(err)
	}
	sh := archive.New(archive.Options{Store: st, Source: onlyState{s}, Owner: owner, SpoolDir: filepath.Join(b.TempDir(), "spool"), Interval: 10 * time.Millisecond})
	began := time.Now()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- sh.Run(ctx) }()
	for sh.Status().Snapshots == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	took, size := time.Since(began), sh.Status().SnapshotBytes
	cancel()
	<-done
	back, err := archive.Open(b.Context(), st)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		b.ReportMetric(took.Seconds(), "s/snapshot")
		b.ReportMetric(float64(size)/(1<<20), "MiB/snapshot")
	}()
	for b.Loop() {
		re, err := NewRebuild(RebuildOptions{DataDir: filepath.Join(b.TempDir(), "data"), ID: "n", Cluster: "c", Advertise: "127.0.0.1:1"})
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if _, err := back.Load(b.Context(), re, archive.LoadOptions{}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/load")
		began = time.Now()
		if p := re.State().Check(); len(p) > 0 {
			b.Fatal(p)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/check")
		if err := errors.Join(re.Finish("v", 1, nil), re.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// stateOf makes a state on disk.
func stateOf(b *testing.B, files int) *meta.State {
	b.Helper()
	kv, err := meta.OpenPebble(filepath.Join(b.TempDir(), "meta"), meta.PebbleOptions{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := meta.Open(kv)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	const perDir = 50
	next, parent := fs.RootIno, fs.RootIno
	for i := 0; i < files; i += perDir {
		now := fs.TimeOf(time.Now())
		batch := []fs.Command{{Now: now, Op: fs.Mkdir{Parent: fs.RootIno, Name: fmt.Sprintf("dir-%d", i), Mode: 0o755}}}
		next++
		parent = next
		for j := i; j < i+perDir; j++ {
			next++
			piece := fs.Piece{Len: 50_000, ChunkLen: 50_000, Hash: sha256.Sum256([]byte(fmt.Sprint(j))), Holders: []fs.NodeID{"web1", "web2"}}
			batch = append(batch,
				fs.Command{Now: now, Op: fs.Create{Parent: parent, Name: fmt.Sprintf("file-%d.jpg", j), Mode: 0o644}},
				fs.Command{Now: now, Op: fs.Publish{Ino: next, Mtime: now, Pieces: []fs.Piece{piece}}})
		}
		res, _, err := s.Apply(s.Applied()+1, batch)
		if err != nil || res[len(res)-1].Kind != fs.OK {
			b.Fatal(res[len(res)-1].Kind, err)
		}
	}
	return s
}

// onlyState is a source of a state without a log.
type onlyState struct{ s *meta.State }

func (o onlyState) Leading() (uint64, bool) { return 1, true }
func (o onlyState) UUID() string            { return "u" }
func (o onlyState) Applied() fs.Index       { return o.s.Applied() }
func (o onlyState) Stable() fs.Index        { return o.s.Applied() }
func (o onlyState) Entries(_, to fs.Index, _ int) ([]archive.Entry, fs.Index, error) {
	return nil, to, nil
}
func (o onlyState) Export(begin func(fs.Index, uint64) error, f func(k, v []byte) error) error {
	return o.s.Export(func(i meta.Image) error { return begin(i.Applied, i.Hash) }, f)
}
func (o onlyState) RecordShipped(fs.Index, fs.Index) {}
