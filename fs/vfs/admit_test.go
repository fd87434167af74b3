package vfs_test

import (
	"context"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// TestAdmit: a write that is not admitted takes nothing, and what was taken
// before is published all the same.
func TestAdmit(t *testing.T) {
	full := false
	asked := 0
	b := newBench(t, func(o *vfs.Options) {
		o.Admit = func(_ context.Context, n int) error {
			asked += n
			if full {
				return &fs.Error{Op: "write", Kind: fs.ErrNoSpace}
			}
			return nil
		}
	})
	ino, h := b.create("f")
	b.write(h, "abc", 0)
	full = true
	if err := b.Write(b.ctx, h, []byte("defg"), 3, vfs.WriteFlags{}); fs.KindOf(err) != fs.ErrNoSpace {
		t.Errorf("Write: %v", err)
	}
	if err := b.Fsync(b.ctx, h); err != nil {
		t.Errorf("Fsync of what was taken: %v", err)
	}
	if a, _, err := b.FS.Attr(b.ctx, ino); err != nil || a.Size != 3 || asked != 7 {
		t.Errorf("%d bytes, %v; asked for %d", a.Size, err, asked)
	}
	full = false
	b.write(h, "defg", 3)
	b.Release(h)
}
