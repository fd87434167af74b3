package metatest

import (
	"context"
	"errors"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func reopen(t *testing.T, dir string) *Local {
	t.Helper()
	kv, err := meta.LoadMemKV(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenLocal(kv)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLocalWritesAndReads(t *testing.T) {
	l, err := NewLocal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx := context.Background()
	r, err := l.Do(ctx, fs.Create{Parent: fs.RootIno, Name: "f", Mode: 0o644, Excl: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(ctx, fs.Create{Parent: fs.RootIno, Name: "f", Excl: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second exclusive create: %v, want %v", err, fs.ErrExist)
	}
	for i, want := range []uint64{0, 5} {
		a, err := l.Do(ctx, fs.Append{Ino: r.Attr.Ino, Pieces: []fs.Piece{{Len: 5, Data: []byte("hello")}}})
		if err != nil || a.Offset != want {
			t.Errorf("append %d at %d, %v, want %d", i, a.Offset, err, want)
		}
	}
	_, err = l.Read(ctx, func(v fs.View) error {
		a, err := v.Lookup(fs.RootIno, "f")
		if err != nil {
			return err
		}
		x, err := v.Extents(a.Ino, 0, 100)
		if err != nil {
			return err
		}
		if a.Size != 10 || len(x) != 1 {
			t.Errorf("size %d in %d extents, want 10 in 1", a.Size, len(x))
			return nil
		}
		c, err := v.Chunk(x[0].Chunk)
		if string(c.Inline) != "hellohello" {
			t.Errorf("content %q", c.Inline)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLocalContinuesAStore(t *testing.T) {
	dir := t.TempDir()
	l, err := NewLocal()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, name := range []string{"a", "b", "c"} {
		if _, err := l.Do(ctx, fs.Mkdir{Parent: fs.RootIno, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.State().Checkpoint(dir + "/copy"); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, dir+"/copy")
	if _, err := l.Do(ctx, fs.Mkdir{Parent: fs.RootIno, Name: "d"}); err != nil {
		t.Errorf("mkdir after reopening: %v", err)
	}
	names, err := l.State().View().List(fs.RootIno, 0, 10)
	if err != nil || len(names) != 4 {
		t.Errorf("%d names, %v, want 4", len(names), err)
	}
}
