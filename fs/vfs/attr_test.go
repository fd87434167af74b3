package vfs_test

import (
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// TestSetidIsClearedAtOnce: local processes do not see the bits that the
// publication will clear, nor do others afterwards.
func TestSetidIsClearedAtOnce(t *testing.T) {
	for mode, want := range map[uint32]uint32{0o6777: 0o777, 0o6767: 0o2767, 0o644: 0o644} {
		b := newBench(t)
		ino, h := b.create("f")
		b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetMode, Mode: mode}, 0)
		must(t, b.Write(b.ctx, h, []byte("x"), 0, vfs.WriteFlags{KillSetid: true}))
		here := b.attr(ino).Mode & fs.ModePerm
		b.close(h)
		if there := b.newNode().attr(ino).Mode & fs.ModePerm; here != want || there != want {
			t.Errorf("mode %o became %o here and %o there, want %o", mode, here, there, want)
		}
	}
}

// TestMtimeStaysTheSame: what stat(2) says before the close is what everybody
// sees after it.
func TestMtimeStaysTheSame(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.write(h, "abc", 0)
	before := b.attr(ino)
	b.close(h)
	if after := b.attr(ino); after.Mtime != before.Mtime || after.Size != 3 {
		t.Errorf("mtime %v became %v, size %d", before.Mtime, after.Mtime, after.Size)
	}
}

// TestMtimeChangesWithContentBelow: another node's publication changes what a
// local reader sees, so the reported mtime must change too, although the local
// one is newer.
func TestMtimeChangesWithContentBelow(t *testing.T) {
	clock := time.Unix(1_000_000, 0)
	now := func(o *vfs.Options) { o.Now = func() time.Time { return clock } }
	b := newBench(t, now)
	b.local.SetClock(func() fs.Time { return fs.TimeOf(clock) })
	other := b.newNode(now)
	ino, h := b.create("f")
	clock = clock.Add(5 * time.Second)
	b.write(h, "mine", 100)
	first := b.attr(ino)
	if again := b.attr(ino); again.Mtime != first.Mtime {
		t.Errorf("mtime %v became %v without a change", first.Mtime, again.Mtime)
	}
	clock = clock.Add(-time.Second)
	oh := other.open(ino, rdwr)
	other.write(oh, "theirs", 0)
	other.close(oh)
	second := b.attr(ino)
	if second.Mtime == first.Mtime {
		t.Error("the mtime did not change with the content")
	}
	b.close(h)
	if after := b.attr(ino); after.Mtime != second.Mtime {
		t.Errorf("mtime %v became %v by publishing", second.Mtime, after.Mtime)
	}
}
