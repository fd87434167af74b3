package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCallsOnARealTree(t *testing.T) {
	root := t.TempDir()
	entries := 1
	for _, d := range []string{"a", "a/b", ".hidden", "..odd"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
		entries++
	}
	files := []string{"f", "a/g", "a/b/h", ".hidden/i"}
	for i, f := range files {
		if err := os.WriteFile(filepath.Join(root, f), make([]byte, i*1000), 0o644); err != nil {
			t.Fatal(err)
		}
		entries++
	}
	if err := os.Symlink("a", filepath.Join(root, "link")); err != nil { // is not followed
		t.Fatal(err)
	}
	entries++
	paths, err := toCPaths(root, files)
	if err != nil {
		t.Fatal(err)
	}
	missing, err := toCPaths(root, []string{"a/missing"})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := toCPath(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := lstatPaths(paths, 0); err != nil {
		t.Error(err)
	}
	if err := lstatPaths(missing, unix.ENOENT); err != nil {
		t.Error(err)
	}
	if lstatPaths(missing, 0) == nil || lstatPaths(paths, unix.ENOENT) == nil {
		t.Error("the wrong errno is no error")
	}
	for _, size := range []int{256, 1000, 1 << 20} { // of the buffer
		if err := readPaths(paths, make([]byte, size), 6000); err != nil {
			t.Errorf("with %d bytes at a time: %v", size, err)
		}
	}
	if readPaths(paths, make([]byte, 256), 5999) == nil || readPaths(missing, make([]byte, 256), -1) == nil {
		t.Error("bytes or a file too few are no error")
	}
	var l lister
	for range 2 {
		if got, err := l.list(atCWD, dir.p, 0); got != entries || err != nil {
			t.Errorf("%d entries, %v, want %d", got, err, entries)
		}
	}
}

func TestToCPathRefusesNUL(t *testing.T) {
	if _, err := toCPaths("/", []string{"a\x00b"}); err == nil {
		t.Error("no error")
	}
}
