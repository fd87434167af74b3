package vfs_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// TestFailedPublicationIsKept: content survives failures in local memory, is
// readable, and goes out when the fault is over.
func TestFailedPublicationIsKept(t *testing.T) {
	for _, kind := range []fs.Kind{fs.ErrIO, fs.ErrNoSpace, fs.ErrQuota, fs.ErrReadOnly} {
		t.Run(kind.Error(), func(t *testing.T) {
			b := newBench(t)
			other := b.newNode()
			ino, h := b.create("f")
			b.write(h, "abc", 0)
			b.appendTo(h, "def")
			b.meta.Before(func(op fs.Op) error {
				if _, ok := op.(fs.Append); ok {
					return kind
				}
				return nil
			})
			if err := b.Flush(b.ctx, h); !errors.Is(err, kind) {
				t.Fatalf("flush: %v, want %v", err, kind)
			}
			b.want(ino, "abcdef")
			other.want(ino, "abc")
			b.meta.Before(nil)
			b.background()
			eventually(t, "the background publishes it", func() bool { return b.Stats().DirtyInodes == 0 })
			other.want(ino, "abcdef")
			if got := describe(b.meta.Ops()); strings.Count(got, "publish 3") != 1 {
				t.Errorf("operations: %s; want the first part only once", got)
			}
			b.close(h)
		})
	}
}

// TestGoneInodeLosesContent: ErrStale cannot get better. The writer is told,
// once per handle.
func TestGoneInodeLosesContent(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	second := b.open(ino, rdwr)
	b.write(h, "abc", 0)
	b.meta.Before(func(fs.Op) error { return fs.ErrStale })
	for _, h := range []vfs.Handle{h, second} {
		if err := b.Flush(b.ctx, h); !errors.Is(err, fs.ErrStale) {
			t.Errorf("flush: %v, want %v", err, fs.ErrStale)
		}
		if err := b.Flush(b.ctx, h); err != nil {
			t.Errorf("flush again: %v", err)
		}
	}
	b.meta.Before(nil)
	if s := b.Stats(); s.DirtyInodes != 0 || s.MemoryBytes != 0 {
		t.Errorf("still %d inodes with %d bytes of memory", s.DirtyInodes, s.MemoryBytes)
	}
	b.want(ino, "")
}

// TestLossTakesOnlyTheRest: what was published before the fault, and what is
// written after it, stays.
func TestLossTakesOnlyTheRest(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.write(h, "abc", 0)
	b.appendTo(h, "lost")
	b.meta.Before(func(op fs.Op) error {
		if _, ok := op.(fs.Append); ok {
			b.write(h, "d", 3)
			return fs.ErrStale
		}
		return nil
	})
	if err := b.Flush(b.ctx, h); !errors.Is(err, fs.ErrStale) {
		t.Errorf("flush: %v, want %v", err, fs.ErrStale)
	}
	b.meta.Before(nil)
	b.want(ino, "abcd")
	b.close(h)
	b.newNode().want(ino, "abcd")
}

// TestRefusedAttributesKeepContent: a chown that is refused must not take the
// content in the same operation with it.
func TestRefusedAttributesKeepContent(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.write(h, "abc", 0)
	b.meta.Before(func(op fs.Op) error {
		if p, ok := op.(fs.Publish); ok && p.Attr != nil {
			return fs.ErrPermission
		}
		return nil
	})
	_, err := b.SetAttr(b.ctx, vfs.SetAttr{SetAttr: fs.SetAttr{Ino: ino, Mask: fs.SetUid, Uid: 7}})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("chown: %v, want %v", err, fs.ErrPermission)
	}
	b.close(h)
	b.newNode().want(ino, "abc")
}

// TestBackgroundPublishes lists what makes the background publish.
func TestBackgroundPublishes(t *testing.T) {
	tests := []struct {
		name string
		set  func(o *vfs.Options)
		do   func(b *bench, h vfs.Handle)
	}{
		{"age", func(o *vfs.Options) { o.PublishAfter = time.Millisecond }, func(b *bench, h vfs.Handle) { b.write(h, "abc", 0) }},
		{"long append", func(o *vfs.Options) { o.AppendBytesMax = 3 }, func(b *bench, h vfs.Handle) { b.appendTo(h, "abc") }},
		{"release", func(o *vfs.Options) {}, func(b *bench, h vfs.Handle) { b.write(h, "abc", 0); b.Release(h) }},
		{"many ranges", func(o *vfs.Options) {}, func(b *bench, h vfs.Handle) {
			for i := range uint64(fs.ExtentsMax) {
				b.write(h, "x", 2*i)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, func(o *vfs.Options) { o.PublishAfter = time.Hour; tt.set(o) })
			b.background()
			_, h := b.create("f")
			tt.do(b, h)
			eventually(t, "it is published", func() bool { return b.Stats().Publications > 0 })
		})
	}
}

// TestStopDoesNotAbandon: when the background is told to stop, it waits for an
// append in flight. Its outcome would be unknown otherwise, and Drain would send
// it again.
func TestStopDoesNotAbandon(t *testing.T) {
	b := newBench(t, func(o *vfs.Options) { o.PublishAfter = time.Millisecond })
	ino, h := b.create("f")
	flying, land := make(chan struct{}), make(chan struct{})
	b.meta.Before(func(fs.Op) error {
		close(flying)
		<-land
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := async(func() error { return b.Run(ctx) })
	b.appendTo(h, "line\n")
	<-flying
	cancel()
	select {
	case <-done:
		t.Error("Run returned with an append in flight")
	default:
	}
	close(land)
	must(t, <-done)
	b.meta.Before(nil)
	must(t, b.Drain(t.Context()))
	b.want(ino, "line\n")
	if got := describe(b.meta.Ops()); got != "create; append 5" {
		t.Errorf("operations: %s", got)
	}
}

// TestManyRanges: more ranges than one operation may carry become several.
func TestManyRanges(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.write(h, "old content", 0)
	b.close(h)
	b.meta.Ops()
	h = b.open(ino, trunc)
	const n = fs.ExtentsMax + 100
	want := make([]byte, 3*n-2)
	for i := range uint64(n) {
		b.write(h, "x", 3*i)
		want[3*i] = 'x'
	}
	b.close(h)
	ops := b.meta.Ops()
	if len(ops) != 2 || len(ops[0].(fs.Publish).Pieces) != fs.ExtentsMax || len(ops[1].(fs.Publish).Pieces) != 100 {
		t.Errorf("%d operations", len(ops))
	}
	b.newNode().want(ino, string(want))
}

// TestWritesDuringPublication: a publication in flight neither blocks writers
// nor takes their bytes with it, and readers see both.
func TestWritesDuringPublication(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.write(h, "abc", 0)
	during := false
	b.meta.Before(func(op fs.Op) error {
		if _, ok := op.(fs.Publish); ok && !during {
			during = true
			b.write(h, "XY", 2)
			b.want(ino, "abXY")
		}
		return nil
	})
	b.flush(h)
	if !during {
		t.Fatal("nothing was published")
	}
	b.want(ino, "abXY")
	b.newNode().want(ino, "abc")
	b.close(h)
	b.newNode().want(ino, "abXY")
}

// TestStreams: content far larger than memory goes through a bounded number of
// chunk buffers.
func TestStreams(t *testing.T) {
	b := newBench(t, func(o *vfs.Options) { o.MemoryBytesMax = 1 << 20; o.PutParallel = 3 })
	ino, h := b.create("f")
	block := strings.Repeat("0123456789abcdef", 1<<16)
	const blocks = 96
	for i := range uint64(blocks) {
		b.write(h, block, i<<20)
		if s := b.Stats(); s.MemoryBytes > 1<<20 {
			t.Fatalf("%d bytes in memory", s.MemoryBytes)
		}
	}
	b.flush(h)
	puts, peak := b.chunks.Count()
	if puts != blocks/4 || peak > 3 {
		t.Errorf("%d chunks, %d at a time; want %d, at most 3", puts, peak, blocks/4)
	}
	p := make([]byte, 1<<20)
	for i := range uint64(blocks) {
		if n, err := b.Read(b.ctx, h, p, i<<20); n != len(p) || err != nil || string(p) != block {
			t.Fatalf("block %d: %d bytes, %v", i, n, err)
		}
	}
	if a := b.attr(ino); a.Size != blocks<<20 || a.Bytes != a.Size {
		t.Errorf("size %d, %d bytes", a.Size, a.Bytes)
	}
	b.close(h)
}

// TestDrain: what is unpublished anywhere is published.
func TestDrain(t *testing.T) {
	b := newBench(t)
	var inos []fs.Ino
	for i := range 20 {
		ino, h := b.create(fmt.Sprint(i))
		b.write(h, "abc", 0)
		if i%2 == 0 {
			b.Release(h)
		}
		inos = append(inos, ino)
	}
	must(t, b.Drain(b.ctx))
	other := b.newNode()
	for _, ino := range inos {
		other.want(ino, "abc")
	}
	if s := b.Stats(); s.DirtyInodes != 0 || s.Handles != 10 {
		t.Errorf("%d unpublished, %d handles; want 0, 10", s.DirtyInodes, s.Handles)
	}
	h := b.open(inos[0], rdwr)
	b.write(h, "x", 0)
	b.meta.Before(func(fs.Op) error { return fs.ErrIO })
	if err := b.Drain(b.ctx); !errors.Is(err, fs.ErrIO) {
		t.Errorf("drain without a cluster: %v, want %v", err, fs.ErrIO)
	}
	b.meta.Before(nil)
	must(t, b.Drain(b.ctx))
}

// TestFsyncOfTheSameBytesAgain: that a chunk was on stable storage says nothing once
// nobody had to keep it, and others have brought the same bytes since.
func TestFsyncOfTheSameBytesAgain(t *testing.T) {
	text := strings.Repeat("x", 1<<20)
	hash := fs.Hash(sha256.Sum256([]byte(text)))
	for _, row := range []struct {
		name   string
		holder fs.NodeID
		forget bool // the chunk, so that another generation begins
		puts   int
	}{
		{"the same chunk", "local", false, 0},
		{"other holders", "web9", false, 1},
		{"another generation", "local", true, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			ino, h := b.create("f")
			b.write(h, text, 0)
			must(t, b.Fsync(b.ctx, h))
			b.close(h)
			do := func(op fs.Op) fs.Index {
				t.Helper()
				res, err := b.local.Do(b.ctx, op)
				if err == nil && res.Kind != fs.OK {
					err = res.Kind
				}
				must(t, err)
				return res.Index
			}
			extents, err := b.local.State().View().Extents(ino, 0, 1<<20)
			must(t, err)
			id := extents[0].Chunk
			do(fs.SetAttr{Ino: ino, Mask: fs.SetSize})
			if row.forget {
				do(fs.Condemn{Chunks: []fs.ChunkID{id}})
				do(fs.Forget{Chunks: []fs.ChunkID{id}})
			}
			do(fs.Publish{Ino: ino, Pieces: []fs.Piece{{Len: 1 << 20, Hash: hash, ChunkLen: 1 << 20, Holders: []fs.NodeID{row.holder}}}})
			puts, _ := b.chunks.Count()
			for range 2 { // the second finds it done
				r := b.open(ino, unix.O_RDONLY)
				must(t, b.Fsync(b.ctx, r))
				b.close(r)
			}
			if again, _ := b.chunks.Count(); again != puts+row.puts {
				t.Errorf("fsync stored %d chunks, want %d", again-puts, row.puts)
			}
		})
	}
}

// TestFsync: after fsync(2) no chunk of the file is without fsync, also those
// that an earlier close published.
func TestFsync(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.write(h, strings.Repeat("x", 1<<20), 0)
	b.close(h)
	if n := b.chunks.Unsynced(); n != 1 {
		t.Fatalf("%d chunks without fsync after a close, want 1", n)
	}
	h = b.open(ino, unix.O_RDONLY)
	must(t, b.Fsync(b.ctx, h))
	if n := b.chunks.Unsynced(); n != 0 {
		t.Errorf("%d chunks without fsync after fsync", n)
	}
	puts, _ := b.chunks.Count()
	must(t, b.Fsync(b.ctx, h))
	if again, _ := b.chunks.Count(); again != puts {
		t.Errorf("the second fsync stored %d chunks", again-puts)
	}
	w := b.open(ino, rdwr)
	b.write(w, strings.Repeat("y", 1<<20), 0)
	must(t, b.Fsync(b.ctx, w))
	if n := b.chunks.Unsynced(); n != 0 {
		t.Errorf("%d chunks without fsync after write and fsync", n)
	}
	if again, _ := b.chunks.Count(); again != puts+1 {
		t.Errorf("write and fsync stored %d chunks, want 1", again-puts)
	}
}
