package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the documents that are made from the program")

// exitDoc is docs/EXIT-CODES.md.
func exitDoc() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\nMade from the program by `make docs`; do not edit by hand (a test compares). The numbers never\n" +
		"change. `wpfs dev -- CMD` exits with CMD's code instead, or 128+N if signal N ended it.\n\n" +
		"| code | means | what to do |\n|---|---|---|\n")
	for _, c := range codeTable {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", c.Code, c.Means, c.Do)
	}
	return b.String()
}

// TestDocuments keeps the documents that are made from the program equal to it.
func TestDocuments(t *testing.T) {
	for name, want := range map[string]string{"CONFIGURATION.md": configDoc(), "EXIT-CODES.md": exitDoc()} {
		path := filepath.Join("..", "..", "docs", name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what the program says: make docs", path)
		}
	}
}

// TestEveryKeyIsComplete: each key has a meaning, and names that do not collide.
func TestEveryKeyIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range configKeys() {
		if k.Doc == "" || strings.HasSuffix(k.Name, ".") || strings.HasPrefix(k.Name, ".") {
			t.Errorf("key %q: the key or doc tag is missing", k.Name)
		}
		for _, n := range []string{k.Name, k.Env, k.Flag} {
			if seen[n] {
				t.Errorf("two keys are called %s", n)
			}
			seen[n] = true
		}
	}
	if len(seen) < 3*10 {
		t.Errorf("only %d names were found", len(seen))
	}
}

// TestCodesAreInTheTable: a code that is not listed would be undocumented.
func TestCodesAreInTheTable(t *testing.T) {
	listed := map[Code]bool{}
	for i, c := range codeTable {
		if int(c.Code) != i {
			t.Errorf("row %d of the table is code %d: the numbers are fixed", i, c.Code)
		}
		listed[c.Code] = true
	}
	for c := CodeOK; c <= CodeDiffers; c++ {
		if !listed[c] {
			t.Errorf("code %d is not in the table", c)
		}
	}
}

// TestDocumentLinks: every relative link of README and docs leads to a file.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	found := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(b), -1) {
				found++
				if _, err := os.Stat(filepath.Join(filepath.Dir(f), m[1])); err != nil {
					t.Errorf("%s: the link %q leads nowhere", f, m[1])
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d links were found", found)
	}
}
