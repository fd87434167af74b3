package integration

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// Limits of the tree test's steps.
const (
	copyMax    = 5 * time.Minute
	uploadMax  = 5 * time.Minute
	treeIsReal = 1000 // files; fewer mean that the tree was not unpacked
)

// source provides the tree to copy in, and its description.
func source(t *testing.T) (root string, want []tree.Entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), copyMax)
	defer cancel()
	root, note, err := tree.Source(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want, err = tree.Scan(root)
	if err != nil {
		t.Fatal(err)
	}
	files, dirs, others, bytes := tree.Count(want)
	t.Logf("tree: %s: %d files, %d directories, %d others, %d MiB", note, files, dirs, others, bytes>>20)
	if files < treeIsReal {
		t.Fatalf("the tree has only %d files", files)
	}
	return root, want
}

// TestWordPressTree copies a real tree in on node 1 and compares it on all
// nodes at once and after each disaster that this version survives. There is
// no sleep in it: what cp has finished is there.
func TestWordPressTree(t *testing.T) {
	mounts(t)
	bin := versitygw(t)
	s3, err := session.StartS3(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Stop()
	c, ps := start(t, testcluster.Config{S3: s3.URL(), Env: s3.Env()})
	src, want := source(t)

	ctx, cancel := context.WithTimeout(t.Context(), copyMax)
	defer cancel()
	began := time.Now()
	command(t, ctx, "cp", "-a", src, filepath.Join(c.Nodes[0].Mount, "site"))
	took := time.Since(began)
	t.Logf("cp -a on node 1: %v, %v for each of %d entries", took.Round(time.Millisecond), (took / time.Duration(len(want))).Round(time.Microsecond), len(want))

	last := time.Now()
	check := func(when string, nodes ...int) {
		t.Helper()
		defer func() {
			t.Logf("%s: %v since the step before", when, time.Since(last).Round(time.Millisecond))
			last = time.Now()
		}()
		for _, i := range nodes {
			equal(t, c.Nodes[i].ID+" "+when, want, scan(t, c.Nodes[i], ps[i], "site"), tree.Copies)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	check("at once", 1, 2, 0)
	views := sameTrees(t, c, ps, "site")

	for _, n := range c.Nodes {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	startAll(t, c)
	check("after kill -9 of all agents", 0, 1, 2)
	equal(t, "node1 against itself before the kill", views, scan(t, c.Nodes[0], ps[0], "site"), tree.Views)

	if _, err := c.AddNode(); err != nil {
		t.Fatal(err)
	}
	ps = append(ps, startProbe(t, c.Nodes[3].ID))
	check("added with an empty disk", 3)

	emptyCache(t, c.Nodes[1])
	if err := c.Nodes[1].Start(); err != nil {
		t.Fatal(err)
	}
	check("with an emptied cache", 1)

	fromTheBucket(t, c, s3, check)
}

// startAll starts all nodes at once: none becomes healthy before most run.
func startAll(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	done := make(chan error, len(c.Nodes))
	for _, n := range c.Nodes {
		go func() { done <- n.Start() }()
	}
	for range c.Nodes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// emptyCache stops a node and removes all content from its disk.
func emptyCache(t *testing.T, n *testcluster.Node) {
	t.Helper()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Cache()); err != nil {
		t.Fatalf("%s has no cache to empty: %v", n.ID, err)
	}
	if err := os.RemoveAll(n.Cache()); err != nil {
		t.Fatal(err)
	}
}

// fromTheBucket removes the content from every node's disk once the bucket has
// it, so that nothing but the bucket can give it back.
func fromTheBucket(t *testing.T, c *testcluster.Cluster, s3 *testcluster.S3, check func(when string, nodes ...int)) {
	t.Helper()
	for _, n := range c.Nodes {
		if err := n.WaitDurable(uploadMax); err != nil {
			t.Fatal(err)
		}
	}
	objects, bytes, err := s3.Objects()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the bucket has %d objects, %d MiB", objects, bytes>>20)
	for _, n := range c.Nodes {
		emptyCache(t, n)
	}
	startAll(t, c)
	check("from the bucket alone", 0)
	check("from the bucket or node 1", 1, 2, 3)
}

// versitygw finds the S3 server.
func versitygw(t *testing.T) string {
	t.Helper()
	module, err := moduleDir()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := testcluster.Versitygw(module)
	need(t, err)
	return bin
}

// TestFileLargerThanMemory writes a file that no part may hold in memory as a
// whole, and compares its checksum on all nodes.
func TestFileLargerThanMemory(t *testing.T) {
	const size, seed = 256 << 20, 0x5a
	c, ps := start(t, testcluster.Config{})
	path := func(i int) string { return filepath.Join(c.Nodes[i].Mount, "big") }
	began := time.Now()
	must(t, ps[0], probe.Fill(path(0), size, seed))
	t.Logf("written and closed in %v", time.Since(began).Round(time.Millisecond))
	want := patternSum(size, seed)
	for _, i := range []int{1, 2, 0} {
		began := time.Now()
		r := must(t, ps[i], probe.Sum(path(i)), probe.Lstat(path(i)))
		if r[0].Str != want || r[0].N != size || r[1].Stat.Size != size {
			t.Errorf("%s: read %d bytes with sum %s, stat says %d; want %d and %s", ps[i].Name, r[0].N, r[0].Str, r[1].Stat.Size, size, want)
		}
		t.Logf("read on %s in %v", ps[i].Name, time.Since(began).Round(time.Millisecond))
	}
	for _, n := range c.Nodes {
		rss, err := n.PeakRSS()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: at most %d MiB resident", n.ID, rss>>20)
		if rss > size {
			t.Errorf("%s held %d MiB in memory while a file of %d MiB was handled", n.ID, rss>>20, size>>20)
		}
	}
	// Parts of it, at places where chunks meet.
	for _, off := range []int64{0, 4<<20 - 7, 100<<20 + 1, size - 11} {
		b := make([]byte, 64)
		n := min(int64(len(b)), size-off)
		probe.Pattern(b[:n], off, seed)
		rs := must(t, ps[2], probe.Open(1, path(2), 0, 0), probe.Pread(1, off, int64(len(b))), probe.Close(1))
		if string(rs[1].Data) != string(b[:n]) {
			t.Errorf("bytes at %d: %x, want %x", off, rs[1].Data, b[:n])
		}
	}
}
