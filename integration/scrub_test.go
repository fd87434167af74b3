package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// TestDamagedCache flips a bit in every file of every cache, on running nodes. The
// scrub finds each, and mends all from the bucket; without the bucket it says what
// is missing, reading fails, and not one wrong byte is served.
func TestDamagedCache(t *testing.T) {
	const files, size = 6, 300 << 10
	c, ps, s3, _ := proxied(t)
	want := map[string][]byte{}
	for i := range files {
		b := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(i), 9}).Read(b)
		name := fmt.Sprint("f", i)
		must(t, ps[0], probe.WriteFile(filepath.Join(c.Nodes[0].Mount, name), b))
		want[name] = b
	}
	for _, n := range c.Nodes {
		if err := n.WaitDurable(drainMax); err != nil {
			t.Fatal(err)
		}
	}
	damaged := 0
	for _, n := range c.Nodes {
		damaged += flipAll(t, n)
	}
	if damaged < 2*files {
		t.Fatalf("only %d files in all caches", damaged)
	}
	mended := 0
	for _, n := range c.Nodes {
		st, code := scrub(t, c, n)
		if code != 0 || st.Running || st.Damaged != st.Mended || st.Bytes == 0 {
			t.Errorf("%s: exit %d, %+v", n.ID, code, st)
		}
		mended += st.Mended
	}
	// A fetch from a damaged peer may have found some before their own scrub did.
	if mended == 0 || mended > damaged {
		t.Errorf("%d of %d damaged files mended", mended, damaged)
	}
	read := func(i int, lost bool) {
		t.Helper()
		for name, b := range want {
			r := ps[i].Call(probe.ReadFile(filepath.Join(c.Nodes[i].Mount, name)))
			if err := r.Err(); lost != (err != nil) || err == nil && string(r.Data) != string(b) {
				t.Fatalf("%s reads %s: %d bytes, %v", c.Nodes[i].ID, name, len(r.Data), err)
			}
		}
	}
	for i := range c.Nodes {
		read(i, false)
	}
	if st, code := scrub(t, c, c.Nodes[1]); code != 0 || st.Damaged != 0 {
		t.Errorf("after mending: exit %d, %+v", code, st)
	}

	if err := s3.Stop(); err != nil {
		t.Fatal(err)
	}
	// Restarted, so that no kernel has anything of it.
	for _, n := range c.Nodes {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		flipAll(t, n)
	}
	startAll(t, c)
	st, code := scrub(t, c, c.Nodes[0])
	if code != exitCorrupt || st.Damaged == 0 || st.Damaged == st.Mended || len(st.Names) == 0 {
		t.Errorf("without any copy: exit %d, %+v", code, st)
	}
	read(2, true)
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range c.Nodes {
		if err := pollFor(drainMax, func() error {
			return ps[i].Call(probe.ReadFile(filepath.Join(c.Nodes[i].Mount, "f0"))).Err()
		}); err != nil {
			t.Fatal(err)
		}
		read(i, false)
	}
}

// flipAll changes one bit in every chunk file of a node's cache and returns how
// many there are.
func flipAll(t *testing.T, n *testcluster.Node) (files int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(n.Cache(), "chunks"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		at := int64(len(b) / 3)
		_, err = f.WriteAt([]byte{b[at] ^ 4}, at)
		files++
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// scrubResult is what wpfs scrub prints.
type scrubResult struct {
	Running         bool
	Bytes           int64
	Damaged, Mended int
	Names           []string
}

// scrub runs wpfs scrub and returns what it says and its exit code.
func scrub(t *testing.T, c *testcluster.Cluster, n *testcluster.Node) (st scrubResult, code int) {
	t.Helper()
	cmd := c.Command("scrub", "--socket", n.Socket, "--output", "json")
	out, err := cmd.Output()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &st); err != nil {
		t.Fatalf("wpfs scrub says %s: %v", out, err)
	}
	return st, cmd.ProcessState.ExitCode()
}

// pollFor runs f until it returns nil or limit has passed, and then returns the
// last error.
func pollFor(limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(250 * time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
