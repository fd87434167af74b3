package kcache

import (
	"testing"

	"github.com/wpfs/wpfs/fs"
)

func TestCounts(t *testing.T) {
	var c counts
	for range 3 {
		c.add(fs.Attr{Ino: 17, Mode: fs.ModeRegular})
	}
	c.add(fs.Attr{Ino: 33, Mode: fs.ModeDir, Generation: 5})
	if r := c.get(33); !r.dir || r.n != 1 || r.generation != 5 {
		t.Errorf("33: %+v, want one reference to a directory of generation 5", r)
	}
	if c.sub(17, 2) || !c.sub(99, 1) || !c.sub(33, 5) { // 99 was never given out, 33 not so often
		t.Error("what is left was told wrong")
	}
	if c.get(17).n != 1 || c.get(33).n != 0 || c.len() != 1 {
		t.Errorf("17: %d, 33: %d, %d inodes; want 1, 0, 1", c.get(17).n, c.get(33).n, c.len())
	}
	if c.get(1).n == 0 {
		t.Error("the root is not known")
	}
}
