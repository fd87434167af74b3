package vfs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
	big := strings.Repeat("x", fs.InlineMax+1)
	tests := []struct {
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
	for _, tt := range tests {
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

func (n *node) setAttr(q fs.SetAttr, h vfs.Handle) fs.Attr {
	n.t.Helper()
	a, err := n.FS.SetAttr(n.ctx, vfs.SetAttr{SetAttr: q, Handle: h})
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

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

// TestReaderInTheMomentOfTheCommit: between the commit of an append and the
// removal of its segment, a reader must see its bytes once, not twice.
func TestReaderInTheMomentOfTheCommit(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	read := make(chan string)
	b.meta.After(func(op fs.Op, err error) error {
		if _, ok := op.(fs.Append); ok {
			b.meta.After(nil)
			reading := make(chan struct{})
			b.meta.AfterRead(func() {
				b.meta.AfterRead(nil)
				close(reading)
			})
			go func() { read <- b.content(ino) }()
			<-reading // the reader has the state with the append
		}
		return err
	})
	b.appendTo(h, "line\n")
	b.flush(h)
	if got := <-read; got != "line\n" {
		t.Errorf("the reader saw %q", got)
	}
	b.close(h)
}

// TestReaderBeforeTheCommit: a reader that got the state without an operation
// must not miss its bytes because the segment is gone by the time it looks.
func TestReaderBeforeTheCommit(t *testing.T) {
	for name, read := range map[string]func(b *bench, ino fs.Ino, h vfs.Handle) uint64{
		"read": func(b *bench, _ fs.Ino, h vfs.Handle) uint64 {
			n, err := b.Read(b.ctx, h, make([]byte, 10), 0)
			must(b, err)
			return uint64(n)
		},
		"stat":   func(b *bench, ino fs.Ino, _ vfs.Handle) uint64 { return b.attr(ino).Size },
		"lookup": func(b *bench, _ fs.Ino, _ vfs.Handle) uint64 { return b.lookup("f").Size },
	} {
		for _, last := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, last close %t", name, last), func(t *testing.T) {
				b := newBench(t)
				ino, h := b.create("f")
				b.write(h, "abc", 0)
				reader := h
				if last && name != "read" {
					reader = 0
				} else {
					reader = b.open(ino, unix.O_RDONLY)
				}
				b.meta.AfterRead(func() {
					b.meta.AfterRead(nil)
					b.close(h)
				})
				if size := read(b, ino, reader); size != 3 {
					t.Errorf("the reader saw %d bytes, want 3", size)
				}
			})
		}
	}
}

func (n *node) lookup(name string) fs.Attr {
	n.t.Helper()
	a, err := n.Lookup(n.ctx, fs.RootIno, name)
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

// TestReaderDoesNotWaitForEver: while an operation hangs, readers are served.
func TestReaderDoesNotWaitForEver(t *testing.T) {
	b := newBench(t)
	other := b.newNode()
	ino, h := b.create("f")
	flying, land := make(chan struct{}), make(chan struct{})
	b.meta.Before(func(op fs.Op) error {
		if p, ok := op.(fs.Append); ok && string(p.Pieces[0].Data) == "mine\n" {
			close(flying)
			<-land
		}
		return nil
	})
	b.appendTo(h, "mine\n")
	flushed := make(chan error)
	go func() { flushed <- b.Flush(b.ctx, h) }()
	<-flying
	oh := other.open(ino, rdwr)
	other.appendTo(oh, "theirs\n")
	other.close(oh)
	b.want(ino, "theirs\nmine\n")
	close(land)
	must(t, <-flushed)
	b.want(ino, "theirs\nmine\n")
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
