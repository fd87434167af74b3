package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cache"
	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// Figures of garbage collection.
const (
	garbageFiles = 240
	garbageGone  = 60 * time.Second // for a round to find and delete everything, with a grace of seconds
)

// gc runs wpfs gc on a node.
func gc(t *testing.T, c *testcluster.Cluster, n *testcluster.Node, arg string) cache.Report {
	t.Helper()
	out, err := c.Command("gc", arg, "--socket", n.Socket, "--output", "json").Output()
	if err != nil {
		t.Fatalf("wpfs gc %s on %s: %v", arg, n.ID, err)
	}
	var r cache.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGarbageLeavesTheBucket: most files are deleted while agents are killed.
// What they had in the bucket goes, their packs are compacted, and what is left
// comes back from the bucket alone.
func TestGarbageLeavesTheBucket(t *testing.T) {
	c, ps, s3, count := startCounted(t, "object.gc_grace=4s", "object.debug_snapshot_every=1s")
	dir := func(i int) string { return filepath.Join(c.Nodes[i].Mount, "d") }
	must(t, ps[0], probe.Mkdir(dir(0)))
	for i := range garbageFiles {
		must(t, ps[0], probe.WriteFile(filepath.Join(dir(0), fmt.Sprint(i)), siteFile(i)))
	}
	for _, n := range c.Nodes {
		if err := n.WaitDurable(uploadMax); err != nil {
			t.Fatal(err)
		}
	}
	_, before := packsOf(t, s3)
	var kept []int
	for i := range garbageFiles {
		if i%12 == 5 {
			kept = append(kept, i)
			continue
		}
		must(t, ps[1], probe.Unlink(filepath.Join(dir(1), fmt.Sprint(i))))
	}
	// Whoever collects is killed on the way, several times.
	for range 2 {
		leader, err := c.Leader()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := leader.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := leader.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var objects int
	var after int64
	err := within(garbageGone, func() error {
		// A snapshot is made when something has changed, and what was deleted is
		// needed until no snapshot from before is left.
		must(t, ps[0], probe.WriteFile(filepath.Join(c.Nodes[0].Mount, "tick"), fmt.Append(nil, time.Now())))
		if objects, after = packsOf(t, s3); after > before/3 {
			return fmt.Errorf("%d packs with %d bytes are left of %d", objects, after, before)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	r := gc(t, c, c.Nodes[1], "--dry-run")
	if !r.DryRun || r.Chunks == 0 || r.Packs.Count == 0 || r.LiveBytes == 0 {
		t.Errorf("dry run: %+v", r)
	}
	for _, n := range c.Nodes {
		if r := gc(t, c, n, "now"); r.DryRun || r.Error != "" {
			t.Errorf("now: %+v", r)
		}
	}
	t.Logf("%d bytes in packs before, %d in %d packs after; %d deletes", before, after, objects, count.packs(http.MethodDelete))
	for _, n := range c.Nodes {
		emptyCache(t, n)
	}
	startAll(t, c)
	for _, i := range kept {
		sum := sha256.Sum256(siteFile(i))
		if r := must(t, ps[2], probe.Sum(filepath.Join(dir(2), fmt.Sprint(i))))[0]; r.Str != hex.EncodeToString(sum[:]) {
			t.Errorf("file %d is not what was written", i)
		}
	}
}

// packsOf counts the packs in the bucket and their bytes.
func packsOf(t *testing.T, s3 *testcluster.S3) (n int, bytes int64) {
	t.Helper()
	s3.Damage(t, func(key string, size int64) bool { // none: it only looks
		if strings.HasPrefix(key, "p/") {
			n++
			bytes += size
		}
		return false
	})
	return n, bytes
}

// within repeats f until it succeeds or limit has passed.
func within(limit time.Duration, f func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("not within %v", limit), err)
		}
	}
}
