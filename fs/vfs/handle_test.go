package vfs_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

func (n *node) holds(inos ...fs.Ino) []fs.Ino {
	n.t.Helper()
	held, err := n.Holds(n.ctx, inos)
	if err != nil {
		n.t.Fatal(err)
	}
	return held
}

// TestHolds: an inode is held while it is open, or has content to publish.
func TestHolds(t *testing.T) {
	b := newBench(t)
	one, h1 := b.create("one")
	two, h2 := b.create("two")
	if got := b.holds(two, 999, one); !slices.Equal(got, []fs.Ino{two, one}) {
		t.Errorf("held: %v", got)
	}
	b.Release(h1)
	b.write(h2, "abc", 0)
	b.Release(h2)
	if got := b.holds(one, two); !slices.Equal(got, []fs.Ino{two}) {
		t.Errorf("held after release: %v, want only the unpublished one", got)
	}
	must(t, b.Drain(b.ctx))
	if got := b.holds(one, two); len(got) != 0 {
		t.Errorf("held after publication: %v", got)
	}
	dir := b.open(fs.RootIno, unix.O_RDONLY)
	if got := b.holds(fs.RootIno); len(got) != 1 {
		t.Error("an open directory is not held")
	}
	b.Release(dir)
}

// TestHoldsWaitsForCreate: between the commit of a create and the registration
// of its handle, the answer waits for the latter.
func TestHoldsWaitsForCreate(t *testing.T) {
	for name, create := range map[string]func(b *bench) (fs.Attr, vfs.Handle, error){
		"create": func(b *bench) (fs.Attr, vfs.Handle, error) {
			return b.Create(b.ctx, fs.Create{Parent: fs.RootIno, Name: "f"}, vfs.OpenFlags{Flags: rdwr})
		},
		"tmpfile": func(b *bench) (fs.Attr, vfs.Handle, error) {
			return b.Tmpfile(b.ctx, fs.Tmpfile{Parent: fs.RootIno}, vfs.OpenFlags{Flags: rdwr})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				goOn := make(chan struct{})
				b.meta.After(func(_ fs.Op, err error) error {
					<-goOn
					return err
				})
				made := async(func() fs.Attr {
					a, _, err := create(b)
					must(t, err)
					return a
				})
				synctest.Wait() // it is committed
				// The first inode of a new file system has the number after the root's.
				held := async(func() []fs.Ino { return b.holds(fs.RootIno + 1) })
				synctest.Wait()
				select {
				case got := <-held:
					t.Errorf("answered %v while a create was in flight", got)
				default:
				}
				close(goOn)
				if a := <-made; a.Ino != fs.RootIno+1 {
					t.Fatalf("made inode %d, want %d", a.Ino, fs.RootIno+1)
				}
				if got := <-held; !slices.Equal(got, []fs.Ino{fs.RootIno + 1}) {
					t.Errorf("held: %v, want the new inode", got)
				}
			})
		})
	}
}

// async runs f and sends what it returns.
func async[T any](f func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return c
}

// TestOpenOfAnOrphan: the kernel may open a file whose last name went away a
// moment ago, but not if another node was told that nobody here has it open.
func TestOpenOfAnOrphan(t *testing.T) {
	b := newBench(t)
	other, asked := b.newNode(), b.newNode()
	ino, h := b.create("f")
	b.write(h, "abc", 0)
	b.flush(h)
	must(t, b.Unlink(b.ctx, fs.Unlink{Parent: fs.RootIno, Name: "f"}))
	again := b.open(ino, unix.O_RDONLY)
	b.want(ino, "abc")
	other.want(ino, "abc") // opens it
	if held := asked.holds(ino); len(held) != 0 {
		t.Errorf("held before the open: %v", held)
	}
	if _, err := asked.Open(b.ctx, ino, vfs.OpenFlags{}); !errors.Is(err, fs.ErrStale) {
		t.Errorf("open of what was denied: %v, want %v", err, fs.ErrStale)
	}
	if held := b.holds(ino); len(held) != 1 {
		t.Errorf("held while open: %v", held)
	}
	b.close(h)
	b.Release(again)
	_, err := b.local.Do(b.ctx, fs.Reclaim{Inos: []fs.Ino{ino}})
	must(t, err)
	if _, err := b.Open(b.ctx, ino, vfs.OpenFlags{}); !errors.Is(err, fs.ErrStale) {
		t.Errorf("open after the end: %v, want %v", err, fs.ErrStale)
	}
	if s := b.Stats(); s.Handles != 0 {
		t.Errorf("%d handles are left", s.Handles)
	}
}

// TestDeniedButNamed: what got a name meanwhile can be opened.
func TestDeniedButNamed(t *testing.T) {
	b := newBench(t)
	other := b.newNode()
	a, h, err := b.Tmpfile(b.ctx, fs.Tmpfile{Parent: fs.RootIno, Mode: 0o644}, vfs.OpenFlags{Flags: rdwr})
	must(t, err)
	other.holds(a.Ino)
	_, err = b.Link(b.ctx, fs.Link{Ino: a.Ino, Parent: fs.RootIno, Name: "f"})
	must(t, err)
	other.want(a.Ino, "")
	b.close(h)
}

// TestCreateOfAnExistingFile: the kernel believed the name absent.
func TestCreateOfAnExistingFile(t *testing.T) {
	tests := []struct {
		name  string
		mode  uint32
		cred  fs.Cred
		flags uint32
		want  error
		size  uint64
	}{
		{"by root", 0, fs.Cred{}, rdwr, nil, 3},
		{"with O_TRUNC", 0, fs.Cred{}, trunc, nil, 0},
		{"with O_EXCL", 0o666, fs.Cred{}, rdwr | unix.O_EXCL, fs.ErrExist, 0},
		{"by its owner", 0o600, fs.Cred{Uid: 5, Gid: 5}, rdwr, nil, 3},
		{"by its group, to read", 0o640, fs.Cred{Uid: 6, Gid: 5}, unix.O_RDONLY, nil, 3},
		{"by its group, to write", 0o640, fs.Cred{Uid: 6, Gid: 5}, unix.O_WRONLY, fs.ErrStale, 0},
		{"by others", 0o666, fs.Cred{Uid: 6, Gid: 6}, rdwr, nil, 3},
		{"by others, to truncate", 0o664, fs.Cred{Uid: 6, Gid: 6}, unix.O_RDONLY | unix.O_TRUNC, fs.ErrStale, 0},
		{"by others, perhaps in a group with fewer rights", 0o606, fs.Cred{Uid: 6, Gid: 6}, rdwr, fs.ErrStale, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			owner := fs.Cred{Uid: 5, Gid: 5}
			a, h, err := b.Create(b.ctx, fs.Create{Parent: fs.RootIno, Name: "f", Mode: tt.mode, Cred: owner}, vfs.OpenFlags{Flags: rdwr})
			must(t, err)
			b.write(h, "abc", 0)
			b.close(h)
			got, h, err := b.Create(b.ctx, fs.Create{Parent: fs.RootIno, Name: "f", Mode: 0o777, Cred: tt.cred}, vfs.OpenFlags{Flags: tt.flags})
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("create: %v, want %v", err, tt.want)
			}
			if err == nil && (got.Ino != a.Ino || got.Size != tt.size) {
				t.Errorf("inode %d with %d bytes, want %d with %d", got.Ino, got.Size, a.Ino, tt.size)
			}
			if err == nil {
				b.newNode().want(a.Ino, "abc")
				b.close(h)
			}
		})
	}
}

func TestBadHandles(t *testing.T) {
	b := newBench(t)
	_, h := b.create("f")
	b.Release(h)
	b.Release(h)
	_, read := b.Read(b.ctx, h, make([]byte, 1), 0)
	_, seek := b.Seek(b.ctx, h, 0, vfs.SeekData)
	_, cp := b.Copy(b.ctx, h, 0, h, 0, 1)
	_, size := b.FS.SetAttr(b.ctx, vfs.SetAttr{SetAttr: fs.SetAttr{Mask: fs.SetSize}, Handle: h})
	for call, err := range map[string]error{
		"read": read, "write": b.Write(b.ctx, h, []byte("x"), 0, vfs.WriteFlags{}), "flush": b.Flush(b.ctx, h),
		"fsync": b.Fsync(b.ctx, h), "fallocate": b.Allocate(h, 0, 1, 0), "lseek": seek, "copy": cp, "ftruncate": size,
	} {
		if !errors.Is(err, fs.ErrBadHandle) {
			t.Errorf("%s: %v, want %v", call, err, fs.ErrBadHandle)
		}
	}
}

// TestLocalProcessesShareWrites: unpublished content is the inode's, not the
// handle's.
func TestLocalProcessesShareWrites(t *testing.T) {
	b := newBench(t)
	ino, h1 := b.create("f")
	h2 := b.open(ino, rdwr)
	b.write(h1, "one", 0)
	b.want(ino, "one")
	b.appendTo(h2, "two")
	b.want(ino, "onetwo")
	found, err := b.Lookup(b.ctx, fs.RootIno, "f")
	if err != nil || found.Attr.Size != 6 {
		t.Errorf("lookup: size %d, %v; want 6", found.Attr.Size, err)
	}
	b.close(h2) // publishes both
	b.newNode().want(ino, "onetwo")
	b.Release(h1)
}

// TestOTruncIsNeverSeenApart: other nodes see the old content or the new.
func TestOTruncIsNeverSeenApart(t *testing.T) {
	b := newBench(t)
	other := b.newNode()
	ino, h := b.create("f")
	b.write(h, "old", 0)
	b.close(h)
	h = b.open(ino, trunc)
	b.want(ino, "")
	other.want(ino, "old")
	b.write(h, "new!", 0)
	other.want(ino, "old")
	b.close(h)
	other.want(ino, "new!")
}

// TestOTruncOfWhatOthersWrote: what is known here about an open file may be old.
func TestOTruncOfWhatOthersWrote(t *testing.T) {
	b := newBench(t)
	other := b.newNode()
	ino, h := b.create("f") // empty
	oh := other.open(ino, rdwr)
	other.write(oh, "theirs", 0)
	other.close(oh)
	b.close(b.open(ino, trunc))
	other.want(ino, "")
	b.close(h)
}

// TestHoldsIsBounded: a create that hangs does not hang the question, and the
// answer is on the safe side.
func TestHoldsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		goOn := make(chan struct{})
		b.meta.Before(func(fs.Op) error {
			<-goOn
			return fs.ErrIO
		})
		failed := async(func() error {
			_, _, err := b.Create(b.ctx, fs.Create{Parent: fs.RootIno, Name: "f"}, vfs.OpenFlags{})
			return err
		})
		synctest.Wait()
		start := time.Now()
		if held := b.holds(7, 8); len(held) != 2 || time.Since(start) > 5*time.Second {
			t.Errorf("held %v after %v, want both", held, time.Since(start))
		}
		close(goOn)
		if err := <-failed; !errors.Is(err, fs.ErrIO) {
			t.Errorf("create: %v", err)
		}
		if held := b.holds(7, 8); len(held) != 0 {
			t.Errorf("held after the failure: %v", held)
		}
	})
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	for field, o := range map[string]vfs.Options{
		"StagingDir":     {},
		"MemoryBytesMax": {StagingDir: dir, MemoryBytesMax: -1},
		"InlineMax":      {StagingDir: dir, InlineMax: fs.InlineMax + 1},
		"PublishAfter":   {StagingDir: dir, PublishAfter: -1},
		"AppendBytesMax": {StagingDir: dir, AppendBytesMax: -1},
		"PutParallel":    {StagingDir: dir, PutParallel: -1},
		"absent":         {StagingDir: dir + "/absent"},
	} {
		if _, err := vfs.New(nil, nil, o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestLimits(t *testing.T) {
	b := newBench(t)
	ino, h := b.create("f")
	size := vfs.SetAttr{SetAttr: fs.SetAttr{Ino: ino, Mask: fs.SetSize, Size: fs.FileMax + 1}, Handle: h}
	_, trunc := b.FS.SetAttr(b.ctx, size)
	for call, err := range map[string]error{
		"write": b.Write(b.ctx, h, []byte("xy"), fs.FileMax-1, vfs.WriteFlags{}), "fallocate": b.Allocate(h, fs.FileMax, 1, 0),
		"ftruncate": trunc,
	} {
		if !errors.Is(err, fs.ErrTooBig) {
			t.Errorf("%s: %v, want %v", call, err, fs.ErrTooBig)
		}
	}
	if err := b.Allocate(h, 0, 1, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE); !errors.Is(err, fs.ErrNotSupported) {
		t.Errorf("punch a hole: %v, want %v", err, fs.ErrNotSupported)
	}
	b.close(h)
}
