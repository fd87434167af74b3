package vfs_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// R23: O_TRUNC is part of the publication.
func TestTruncateOfAnEmptyFileGoesWithTheWrite(t *testing.T) {
	b := newBench(t)
	other := b.newNode()
	ino, h := b.create("f")
	b.close(h)
	h1, h2 := b.open(ino, trunc), other.open(ino, trunc) // both see an empty file
	b.write(h1, "AAAAAAAAAA", 0)
	b.close(h1)
	other.write(h2, "bbb", 0)
	other.close(h2)
	b.want(ino, "bbb")
}

// An append on such a handle cuts as well.
func TestTruncateOfAnEmptyFileGoesWithTheAppend(t *testing.T) {
	b := newBench(t)
	other := b.newNode()
	ino, h := b.create("f")
	b.close(h)
	h1, h2 := b.open(ino, trunc), other.open(ino, trunc)
	b.write(h1, "AAAAAAAAAA", 0)
	b.close(h1)
	other.appendTo(h2, "bbb")
	other.close(h2)
	b.want(ino, "bbb")
}

// A publication that is known to be committed, but not to be seen everywhere, is
// an error of close, and is not sent again: that would append it twice.
func TestCommittedLateIsNotSentAgain(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	b.appendTo(h, "line\n")
	var n atomic.Int32
	b.meta.After(func(op fs.Op, err error) error {
		if _, ok := op.(fs.Append); ok && n.Add(1) == 1 {
			return &fs.Error{Op: "propose", Kind: fs.ErrIO} // the result comes with it
		}
		return err
	})
	if err := b.Flush(b.ctx, h); !errors.Is(err, fs.ErrIO) {
		t.Errorf("flush: %v, want %v", err, fs.ErrIO)
	}
	b.flush(h)
	b.want(ino, "line\n")
	if n.Load() != 1 {
		t.Errorf("%d appends were sent", n.Load())
	}
	b.Release(h)
}
