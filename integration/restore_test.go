package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// Exit codes of a bucket that belongs to somebody.
const (
	exitForeign    = 15
	exitIncomplete = 16
	exitAlive      = 17
)

// restoreMax is how long the bucket may take to have everything.
const restoreMax = time.Minute

// lostCluster is a cluster on an S3 server that a test takes everything from but
// the bucket.
type lostCluster struct {
	*testcluster.Cluster
	ps []*probe.Client
	s3 *testcluster.S3
}

func startOnS3(t *testing.T) *lostCluster {
	t.Helper()
	mounts(t)
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s3.Stop() })
	c, ps := start(t, testcluster.Config{S3: s3.URL(), Env: s3.Env()})
	return &lostCluster{c, ps, s3}
}

// killAll ends every agent at once, as a power cut of the whole site would.
func (c *lostCluster) killAll(t *testing.T) {
	t.Helper()
	for _, n := range c.Nodes {
		if n.PID > 0 {
			if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range c.Nodes {
		if err := n.Kill(); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
}

// wipe removes all nodes' disks.
func (c *lostCluster) wipe(t *testing.T) {
	t.Helper()
	if err := c.Down(); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if err := os.RemoveAll(n.Data()); err != nil {
			t.Fatal(err)
		}
	}
}

// onBucket is a lonely agent that uses the cluster's bucket.
func (c *lostCluster) onBucket(t *testing.T) *lonely {
	t.Helper()
	l := newLonely(t)
	l.conf["object"]["url"] = c.s3.URL()
	l.env = c.s3.Env()
	l.command(t) // writes the configuration
	return l
}

// restoreReport is what wpfs restore --output json prints.
type restoreReport struct {
	Cluster, Name string
	Epoch, Index  uint64
	Segments      int
	Problems      []string
	Missing       []struct{ Path string }
}

// restore makes l a node of a new cluster.
func restore(t *testing.T, l *lonely, code int, args ...string) restoreReport {
	t.Helper()
	cmd := session.Command(l.env, append([]string{"restore", "--config", l.dir("wpfs.yaml"), "--output", "json"}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("restore: %v, want code %d\n%s", err, code, said.String())
	}
	var r restoreReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("restore prints %q: %v", out.String(), err)
	}
	if len(r.Problems) > 0 {
		t.Errorf("restore could not use: %q", r.Problems)
	}
	return r
}

// scanAt lists what is mounted at a directory, from another process.
func scanAt(t *testing.T, dir string) []tree.Entry {
	t.Helper()
	es, err := startProbe(t, "scan").Call(probe.Scan(dir)).Entries()
	if err != nil {
		t.Fatal(err)
	}
	return es
}

// plantAll makes one of everything that a file system keeps.
func plantAll(t *testing.T, p *probe.Client, mnt string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(mnt, name) }
	must(t, p, probe.Mkdir(at("wp-content")), probe.Mkdir(at("wp-content/uploads")), probe.Mkdir(at("empty")))
	for i := range 200 {
		must(t, p, probe.WriteFile(at(fmt.Sprintf("wp-content/f%03d.php", i)), bytes.Repeat([]byte{byte(i)}, i*40)))
	}
	must(t, p,
		probe.Fill(at("wp-content/uploads/large.bin"), 9<<20+17, 3),
		probe.Fill(at("wp-content/uploads/medium.jpg"), 300<<10, 4),
		probe.Link(at("wp-content/uploads/medium.jpg"), at("wp-content/linked.jpg")),
		probe.Symlink("uploads/medium.jpg", at("wp-content/symlink.jpg")),
		probe.Mkfifo(at("fifo")),
		probe.Chmod(at("wp-content/f001.php"), 0o4750), probe.Chown(at("wp-content/f002.php"), 33, 33),
		probe.Setxattr(at("wp-content/f003.php"), "user.note", []byte("kept\x00whole")),
		probe.AppendFile(at("debug.log"), []byte("one\n")), probe.AppendFile(at("debug.log"), []byte("two\n")),
		probe.WriteFile(at("gone"), []byte("x")), probe.Unlink(at("gone")),
		probe.Truncate(at("wp-content/f100.php"), 1<<20),
		probe.Rename(at("wp-content/f150.php"), at("renamed.php"), 0),
		probe.Utimens(at("wp-content/f004.php"), 1_000_000_000_123_456_789),
	)
}

// TestRestoreFromBucket: all nodes' disks are gone after the backlog has drained;
// the bucket alone gives the identical tree, and a cluster that goes on.
func TestRestoreFromBucket(t *testing.T) {
	c := startOnS3(t)
	plantAll(t, c.ps[0], c.Nodes[0].Mount)
	want := sameTrees(t, c.Cluster, c.ps, ".")
	last := time.Now()
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leader.WaitDurable(restoreMax), leader.WaitShipped(time.Now(), restoreMax)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the bucket has everything %v after the last change", time.Since(last).Round(10*time.Millisecond))
	c.killAll(t)
	c.wipe(t)

	// Who starts anew on the bucket, by mistake, is told what to do, and leaves
	// nothing behind.
	l := c.onBucket(t)
	refused(t, l.command(t), exitForeign, "belongs to another cluster", "wpfs restore --from-bucket")
	if left := contentOf(t, l.dir("data")); len(left) > 1 {
		t.Errorf("the refused agent left %v", left)
	}
	dev := session.Command(c.s3.Env(), "dev", "--dir", filepath.Join(l.place.Dir, "dev"), "--nodes", "1", "--s3", c.s3.URL())
	refused(t, dev, exitForeign, "belongs to another cluster", "wpfs restore --from-bucket")
	refused(t, session.Command(l.env, "restore", "--config", l.dir("wpfs.yaml")), exitAlive, "it may be running", "--take-over")

	began := time.Now()
	r := restore(t, l, 0, "--take-over")
	t.Logf("restored %d entries of the tree up to log entry %d with %d segments in %v", len(want), r.Index, r.Segments, time.Since(began).Round(10*time.Millisecond))
	if r.Epoch != 2 || r.Name != "shop" {
		t.Errorf("restored %+v", r)
	}
	run1(t, l)
	equal(t, "the restored tree", want, scanAt(t, l.dir("mnt")), tree.Views)

	// Another node joins, under a name that the old cluster had.
	second := c.onBucket(t)
	second.conf["node"]["id"] = c.Nodes[1].ID
	delete(second.conf["cluster"], "peers")
	second.conf["cluster"]["join"] = []string{l.addr(7480)}
	second.conf["cluster"]["name"] = r.Name
	run1(t, second)
	equal(t, "on a node that joined", want, scanAt(t, second.dir("mnt")), tree.Views)
	p := startProbe(t, "writer")
	must(t, p, probe.WriteFile(filepath.Join(l.dir("mnt"), "after"), []byte("goes on")))
	if got := must(t, p, probe.ReadFile(filepath.Join(second.dir("mnt"), "after")))[0]; string(got.Data) != "goes on" {
		t.Errorf("the other node reads %q", got.Data)
	}

	// What is restored once can be restored again.
	refused(t, session.Command(l.env, "restore", "--config", l.dir("wpfs.yaml"), "--take-over"), exitDataDir, "not empty")
}

// TestRestoreSaysWhatIsMissing: the bucket has lost an object.
func TestRestoreSaysWhatIsMissing(t *testing.T) {
	c := startOnS3(t)
	p, mnt := c.ps[0], c.Nodes[0].Mount
	lost := map[string][]byte{"lost.jpg": make([]byte, 2<<20), "lost.txt": make([]byte, 2<<10)} // the small one travels in the log
	for _, b := range lost {
		rand.NewChaCha8([32]byte{byte(len(b) >> 10)}).Read(b)
	}
	must(t, p, probe.Mkdir(filepath.Join(mnt, "uploads")),
		probe.WriteFile(filepath.Join(mnt, "uploads/lost.jpg"), lost["lost.jpg"]),
		probe.WriteFile(filepath.Join(mnt, "uploads/lost.txt"), lost["lost.txt"]))
	if err := c.Nodes[0].WaitDurable(restoreMax); err != nil { // what is kept comes into another pack
		t.Fatal(err)
	}
	must(t, p, probe.WriteFile(filepath.Join(mnt, "kept.php"), []byte("<?php")))
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leader.WaitDurable(restoreMax), leader.WaitShipped(time.Now(), restoreMax)); err != nil {
		t.Fatal(err)
	}
	c.killAll(t)
	c.wipe(t)
	if n := c.s3.Damage(t, func(key string, size int64) bool { return strings.HasPrefix(key, pack.Prefix) && size > 1<<10 }); n == 0 {
		t.Fatal("removed nothing")
	}
	l := c.onBucket(t)
	r := restore(t, l, exitIncomplete, "--take-over")
	if len(r.Missing) != 2 || r.Missing[0].Path != "uploads/lost.jpg" || r.Missing[1].Path != "uploads/lost.txt" {
		t.Errorf("missing are %+v", r.Missing)
	}
	stop := run1(t, l)
	q, uploads := startProbe(t, "reader"), filepath.Join(l.dir("mnt"), "uploads")
	if got := must(t, q, probe.ReadFile(filepath.Join(l.dir("mnt"), "kept.php")))[0]; string(got.Data) != "<?php" {
		t.Errorf("the other file is %q", got.Data)
	}
	for name := range lost {
		if err := q.Call(probe.ReadFile(filepath.Join(uploads, name))).Err(); !errors.Is(err, unix.EIO) {
			t.Errorf("reading the lost file %s: %v", name, err)
		}
	}
	// The same bytes again are uploaded again, and make the lost files whole.
	for name, b := range lost {
		must(t, q, probe.WriteFile(filepath.Join(uploads, "again-"+name), b))
	}
	web1 := &testcluster.Node{ID: "web1", HTTP: "http://" + l.addr(7482)}
	if err := web1.WaitDurable(restoreMax); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.RemoveAll(filepath.Join(l.dir("data"), "cache")); err != nil {
		t.Fatal(err)
	}
	run1(t, l)
	for name, b := range lost {
		for _, path := range []string{"again-" + name, name} {
			if got := must(t, q, probe.ReadFile(filepath.Join(uploads, path)))[0].Data; !bytes.Equal(got, b) {
				t.Errorf("%s has %d bytes, not the %d that were written again", path, len(got), len(b))
			}
		}
	}
	must(t, q, probe.Unlink(filepath.Join(uploads, "lost.jpg")))
}

// TestBucketAwayAtStart: a cluster that has its bucket starts and serves without
// it; when it is back, it gets everything.
func TestBucketAwayAtStart(t *testing.T) {
	c := startOnS3(t)
	must(t, c.ps[0], probe.WriteFile(filepath.Join(c.Nodes[0].Mount, "before"), []byte("x")))
	c.killAll(t)
	if err := c.s3.Stop(); err != nil {
		t.Fatal(err)
	}
	startAll(t, c.Cluster)
	plantAll(t, c.ps[1], c.Nodes[1].Mount)
	want := sameTrees(t, c.Cluster, c.ps, ".")
	if err := c.s3.Start(); err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leader.WaitDurable(restoreMax), leader.WaitShipped(time.Now(), restoreMax)); err != nil {
		t.Fatal(err)
	}
	c.killAll(t)
	c.wipe(t)
	l := c.onBucket(t)
	restore(t, l, 0, "--take-over")
	run1(t, l)
	equal(t, "the restored tree", want, scanAt(t, l.dir("mnt")), tree.Views)
}

// acked is one file that a writer has closed and renamed into its place.
type acked struct {
	name string
	at   time.Time
}

// scribble makes files of one writer, one after the other, until the first error:
// each is written under another name and renamed, so its name is there or is not.
func scribble(p *probe.Client, mnt, dir string, content func(i int) []byte) []acked {
	var list []acked
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s/%06d", dir, i)
		tmp := filepath.Join(mnt, name+".tmp")
		if p.Run(probe.WriteFile(tmp, content(i)), probe.Rename(tmp, filepath.Join(mnt, name), 0)) != nil {
			return list
		}
		list = append(list, acked{name, time.Now()})
	}
}

// small and large content of file i: the latter is not in the log.
func small(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%06d ", i), 1+i%500) }
func large(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%06d ", i), 10_000+i%500) }

// TestRestoreAfterKill: all agents are killed at a random instant under load. What
// is restored is a state that was: of each writer a beginning of what it made, no
// file torn. How much is lost is measured, and no more than the leader had said.
func TestRestoreAfterKill(t *testing.T) {
	var worst time.Duration
	rounds := scaled(t, 4)
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) { worst = max(worst, restoreAfterKill(t)) })
	}
	t.Logf("in %d rounds at most the last %v of metadata and small files were lost", rounds, worst.Round(10*time.Millisecond))
}

func restoreAfterKill(t *testing.T) (loss time.Duration) {
	c := startOnS3(t)
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	must(t, c.ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, "small-0")), probe.Mkdir(filepath.Join(c.Nodes[0].Mount, "small-1")),
		probe.Mkdir(filepath.Join(c.Nodes[0].Mount, "large-2")))
	made := make([][]acked, 3)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			dir, content := fmt.Sprintf("small-%d", i), small
			if i == 2 {
				dir, content = "large-2", large
			}
			made[i] = scribble(c.ps[i], c.Nodes[i].Mount, dir, content)
		})
	}
	life := 2*time.Second + rand.N(5*time.Second)
	time.Sleep(life)
	asked := time.Now()
	st, err := leader.Status() // what it says it would lose
	if err != nil {
		t.Fatal(err)
	}
	c.killAll(t)
	killed := time.Now()
	wg.Wait()
	c.wipe(t)

	l := c.onBucket(t)
	cmd := session.Command(l.env, "restore", "--config", l.dir("wpfs.yaml"), "--output", "json", "--take-over")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != exitIncomplete {
		t.Fatalf("restore: %v", err)
	}
	var r restoreReport
	if err := json.Unmarshal(out, &r); err != nil || len(r.Problems) > 0 {
		t.Fatalf("restore: %v, could not use %q", err, r.Problems)
	}
	run1(t, l)
	missing := map[string]bool{}
	for _, m := range r.Missing {
		missing[m.Path] = true
	}
	files := 0
	for i, list := range made {
		n := checkPrefix(t, l, list, []func(int) []byte{small, small, large}[i], missing)
		files += len(list)
		if n < len(list) {
			loss = max(loss, killed.Sub(list[n].at))
		}
	}
	said := time.Duration(st.Archive.LagS*float64(time.Second)) + killed.Sub(asked)
	t.Logf("killed after %v and %d files: lost the last %v, the leader had said %v; %d files without content", life.Round(10*time.Millisecond), files,
		loss.Round(10*time.Millisecond), said.Round(10*time.Millisecond), len(missing))
	if loss > said {
		t.Errorf("lost %v, but the leader had said that it was %v behind", loss, said)
	}
	return loss
}

// checkPrefix counts how many of a writer's files are there: they must be the
// first ones, and each be whole, or be reported as missing.
func checkPrefix(t *testing.T, l *lonely, list []acked, content func(int) []byte, missing map[string]bool) int {
	t.Helper()
	p := startProbe(t, "reader")
	n := slices.IndexFunc(list, func(a acked) bool {
		return p.Call(probe.Lstat(filepath.Join(l.dir("mnt"), a.name))).Err() != nil
	})
	if n < 0 {
		n = len(list)
	}
	for i, a := range list {
		res := p.Call(probe.ReadFile(filepath.Join(l.dir("mnt"), a.name)))
		switch err := res.Err(); {
		case i >= n && err == nil:
			t.Errorf("%s is there although %s is not", a.name, list[n].name)
		case i >= n:
		case err != nil && !missing[a.name]:
			t.Errorf("%s cannot be read: %v", a.name, err)
		case err == nil && !bytes.Equal(res.Data, content(i)):
			t.Errorf("%s has %d bytes that are not what was written", a.name, len(res.Data))
		}
	}
	return n
}

// TestFencedClusterGoesOn: another cluster takes the bucket over while this one
// runs. It puts nothing more into it, says so, and serves.
func TestFencedClusterGoesOn(t *testing.T) {
	c := startOnS3(t)
	p, mnt := c.ps[0], c.Nodes[0].Mount
	must(t, p, probe.WriteFile(filepath.Join(mnt, "before"), []byte("x")))
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.WaitShipped(time.Now(), restoreMax); err != nil {
		t.Fatal(err)
	}
	l := c.onBucket(t)
	restore(t, l, 0, "--take-over")
	waitUntil(t, restoreMax, func() error {
		for _, n := range c.Nodes {
			if st, err := n.Status(); err != nil || st.Archive.Fenced == "" || !st.Healthy {
				return fmt.Errorf("%s: fenced %q, healthy %t, %v", n.ID, st.Archive.Fenced, st.Healthy, err)
			}
		}
		return nil
	})
	before, _, err := c.s3.Objects()
	if err != nil {
		t.Fatal(err)
	}
	must(t, p, probe.Fill(filepath.Join(mnt, "after.jpg"), 100<<10, 5), probe.WriteFile(filepath.Join(mnt, "after.php"), []byte("y")))
	time.Sleep(3 * time.Second) // more than shipping and upload take
	if got := must(t, c.ps[1], probe.ReadFile(filepath.Join(c.Nodes[1].Mount, "after.php")))[0]; string(got.Data) != "y" {
		t.Errorf("another node reads %q", got.Data)
	}
	after, _, err := c.s3.Objects()
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("the bucket had %d objects and has %d", before, after)
	}
	b, _, err := leader.Get("/metrics")
	if err != nil || !strings.Contains(string(b), "\nwpfs_bucket_fenced 1") {
		t.Errorf("/metrics does not say that the bucket is gone (%v)", err)
	}
}

// waitUntil fails the test if f does not succeed within limit.
func waitUntil(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
