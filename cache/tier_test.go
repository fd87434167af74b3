package cache

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
)

// upload puts a chunk into a bucket, as an object of its own.
func upload(t testing.TB, st object.Store, info fs.ChunkInfo, b []byte) {
	t.Helper()
	if err := st.Put(context.Background(), pack.ChunkKey(info.ID), pack.AppendRecord(nil, info.ID, b), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// packUp puts chunks into a bucket, in one pack, and notes their places.
func packUp(t testing.TB, st object.Store, infos []*fs.ChunkInfo, contents ...[]byte) {
	t.Helper()
	var p pack.Builder
	for i, info := range infos {
		if !p.Add(info.ID, contents[i]) {
			t.Fatalf("chunk %d does not fit", i)
		}
	}
	id := pack.NewID()
	for i, e := range p.Entries() {
		infos[i].Durable, infos[i].Place = true, fs.Place{Pack: id, Off: e.Off, Len: e.Len}
	}
	if err := st.Put(context.Background(), pack.Key(id), p.Finish(id), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestReadSources: wherever the chunk is, it is found, and nobody is asked in
// vain who comes later.
func TestReadSources(t *testing.T) {
	b := content(1, 50_000)
	for _, row := range []struct {
		name    string
		prepare func(t *testing.T, c *cluster, st *faulty.Store, info *fs.ChunkInfo)
		ok      bool
		fetches int // from other nodes
		gets    int // from the object store
	}{
		{"inline", func(_ *testing.T, _ *cluster, _ *faulty.Store, i *fs.ChunkInfo) { i.Inline = b }, true, 0, 0},
		{"own disk", func(t *testing.T, c *cluster, _ *faulty.Store, _ *fs.ChunkInfo) { mustPut(t, c.disks["a"], b, false) }, true, 0, 0},
		{"holder", func(t *testing.T, c *cluster, _ *faulty.Store, i *fs.ChunkInfo) {
			mustPut(t, c.disks["c"], b, false)
			i.Holders = []fs.NodeID{"c"}
		}, true, 1, 0},
		{"a node that is no holder", func(t *testing.T, c *cluster, _ *faulty.Store, i *fs.ChunkInfo) {
			mustPut(t, c.disks["c"], b, false)
			i.Holders = []fs.NodeID{"b"}
		}, true, 2, 0},
		{"a holder that seems dead", func(t *testing.T, c *cluster, _ *faulty.Store, i *fs.ChunkInfo) {
			mustPut(t, c.disks["c"], b, false)
			i.Holders = []fs.NodeID{"c"}
			c.kill("c")
			c.set("c", 0)
		}, true, 2, 0},
		{"object store", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			i.Durable = true
			upload(t, st, *i, b)
		}, true, 2, 1},
		{"pack in the object store", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			packUp(t, st, []*fs.ChunkInfo{i}, b)
		}, true, 2, 1},
		{"pack that is gone", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			i.Durable, i.Place = true, fs.Place{Pack: pack.NewID(), Len: 100}
		}, false, 2, 1},
		{"place beyond the end of the pack", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			packUp(t, st, []*fs.ChunkInfo{i}, b)
			i.Place.Off += 1000
		}, false, 2, 1},
		{"pack damaged", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			packUp(t, st, []*fs.ChunkInfo{i}, b)
			st.Inject(faulty.Fault{Op: object.OpGet, Do: faulty.FlipBit})
		}, false, 2, 1},
		{"holder lies about the length", func(t *testing.T, c *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			mustPut(t, c.disks["b"], b, false)
			c.set("b", liesLong)
			i.Durable = true
			upload(t, st, *i, b)
		}, true, 2, 1},
		{"holder lies about the bytes", func(t *testing.T, c *cluster, _ *faulty.Store, _ *fs.ChunkInfo) {
			mustPut(t, c.disks["b"], b, false)
			mustPut(t, c.disks["c"], b, false)
			c.set("b", liesBits)
		}, true, 2, 0},
		{"object damaged", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			i.Durable = true
			upload(t, st, *i, b)
			st.Inject(faulty.Fault{Op: object.OpGet, Do: faulty.FlipBit})
		}, false, 2, 1},
		{"object short", func(t *testing.T, _ *cluster, st *faulty.Store, i *fs.ChunkInfo) {
			i.Durable = true
			upload(t, st, *i, b)
			st.Inject(faulty.Fault{Op: object.OpGet, Do: faulty.ShortBody})
		}, false, 2, 1},
		{"inline of another length is not believed", func(t *testing.T, c *cluster, _ *faulty.Store, i *fs.ChunkInfo) {
			i.Inline = b[:10]
			mustPut(t, c.disks["a"], b, false)
		}, true, 0, 0},
		{"nowhere", func(*testing.T, *cluster, *faulty.Store, *fs.ChunkInfo) {}, false, 2, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCluster(t, "a", "b", "c")
			st := faulty.New(mem.New())
			tier := tierOf(t, c, "a", func(o *TierOptions) { o.Store = st })
			info := infoOf(b, 7)
			row.prepare(t, c, st, &info)
			before := len(st.Calls())
			got, err := read(t.Context(), tier, info)
			if row.ok {
				wantBytes(t, "read", got, err, b)
			} else {
				wantKind(t, "read", err, fs.ErrIO)
			}
			if n := c.fetched(); n != row.fetches {
				t.Errorf("%d fetches, want %d", n, row.fetches)
			}
			if n := len(st.Calls()) - before; n != row.gets {
				t.Errorf("%d calls of the object store, want %d", n, row.gets)
			}
			if !row.ok || row.fetches+row.gets == 0 {
				return
			}
			// From now on it is at home.
			p := make([]byte, 100)
			n, err := tier.ReadAt(t.Context(), info, p, 123)
			wantBytes(t, "second read", p[:n], err, b[123:223])
			if n := c.fetched(); n != row.fetches {
				t.Errorf("the second read fetched again")
			}
		})
	}
}

func TestReadArguments(t *testing.T) {
	c := newCluster(t, "a")
	tier := tierOf(t, c, "a", nil)
	b := content(1, 100)
	mustPut(t, c.disks["a"], b, false)
	info := infoOf(b, 1)
	inline := info
	inline.Inline = b
	for name, i := range map[string]fs.ChunkInfo{"disk": info, "inline": inline} {
		for _, row := range []struct{ off, n, from, end int }{{0, 100, 0, 100}, {50, 10, 50, 60}, {90, 100, 90, 100}, {100, 5, 0, 0}, {500, 5, 0, 0}, {5, 0, 0, 0}} {
			p := make([]byte, row.n)
			n, err := tier.ReadAt(t.Context(), i, p, int64(row.off))
			wantBytes(t, fmt.Sprintf("%s, %d bytes from %d", name, row.n, row.off), p[:n], err, b[row.from:row.end])
		}
		_, err := tier.ReadAt(t.Context(), i, make([]byte, 1), -1)
		wantKind(t, name+", negative offset", err, fs.ErrInvalid)
	}
	for _, size := range []uint32{0, fs.ChunkMax + 1} {
		bad := info
		bad.Size = size
		_, err := tier.ReadAt(t.Context(), bad, make([]byte, 1), 0)
		wantKind(t, fmt.Sprint("size ", size), err, fs.ErrInvalid)
	}
}

// TestErrorSaysWhereItLooked: an operator learns from one line what is wrong.
func TestErrorSaysWhereItLooked(t *testing.T) {
	c := newCluster(t, "a", "b", "c", "d")
	st := faulty.New(mem.New())
	st.Inject(faulty.Fault{Kind: object.Unreachable})
	tier := tierOf(t, c, "a", func(o *TierOptions) { o.Store = st })
	b := content(1, 100)
	mustPut(t, c.disks["c"], b, false)
	c.set("c", liesBits)
	c.kill("d")
	info := infoOf(b, 7, "d")
	info.Durable = true
	_, err := read(t.Context(), tier, info)
	wantKind(t, "read", err, fs.ErrIO)
	for _, part := range []string{hashOf(b).String(), "here: not there", "node b: not there", "node c: content fails its checksum", "node d: connection refused", "object store:", "unreachable"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q: %v", part, err)
		}
	}
	if s := tier.Stats(); s.WrongBytes != 1 || s.FillsFailed != 1 || s.FetchErrors != 3 {
		t.Errorf("stats %+v", s)
	}
}

// TestDamagedCopyIsRefetched: rule R43.
func TestDamagedCopyIsRefetched(t *testing.T) {
	for _, row := range damages {
		t.Run(row.name, func(t *testing.T) {
			c := newCluster(t, "a", "b")
			b := content(1, 5000)
			mustPut(t, c.disks["b"], b, false)
			h := mustPut(t, c.disks["a"], b, true)
			damage(t, c.disks["a"], h, row.do)
			c.disks["a"] = reopen(t, c.disks["a"], DiskOptions{})
			tier := tierOf(t, c, "a", nil)
			got, err := read(t.Context(), tier, infoOf(b, 1, "a", "b"))
			wantBytes(t, "read", got, err, b)
			got, err = c.disks["a"].Fetch(h)
			wantBytes(t, "own copy afterwards", got, err, b)
			if k, _ := c.disks["a"].known.get(h); !k.synced {
				t.Error("a holder's new copy does not survive a power cut as the old one did")
			}
		})
	}
}

func TestAskOrder(t *testing.T) {
	for _, row := range []struct {
		name                         string
		holders, live, present, away string
	}{
		{"holders first, in order of liveness", "cb", "abcde", "bcde", ""},
		{"dead holders last", "xc", "abc", "cb", "x"},
		{"alone", "a", "a", "", ""},
		{"self is not asked", "ab", "ba", "b", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			present, away := askOrder("a", nodes(row.holders), nodes(row.live))
			if fmt.Sprint(present) != fmt.Sprint(nodes(row.present)) || fmt.Sprint(away) != fmt.Sprint(nodes(row.away)) {
				t.Errorf("present %v, away %v", present, away)
			}
		})
	}
}

func nodes(s string) (list []fs.NodeID) {
	for _, r := range s {
		list = append(list, fs.NodeID(r))
	}
	return list
}

// TestLargeClusterIsNotAskedWhole: what the object store is known to have is
// looked for on few nodes; what only nodes can have, on all.
func TestLargeClusterIsNotAskedWhole(t *testing.T) {
	names := nodes("abcdefghijklmnop")
	c := &cluster{nodes: names, fault: map[fs.NodeID]fault{}}
	tier, err := NewTier(TierOptions{Disk: newDisk(t), Peers: peers{c, "a"}, Store: mem.New()})
	if err != nil {
		t.Fatal(err)
	}
	info := infoOf(content(1, 10), 1, "p")
	for _, durable := range []bool{true, false} {
		info.Durable = durable
		list := tier.sources(info)
		store := -1
		for i, s := range list {
			if s.node == "" {
				if store >= 0 {
					t.Error("the store is asked twice")
				}
				store = i
			}
		}
		want, sources := -1, len(names)-1 // the store cannot have it, or nobody knows where
		if durable {
			want, sources = peersBeforeStore, len(names)
		}
		if store != want || len(list) != sources || list[0].node != "p" {
			t.Errorf("durable %v: store at %d of %d, want %d", durable, store, len(list), want)
		}
	}
}

// TestFullDiskDoesNotStopReading: content passes through a node that cannot
// keep it, and that is said once.
func TestFullDiskDoesNotStopReading(t *testing.T) {
	c := newCluster(t, "b")
	c.nodes = []fs.NodeID{"a", "b"}
	c.disks["a"] = openDisk(t, filepath.Join(t.TempDir(), "cache"), DiskOptions{ReserveBytes: 1 << 62})
	var log bytes.Buffer
	tier := tierOf(t, c, "a", func(o *TierOptions) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for i := range 3 {
		b := content(i, 1000)
		mustPut(t, c.disks["b"], b, false)
		got, err := read(t.Context(), tier, infoOf(b, 1, "b"))
		wantBytes(t, "read", got, err, b)
	}
	if s := tier.Stats(); s.KeepErrors != 3 {
		t.Errorf("stats %+v", s)
	}
	if n := strings.Count(log.String(), "cannot be kept"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}

// TestEmptyNodeReadsEverything: a node with an empty disk, from peers alone and
// from the bucket alone.
func TestEmptyNodeReadsEverything(t *testing.T) {
	for _, from := range []string{"peers", "bucket"} {
		t.Run(from, func(t *testing.T) {
			c := newCluster(t, "a", "b", "new")
			st := mem.New()
			old := tierOf(t, c, "a", func(o *TierOptions) { o.Store = st })
			var infos []fs.ChunkInfo
			for i := range 50 {
				b := content(i, 1+i*1000)
				_, holders, err := old.Put(t.Context(), b, i%2 == 0)
				if err != nil {
					t.Fatal(err)
				}
				info := infoOf(b, fs.Index(i), holders...)
				if from == "bucket" {
					upload(t, st, info, b)
					info.Durable = true
				}
				infos = append(infos, info)
			}
			if from == "bucket" {
				c.kill("a")
				c.kill("b")
			}
			tier := tierOf(t, c, "new", func(o *TierOptions) { o.Store = st })
			for i, info := range infos {
				got, err := read(t.Context(), tier, info)
				wantBytes(t, fmt.Sprint("chunk ", i), got, err, content(i, 1+i*1000))
			}
		})
	}
}
