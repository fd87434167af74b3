package vfs_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

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
	found, err := n.Lookup(n.ctx, fs.RootIno, name)
	if err != nil {
		n.t.Fatal(err)
	}
	return found.Attr
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
