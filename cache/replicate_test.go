package cache

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
)

func TestPutReplicates(t *testing.T) {
	for _, row := range []struct {
		name     string
		nodes    string
		replicas int
		faults   map[fs.NodeID]fault
		sync     bool
		holders  string
		few      uint64
	}{
		{"two of three", "abc", 2, nil, false, "ab", 0},
		{"with sync", "abc", 2, nil, true, "ab", 0},
		{"all three", "abc", 3, nil, true, "abc", 0},
		{"one is enough", "abc", 1, nil, true, "a", 0},
		{"alone", "a", 2, nil, true, "a", 1},
		{"fewer than wanted", "ab", 3, nil, false, "ab", 1},
		{"a node refuses and another takes its place", "abc", 2, map[fs.NodeID]fault{"b": refuses}, false, "ac", 0},
		{"all others refuse", "abc", 2, map[fs.NodeID]fault{"b": refuses, "c": refuses}, false, "a", 1},
	} {
		// On fake time: a busy machine must not make a node look slow.
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, nodes(row.nodes)...)
				for n, f := range row.faults {
					c.set(n, f)
				}
				tier := tierOf(t, c, "a", func(o *TierOptions) { o.Replicas = row.replicas })
				want := content(1, 10_000)
				b := bytes.Clone(want)
				h, holders, err := tier.Put(t.Context(), b, row.sync)
				clear(b) // it is the caller's again
				if err != nil || h != hashOf(want) {
					t.Fatalf("Put: %v, %v", h, err)
				}
				if holders[0] != "a" || !sameNodes(holders, nodes(row.holders)) {
					t.Errorf("holders %v, want %s", holders, row.holders)
				}
				for _, n := range holders {
					got, err := c.disks[n].Fetch(h)
					wantBytes(t, "copy on "+string(n), got, err, want)
					if k, _ := c.disks[n].known.get(h); k.synced != row.sync {
						t.Errorf("copy on %s: synced is %v", n, k.synced)
					}
				}
				for _, n := range nodes(row.nodes) {
					if c.disks[n].Has(h) != strings.Contains(row.holders, string(n)) {
						t.Errorf("node %s has it: %v", n, c.disks[n].Has(h))
					}
				}
				if s := tier.Stats(); s.UnderReplicated != row.few || s.Puts != 1 {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

func sameNodes(x, y []fs.NodeID) bool {
	seen := make(map[fs.NodeID]int)
	for _, n := range x {
		seen[n]++
	}
	for _, n := range y {
		seen[n]--
	}
	for _, n := range seen {
		if n != 0 {
			return false
		}
	}
	return true
}

// TestTooFewNodesIsSaidOnce: when it begins and when it ends.
func TestTooFewNodesIsSaidOnce(t *testing.T) {
	c := newCluster(t, "a", "b")
	var log bytes.Buffer
	tier := tierOf(t, c, "a", func(o *TierOptions) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	put := func(i int) {
		if _, _, err := tier.Put(t.Context(), content(i, 10), false); err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	if log.Len() != 0 {
		t.Errorf("nothing is wrong and it says %s", &log)
	}
	c.set("b", refuses)
	put(1)
	put(2)
	c.set("b", 0)
	put(3)
	put(4)
	if few, enough := strings.Count(log.String(), "too few nodes"), strings.Count(log.String(), "enough nodes again"); few != 1 || enough != 1 {
		t.Errorf("said %d and %d times:\n%s", few, enough, &log)
	}
}

func TestPutRefusedByOwnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "b")
		c.nodes = []fs.NodeID{"a", "b"}
		c.set("b", hangs)
		faults := newFaultFiles(0)
		c.disks["a"] = openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{files: faults})
		faults.fails = func(op, _ string) error {
			if op != "create" {
				return nil
			}
			time.Sleep(time.Millisecond) // the push is under way
			return syscall.ENOSPC
		}
		tier := tierOf(t, c, "a", nil)
		start := time.Now()
		_, _, err := tier.Put(t.Context(), content(1, 10), false)
		if c.active != 0 {
			t.Error("a push uses the caller's bytes after the put has returned")
		}
		wantKind(t, "Put", err, fs.ErrNoSpace)
		if took := time.Since(start); took != time.Millisecond || c.pushes["b"] != 1 {
			t.Errorf("a put that has failed waited %v for other nodes", took)
		}
		_, _, err = tier.Put(t.Context(), nil, false)
		wantKind(t, "Put of nothing", err, fs.ErrInvalid)
		_, _, err = tier.Put(t.Context(), make([]byte, fs.ChunkMax+1), false)
		wantKind(t, "Put of too much", err, fs.ErrInvalid)
	})
}

// TestPutPassesAHungNode: a node that hangs costs the first put what is usual and
// a little more, and the next ones nothing.
func TestPutPassesAHungNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		c.set("b", hangs)
		tier := tierOf(t, c, "a", nil)
		for i, most := range []time.Duration{paceUnknown + pushHedge, 0} {
			start := time.Now()
			_, holders, err := tier.Put(t.Context(), content(i, 10), true)
			if err != nil || !sameNodes(holders, nodes("ac")) {
				t.Errorf("Put %d: %v, %v", i, holders, err)
			}
			if took := time.Since(start); took != most {
				t.Errorf("put %d took %v, want %v", i, took, most)
			}
		}
	})
}

// TestPutWaitsForTheOnlyOther: with nobody else to ask, a node that hangs has its
// full time, once; then less, until it answers again.
func TestPutWaitsForTheOnlyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.set("b", hangs)
		tier := tierOf(t, c, "a", func(o *TierOptions) { o.PushTimeout = 3 * time.Second })
		for i, most := range []time.Duration{3 * time.Second, suspectPush} {
			b := content(i, 10)
			start := time.Now()
			_, holders, err := tier.Put(t.Context(), b, true)
			if err != nil || !sameNodes(holders, nodes("a")) {
				t.Errorf("Put %d: %v, %v", i, holders, err)
			}
			if took := time.Since(start); took < most || took > most+pushMiB {
				t.Errorf("put %d took %v, want %v", i, took, most)
			}
		}
		c.set("b", 0)
		if _, holders, err := tier.Put(t.Context(), content(9, 10), true); err != nil || !sameNodes(holders, nodes("ab")) {
			t.Errorf("Put: %v, %v", holders, err)
		}
	})
}

// TestSyncGoesToTheHolders: what a close has put on some nodes, an fsync makes safe
// on these, though another would be the first choice for something new.
func TestSyncGoesToTheHolders(t *testing.T) { synctest.Test(t, testSyncGoesToTheHolders) }

func testSyncGoesToTheHolders(t *testing.T) {
	c := newCluster(t, "a", "b", "c", "d")
	b := content(1, 1000)
	tier := tierOf(t, c, "a", func(o *TierOptions) {
		o.Chunks = func(h fs.Hash) ([]fs.ChunkInfo, error) {
			if h != hashOf(b) {
				return nil, nil
			}
			return []fs.ChunkInfo{infoOf(b, 1, "a", "d")}, nil
		}
	})
	_, holders, err := tier.Put(t.Context(), b, true)
	if err != nil || !sameNodes(holders, nodes("ad")) || c.synced["d"] != 1 {
		t.Errorf("Put: %v, %v; synced %v", holders, err, c.synced)
	}
	_, holders, err = tier.Put(t.Context(), content(2, 1000), true)
	if err != nil || !sameNodes(holders, nodes("ab")) {
		t.Errorf("Put of something new: %v, %v", holders, err)
	}
}

// TestSlowNodeComesLast: a node that is much slower than another is asked after it.
func TestSlowNodeComesLast(t *testing.T) {
	var p paces
	p.note("b", 1<<20, 800*time.Millisecond)
	p.note("c", 1<<20, 20*time.Millisecond)
	for range 20 {
		p.note("d", 1<<20, 30*time.Millisecond)
	}
	if got := p.quickFirst(nodes("bcd")); !slices.Equal(got, nodes("cdb")) {
		t.Errorf("order %v", got)
	}
	for range 40 {
		p.note("b", 4<<20, 80*time.Millisecond)
	}
	if got := p.quickFirst(nodes("bcd")); !slices.Equal(got, nodes("bcd")) {
		t.Errorf("order %v after the slow one has become quick", got)
	}
}

// TestFullNodeIsPassed: a node without room is passed at once, and so is the own
// disk while enough others have room; with too few others the put is refused.
func TestFullNodeIsPassed(t *testing.T) { synctest.Test(t, testFullNodeIsPassed) }

func testFullNodeIsPassed(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	noRoom := func(n fs.NodeID, full bool) {
		var free uint64 = 1 << 40
		if full {
			free = 0
		}
		c.disks[n] = openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{ReserveBytes: 1, files: freeFiles{osFiles{}, free}})
	}
	noRoom("b", true)
	tier := tierOf(t, c, "a", nil)
	for i := range 3 {
		_, holders, err := tier.Put(t.Context(), content(i, 10), true)
		if err != nil || !sameNodes(holders, nodes("ac")) {
			t.Errorf("Put: %v, %v", holders, err)
		}
	}
	if c.pushes["b"] != 1 {
		t.Errorf("the full node was asked %d times", c.pushes["b"])
	}
	noRoom("b", false)
	noRoom("a", true)
	tier = tierOf(t, c, "a", nil)
	_, holders, err := tier.Put(t.Context(), content(7, 10), true)
	if err != nil || !sameNodes(holders, nodes("bc")) || tier.Stats().Elsewhere != 1 {
		t.Errorf("Put on a full node: %v, %v", holders, err)
	}
	c.kill("c")
	_, _, err = tier.Put(t.Context(), content(8, 10), true)
	wantKind(t, "Put on a full node with one other", err, fs.ErrNoSpace)
}

// TestSlowNodesOfAFullOne: a push that was given up because another node was quicker
// is made again when the own disk turns out to have no room.
func TestSlowNodesOfAFullOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		c.disks["a"] = openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{ReserveBytes: 1, files: freeFiles{osFiles{}, 0}})
		c.set("b", slow)
		c.set("c", slow)
		tier := tierOf(t, c, "a", nil)
		_, holders, err := tier.Put(t.Context(), content(1, 10), true)
		if err != nil || !sameNodes(holders, nodes("bc")) {
			t.Errorf("Put: %v, %v", holders, err)
		}
	})
}

func TestPutIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		c.set("b", hangs)
		tier := tierOf(t, c, "a", nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, _, err := tier.Put(ctx, content(1, 10), true)
		wantKind(t, "Put", err, fs.ErrInterrupted)
	})
}

func TestNewTierRefuses(t *testing.T) {
	c := newCluster(t, "a")
	for name, o := range map[string]TierOptions{
		"no disk":           {Peers: peers{c, "a"}},
		"no peers":          {Disk: c.disks["a"]},
		"negative replicas": {Disk: c.disks["a"], Peers: peers{c, "a"}, Replicas: -1},
	} {
		if _, err := NewTier(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// running starts Run and returns what stops it and waits for its end.
func running(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func TestKeepInline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b")
		tier := tierOf(t, c, "a", nil)
		var infos []fs.ChunkInfo
		for i := range 100 {
			want := content(i, 1000)
			info := infoOf(want, fs.Index(i))
			info.Durable = true
			b := bytes.Clone(want)
			tier.KeepInline(info.ID, b)
			tier.KeepInline(info.ID, b) // twice is once
			clear(b)
			infos = append(infos, info)
		}
		check := func(when string) {
			for i, info := range infos {
				got, err := read(t.Context(), tier, info)
				wantBytes(t, fmt.Sprintf("chunk %d %s", i, when), got, err, content(i, 1000))
			}
			if c.fetched() != 0 {
				t.Errorf("%s, other nodes were asked", when)
			}
		}
		if q := tier.Stats().KeepQueue; q != 100 {
			t.Errorf("%d chunks wait", q)
		}
		check("while it waits")
		stop := running(t, tier.Run)
		synctest.Wait()
		if q := tier.Stats().KeepQueue; q != 0 {
			t.Errorf("%d chunks wait still", q)
		}
		check("when it is stored")
		if st := c.disks["a"].Stats(); !st.Counted || st.Chunks != 100 {
			t.Errorf("the disk has %+v", st)
		}
		b := content(1000, 10)
		tier.KeepInline(infoOf(b, 1).ID, b) // wakes it again
		synctest.Wait()
		if !c.disks["a"].Has(hashOf(b)) {
			t.Error("what came later was not stored")
		}
		stop()
	})
}

// TestKeepInlineIsBounded: what is too much is dropped, not waited for, and
// wrong or impossible content never reaches the disk.
func TestKeepInlineIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a")
		tier := tierOf(t, c, "a", nil)
		const size = 32 << 10
		for i := range keepBytesMax/size + 3 {
			b := content(i, size)
			tier.KeepInline(infoOf(b, 1).ID, b)
		}
		if s := tier.Stats(); s.KeepDropped != 3 || s.KeepQueue != keepBytesMax/size {
			t.Errorf("stats %+v", s)
		}
		tier.KeepInline(fs.ChunkID{}, nil)
		stop := running(t, tier.Run)
		synctest.Wait()
		wrong := infoOf(content(1, 10), 1).ID
		tier.KeepInline(wrong, content(2, 10))
		synctest.Wait()
		if c.disks["a"].Has(wrong.Hash) || tier.Stats().KeepErrors != 1 {
			t.Errorf("wrong content was kept; stats %+v", tier.Stats())
		}
		stop()
	})
}
