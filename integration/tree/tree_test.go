package tree

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// plant makes a small tree that has one of everything Diff looks at.
func plant(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(root, "d"), 0o755))
	must(os.WriteFile(filepath.Join(root, "d", "f"), []byte("content"), 0o644))
	must(os.WriteFile(filepath.Join(root, "g"), []byte("more"), 0o644))
	must(os.Symlink("d/f", filepath.Join(root, "l")))
	when := time.Unix(1700000000, 123456789)
	for _, p := range []string{"d/f", "g", "d", "."} {
		must(os.Chtimes(filepath.Join(root, p), when, when))
	}
	return root
}

func TestDiffSeesEachKindOfChange(t *testing.T) {
	cases := []struct {
		name   string
		change func(root string) error
		want   string
	}{
		{"content", func(r string) error { return rewrite(filepath.Join(r, "d/f"), "CONTENT") }, "d/f: content"},
		{"size", func(r string) error { return rewrite(filepath.Join(r, "d/f"), "longer content") }, "d/f: size"},
		{"mode", func(r string) error { return os.Chmod(filepath.Join(r, "g"), 0o600) }, "g: mode"},
		{"mtime", func(r string) error {
			return os.Chtimes(filepath.Join(r, "g"), time.Now(), time.Unix(1700000000, 123456790))
		}, "g: mtime is 1700000000123456790"},
		{"missing", func(r string) error { return os.Remove(filepath.Join(r, "g")) }, "g: missing"},
		{"too much", func(r string) error { return os.WriteFile(filepath.Join(r, "n"), nil, 0o644) }, "n: too much"},
		{"nlink", func(r string) error { return os.Link(filepath.Join(r, "g"), filepath.Join(r, "g2")) }, "g: nlink is 2, want 1"},
		{"target", func(r string) error {
			if err := os.Remove(filepath.Join(r, "l")); err != nil {
				return err
			}
			return os.Symlink("d/g", filepath.Join(r, "l"))
		}, "l: link target is d/g, want d/f"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want, err := Scan(plant(t))
			if err != nil {
				t.Fatal(err)
			}
			root := plant(t)
			same, err := Scan(root)
			if err != nil {
				t.Fatal(err)
			}
			if d := dropLinkTimes(Diff(want, same, Copies, 10)); len(d) != 0 {
				t.Fatalf("equal trees differ: %q", d)
			}
			if err := c.change(root); err != nil {
				t.Fatal(err)
			}
			got, err := Scan(root)
			if err != nil {
				t.Fatal(err)
			}
			if d := strings.Join(Diff(want, got, Copies, 10), "\n"); !strings.Contains(d, c.want) {
				t.Errorf("Diff says %q, want it to say %q", d, c.want)
			}
		})
	}
}

// rewrite changes content but not the time of modification.
func rewrite(path, content string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, st.ModTime(), st.ModTime())
}

// dropLinkTimes leaves out the times of the planted symbolic link, which
// os.Chtimes cannot set.
func dropLinkTimes(ds []string) []string {
	var out []string
	for _, d := range ds {
		if !strings.HasPrefix(d, "l: mtime") {
			out = append(out, d)
		}
	}
	return out
}
