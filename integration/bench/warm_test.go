package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/tree"
)

func TestFreshSizesAreLikePHP(t *testing.T) {
	names, bytes := freshNames()
	large, most := 0, 0
	for i := range names {
		most = max(most, freshSize(i))
		if freshSize(i) > 32<<10 {
			large++
		}
	}
	if mean := bytes / freshFiles; mean < 7<<10 || mean > 9<<10 {
		t.Errorf("%d bytes in the mean", mean)
	}
	if large != freshFiles/20 || most > 60<<10 || most < 59<<10 {
		t.Errorf("%d large files, %d bytes at most", large, most)
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(names)))); n != freshFiles {
		t.Errorf("%d names, want %d", n, freshFiles)
	}
}

func TestInRing(t *testing.T) {
	paths, err := toCPaths("", []string{"a", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		k, n int
		want string
	}{{0, 2, "ab"}, {2, 2, "ca"}, {4, 7, "bcabcab"}, {3, 0, ""}} {
		got := ""
		err := inRing(paths, c.k, c.n, func(ps []cpath) error {
			for _, p := range ps {
				got += p.String()
			}
			return nil
		})
		if got != c.want || err != nil {
			t.Errorf("%d from %d on: %q, %v, want %q", c.n, c.k, got, err, c.want)
		}
	}
}

func TestPhasesOnTheLocalFileSystem(t *testing.T) {
	root, at := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	for _, d := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range []string{"index.php", "a/b/c.php", "c/style.css"} {
		if err := os.WriteFile(filepath.Join(root, f), make([]byte, 100*(i+1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	es, err := tree.Scan(root)
	if err != nil {
		t.Fatal(err)
	}
	s := siteOf(root, es)
	if len(s.php) != 2 || s.phpBytes != 300 || s.bytes != 600 {
		t.Fatalf("site: %+v", s)
	}
	if err := s.copyTo(at, 2); err != nil {
		t.Fatal(err)
	}
	ps, err := s.phases(at)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if err := p.prepare(); err != nil {
			t.Errorf("%s: before: %v", p.measure.Name, err)
		}
		passes, took, err := p.run(5 * time.Millisecond)
		if err != nil || passes < p.workers || took < 5*time.Millisecond {
			t.Errorf("%s: %d passes in %v, %v", p.measure.Name, passes, took, err)
		}
	}
	if err := unix.Unlink(filepath.Join(at, "index.php")); err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if _, _, err := p.run(0); err == nil && p.measure.Name != statNone.Name {
			t.Errorf("%s: a file is gone and nothing was said", p.measure.Name)
		}
	}
}
