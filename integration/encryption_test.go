package integration

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// TestNothingReadableInTheBucket: with a key, what the bucket has shows nothing of
// the files, and gives them back to a node that has nothing else; after a change of
// the key, too.
func TestNothingReadableInTheBucket(t *testing.T) {
	mounts(t)
	const secret = "the-customers-secret-"
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, strings.Repeat("1f", 32)+"\n")
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Stop()
	c, ps := start(t, testcluster.Config{S3: s3.URL(), Env: s3.Env(), Set: []string{"object.encryption_key_file=" + key}})
	large := []byte(strings.Repeat(secret, 100_000)) // more than one chunk can travel inside the metadata
	must(t, ps[0], probe.WriteFile(filepath.Join(c.Nodes[0].Mount, secret+"small"), []byte(secret)))
	must(t, ps[0], probe.WriteFile(filepath.Join(c.Nodes[0].Mount, secret+"large"), large))
	fromBucket := func(when string) {
		t.Helper()
		if err := c.Nodes[0].WaitDurable(uploadMax); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.Nodes {
			emptyCache(t, n)
		}
		startAll(t, c)
		for i, n := range c.Nodes {
			small := must(t, ps[i], probe.ReadFile(filepath.Join(n.Mount, secret+"small")))[0].Data
			got := must(t, ps[i], probe.ReadFile(filepath.Join(n.Mount, secret+"large")))[0].Data
			if string(small) != secret || !bytes.Equal(got, large) {
				t.Errorf("%s, %s: %d and %d bytes, not what was written", n.ID, when, len(small), len(got))
			}
		}
	}
	fromBucket("with the key")
	noTrace(t, s3.Dir(), secret)

	write(t, key, strings.Repeat("2e", 32)+"\n"+strings.Repeat("1f", 32)+"\n") // the new one writes, the old one reads
	fromBucket("with a new key before the old")
	must(t, ps[1], probe.WriteFile(filepath.Join(c.Nodes[1].Mount, secret+"large"), append(large, "more"...)))
	large = append(large, "more"...)
	fromBucket("written with the new key")
	noTrace(t, s3.Dir(), secret)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// noTrace fails if any object's name or content below dir has the word, or if there
// is no object.
func noTrace(t *testing.T, dir, word string) {
	t.Helper()
	objects := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		objects++
		if strings.Contains(path, word) || bytes.Contains(b, []byte(word)) || !bytes.HasPrefix(b, []byte("wpfseal1")) {
			t.Errorf("%s is not encrypted", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if objects == 0 {
		t.Error("the bucket is empty")
	}
}
