package vfs_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// TestCopy: copy_file_range(2) shares chunks, or refuses.
func TestCopy(t *testing.T) {
	big := strings.Repeat("0123456789", 20_000)
	tests := []struct {
		name       string
		src        string
		flags      uint32
		before     func(b *bench, sh, dh vfs.Handle)
		off, to, n uint64
		want       string // of the copy; "" if it is refused
		ops        string
	}{
		{name: "small file", src: "abc", n: 3, want: "abc", ops: "publish 3 grow=3"},
		{name: "more than there is", src: "abc", n: 100, want: "abc", ops: "publish 3 grow=3"},
		{name: "large file", src: big, n: 1 << 20, want: big, ops: "publish 200000@0/200000 grow=200000"},
		{name: "a part", src: big, off: 5, to: 2, n: 7, want: "\x00\x005678901", ops: "publish 7@5/200000 grow=9"},
		{name: "over a file that O_TRUNC emptied", src: "abc", flags: unix.O_TRUNC, n: 3, want: "abc", ops: "publish cut=0 3 grow=3"},
		{name: "unpublished source", src: "abc", n: 3, before: func(b *bench, sh, _ vfs.Handle) { b.write(sh, "x", 0) }},
		{name: "unpublished destination", src: "abc", n: 3, before: func(b *bench, _, dh vfs.Handle) { b.write(dh, "x", 0) }},
		{name: "a hole", src: "abc", n: 10, before: func(b *bench, sh, _ vfs.Handle) { b.write(sh, "x", 9); b.flush(sh) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			src, sh := b.create("src")
			b.write(sh, tt.src, 0)
			b.flush(sh)
			dst, dh := b.create("dst")
			if tt.flags != 0 {
				b.write(dh, "previous content", 0)
				b.close(dh)
				dh = b.open(dst, unix.O_RDWR|tt.flags)
			}
			if tt.before != nil {
				tt.before(b, sh, dh)
			}
			b.meta.Ops()
			n, err := b.Copy(b.ctx, sh, tt.off, dh, tt.to, tt.n)
			if tt.want == "" {
				if fs.KindOf(err) != fs.ErrNotSupported {
					t.Errorf("copy: %v, want %v", err, fs.ErrNotSupported)
				}
				return
			}
			if err != nil || n != uint64(len(tt.want))-tt.to {
				t.Fatalf("copied %d, %v; want %d", n, err, len(tt.want))
			}
			if got := describe(b.meta.Ops()); got != tt.ops {
				t.Errorf("operations: %s\nwant: %s", got, tt.ops)
			}
			b.want(dst, tt.want)
			b.newNode().want(dst, tt.want)
			b.close(dh)
			b.close(sh)
			b.want(src, tt.src)
		})
	}
}

// TestCopyOfWhatGoes: the source is emptied while its content is being shared. The
// copy must not rely on anybody having kept the bytes.
func TestCopyOfWhatGoes(t *testing.T) {
	b := newBench(t)
	src, sh := b.create("src")
	b.write(sh, strings.Repeat("0123456789", 20_000), 0)
	b.flush(sh)
	_, dh := b.create("dst")
	b.meta.Before(func(op fs.Op) error {
		if _, ok := op.(fs.Publish); ok {
			if _, err := b.local.Do(b.ctx, fs.SetAttr{Ino: src, Mask: fs.SetSize}); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if n, err := b.Copy(b.ctx, sh, 0, dh, 0, 1<<20); fs.KindOf(err) != fs.ErrNotSupported {
		t.Errorf("copied %d: %v, want %v", n, err, fs.ErrNotSupported)
	}
	b.meta.Before(nil)
	b.close(dh)
	b.close(sh)
}

// TestSeek pins where data and holes are found in a published file.
func TestSeek(t *testing.T) {
	b := newBench(t)
	_, h := b.create("f")
	b.write(h, "abc", 10)
	b.write(h, "def", 20)
	b.truncate(0, h, 40)
	tests := []struct {
		off    uint64
		whence vfs.Whence
		want   uint64
		kind   fs.Kind
		dirty  uint64 // answer while the file is unpublished
	}{
		{0, vfs.SeekData, 10, 0, 0},
		{11, vfs.SeekData, 11, 0, 11},
		{13, vfs.SeekData, 20, 0, 13},
		{23, vfs.SeekData, 0, fs.ErrNoDevice, 23},
		{0, vfs.SeekHole, 0, 0, 40},
		{10, vfs.SeekHole, 13, 0, 40},
		{21, vfs.SeekHole, 23, 0, 40},
		{40, vfs.SeekHole, 0, fs.ErrNoDevice, 0},
		{0, 7, 0, fs.ErrInvalid, 0},
	}
	for _, tt := range tests {
		if got, err := b.Seek(b.ctx, h, tt.off, tt.whence); got != tt.dirty {
			t.Errorf("unpublished: seek %d from %d: %d, %v; want %d", tt.whence, tt.off, got, err, tt.dirty)
		}
	}
	b.flush(h)
	for _, tt := range tests {
		got, err := b.Seek(b.ctx, h, tt.off, tt.whence)
		if got != tt.want || fs.KindOf(err) != tt.kind {
			t.Errorf("seek %d from %d: %d, %v; want %d, %v", tt.whence, tt.off, got, err, tt.want, tt.kind)
		}
	}
	b.close(h)
}
