package vfs_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// describe is a short form of operations: "publish cut=0 3 bytes +attr".
func describe(ops []fs.Op) string {
	var list []string
	for _, op := range ops {
		var s string
		var attr *fs.SetAttr
		var mask fs.AttrMask
		switch op := op.(type) {
		case fs.Publish:
			s, attr, mask = "publish", op.Attr, op.Mask
			if op.Cut != nil {
				s += fmt.Sprintf(" cut=%d", *op.Cut)
			}
			s += pieceLens(op.Pieces)
			if op.Grow != 0 {
				s += fmt.Sprintf(" grow=%d", op.Grow)
			}
		case fs.Append:
			s, attr, mask = "append"+pieceLens(op.Pieces), op.Attr, op.Mask
		case fs.SetAttr:
			s = "setattr"
		case fs.RemoveXattr:
			s = "removexattr " + op.Name
		default:
			s = strings.TrimPrefix(strings.ToLower(fmt.Sprintf("%T", op)), "fs.")
		}
		if mask&fs.KillSetid != 0 {
			s += " kill"
		}
		if attr != nil {
			s += " +attr"
		}
		list = append(list, s)
	}
	return strings.Join(list, "; ")
}

func pieceLens(pieces []fs.Piece) string {
	s := ""
	for _, p := range pieces {
		if p.Data != nil {
			s += fmt.Sprintf(" %d", p.Len)
		} else {
			s += fmt.Sprintf(" %d@%d/%d", p.Len, p.ChunkOff, p.ChunkLen)
		}
	}
	return s
}

// TestCommits pins how many operations common sequences of calls cost, and
// which. Each starts with a file of 3 bytes that is closed.
func TestCommits(t *testing.T) {
	for _, tt := range commitTests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			ino, h := b.create("f")
			b.write(h, "123", 0)
			b.close(h)
			b.meta.Ops()
			tt.do(b, ino)
			if got := describe(b.meta.Ops()); got != tt.want {
				t.Errorf("operations: %s\nwant: %s", got, tt.want)
			}
		})
	}
}

var (
	big         = strings.Repeat("x", vfs.InlineDefault+1)
	commitTests = []struct {
		name string
		do   func(b *bench, ino fs.Ino)
		want string
	}{
		{"open and close", func(b *bench, ino fs.Ino) { b.close(b.open(ino, rdwr)) }, ""},
		{"write and close", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "abc", 0)
			b.write(h, "de", 3)
			b.close(h)
		}, "publish 5"},
		{"flush twice", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "abc", 0)
			b.flush(h)
			b.flush(h)
			b.close(h)
		}, "publish 3"},
		{"replace the content", func(b *bench, ino fs.Ino) {
			h := b.open(ino, trunc)
			b.write(h, "de", 0)
			b.close(h)
		}, "publish cut=0 2"},
		{"only truncate", func(b *bench, ino fs.Ino) { b.close(b.open(ino, trunc)) }, "publish cut=0"},
		{"truncate an empty file", func(b *bench, ino fs.Ino) {
			b.close(b.open(ino, trunc))
			b.meta.Ops()
			b.close(b.open(ino, trunc))
		}, ""},
		{"cp -p", func(b *bench, ino fs.Ino) {
			h := b.open(ino, trunc)
			b.write(h, "abc", 0)
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetAtime | fs.SetMtime, Mtime: fs.Time{Sec: 9}}, h)
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetMode, Mode: 0o644}, h)
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetUid | fs.SetGid}, h)
			b.close(h)
		}, "publish cut=0 3 +attr"},
		{"chmod between O_TRUNC and the first write", func(b *bench, ino fs.Ino) {
			h := b.open(ino, trunc)
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetMode, Mode: 0o600}, h)
			b.write(h, "abc", 0)
			b.close(h)
		}, "setattr; publish cut=0 3"},
		{"chmod to the same mode", func(b *bench, ino fs.Ino) {
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetMode, Mode: 0o644}, 0)
		}, ""},
		{"chmod to another mode", func(b *bench, ino fs.Ino) {
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetMode, Mode: 0o640}, 0)
		}, "setattr"},
		{"chown to the same owner", func(b *bench, ino fs.Ino) {
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetUid | fs.SetGid | fs.KillSetid}, 0)
		}, ""},
		{"set the times twice", func(b *bench, ino fs.Ino) {
			for range 2 {
				b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetAtime | fs.SetMtime, Mtime: fs.Time{Sec: 9}}, 0)
			}
		}, "setattr"},
		{"truncate by name", func(b *bench, ino fs.Ino) {
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetSize, Size: 1}, 0)
		}, "setattr"},
		{"truncate by name while written", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "abcdef", 0)
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetSize, Size: 4}, 0)
			b.close(h)
		}, "publish cut=4 4 grow=4"},
		{"ftruncate down and up", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "abcdef", 0)
			b.truncate(ino, h, 2)
			b.truncate(ino, h, 10)
			b.close(h)
		}, "publish cut=2 2 grow=10"},
		{"appends", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.appendTo(h, "one\n")
			b.appendTo(h, "two\n")
			b.close(h)
		}, "append 8"},
		{"appends between writes", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "a", 0)
			b.appendTo(h, "bc")
			b.write(h, "d", 1)
			b.setAttr(fs.SetAttr{Ino: ino, Mask: fs.SetMtime}, h)
			b.close(h)
		}, "publish 1; append 2; publish 1 +attr"},
		{"holes between writes", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "a", 100)
			b.write(h, "b", 300)
			b.write(h, "c", 301)
			b.close(h)
		}, "publish 1 2"},
		{"more than fits the log", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, big, 10)
			b.close(h)
		}, "publish 32769@0/32769"},
		{"small ranges share a chunk", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, big, 10)
			b.write(h, "tail", 100_000)
			b.write(h, "far", 10<<20)
			b.close(h)
		}, "publish 32769@0/32776 4@32769/32776 3@32773/32776"},
		{"chunks are cut at multiples of their size", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, strings.Repeat("y", fs.ChunkMax), fs.ChunkMax-10)
			b.close(h)
		}, "publish 10@0/4194304 4194294@10/4194304"},
		{"O_SYNC", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			if err := b.Write(b.ctx, h, []byte("abc"), 0, vfs.WriteFlags{Sync: true}); err != nil {
				b.Fatal(err)
			}
			b.meta.Ops()
			b.close(h)
		}, ""},
		{"write by an unprivileged process", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			if err := b.Write(b.ctx, h, []byte("abc"), 0, vfs.WriteFlags{KillSetid: true}); err != nil {
				b.Fatal(err)
			}
			b.close(h)
		}, "publish 3 kill"},
		{"write to a file with capabilities", func(b *bench, ino fs.Ino) {
			must(b, b.SetXattr(b.ctx, fs.SetXattr{Ino: ino, Name: "security.capability", Value: []byte("x")}))
			b.meta.Ops()
			h := b.open(ino, rdwr)
			b.write(h, "abc", 0)
			b.close(h)
		}, "removexattr security.capability; publish 3"},
		{"write nothing", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			b.write(h, "", 0)
			b.close(h)
		}, ""},
		{"fallocate", func(b *bench, ino fs.Ino) {
			h := b.open(ino, rdwr)
			must(b, b.Allocate(h, 0, 100, 0))
			must(b, b.Allocate(h, 0, 200, unix.FALLOC_FL_KEEP_SIZE))
			b.close(h)
		}, "publish grow=100"},
	}
)
