package bulk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestInTheWay(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/a", "file")
	write1(t, src+"/b/x", "in a directory")
	write1(t, src+"/ok", "x")
	write1(t, dst+"/a/x", "in a directory")
	write1(t, dst+"/b", "file")
	if err := os.Symlink("ok", src+"/l"); err != nil {
		t.Fatal(err)
	}
	write1(t, dst+"/l/x", "x")
	if err := os.Link(src+"/ok", src+"/zz"); err != nil {
		t.Fatal(err)
	}
	write1(t, dst+"/zz/x", "x")
	rep, err := Run(t.Context(), local2(src, dst), nil)
	if err != nil || rep.FailedCount != 4 || !strings.Contains(rep.Failed[0].What, "--delete") || rep.Copied != 1 {
		t.Errorf("%v, %+v", err, rep)
	}
	if b, err := os.ReadFile(dst + "/b"); err != nil || string(b) != "file" {
		t.Errorf("overwritten: %q, %v", b, err)
	}
	if left, err := filepath.Glob(dst + "/" + TempPrefix + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	o := local2(src, dst)
	o.Delete = true
	do(t, o)
	equal(t, scan(t, src), dst)
}

// TestFirstNameFails: then the next one is the file that the others link to.
func TestFirstNameFails(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/a", "content")
	if err := errors.Join(os.Link(src+"/a", src+"/b"), os.Link(src+"/a", src+"/c")); err != nil {
		t.Fatal(err)
	}
	write1(t, dst+"/a/x", "in the way")
	rep, err := Run(t.Context(), local2(src, dst), nil)
	if err != nil || rep.FailedCount != 1 || rep.Copied != 1 || rep.Linked != 1 || rep.DiffCount != 0 {
		t.Errorf("%v, %+v", err, rep)
	}
}

// TestNoWayOut: a link in the destination does not lead the copy out of it.
func TestNoWayOut(t *testing.T) {
	src, dst, outside := t.TempDir(), t.TempDir(), t.TempDir()
	write1(t, src+"/d/f", "x")
	if err := os.Symlink(outside, dst+"/d"); err != nil {
		t.Fatal(err)
	}
	rep, err := Run(t.Context(), local2(src, dst), nil)
	if err != nil || rep.FailedCount == 0 {
		t.Errorf("%v, %+v", err, rep)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside is %v, %v", left, err)
	}
}

func TestFullDestination(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	src, dst := t.TempDir(), t.TempDir()
	for i := range 20 {
		write1(t, fmt.Sprintf("%s/%02d", src, i), strings.Repeat("x", 200<<10))
	}
	if err := unix.Mount("tmpfs", dst, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dst, unix.MNT_DETACH)
	o := local2(src, dst)
	o.Workers = 3
	rep, err := Run(t.Context(), o, nil)
	if !errors.Is(err, unix.ENOSPC) || rep == nil || rep.Copied == 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
	for _, e := range scan(t, dst) {
		if e.Mode&unix.S_IFMT == unix.S_IFREG && e.Size != 200<<10 {
			t.Errorf("%s has %d bytes: it is not whole", e.Path, e.Size)
		}
	}
	if err := unix.Mount("", dst, "", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	if again := do(t, o); again.Same < rep.Copied || again.Copied+again.Same != 20 {
		t.Errorf("first %+v, then %+v", *rep, *again)
	}
}

// TestChangesMeanwhile: the verification sees what happened after the copy.
func TestChangesMeanwhile(t *testing.T) {
	for name, change := range map[string]func(dst string) error{
		"content":  func(dst string) error { return flip(dst + "/b") },
		"removed":  func(dst string) error { return os.Remove(dst + "/b") },
		"mode":     func(dst string) error { return os.Chmod(dst+"/b", 0o600) },
		"untimely": func(dst string) error { return os.Chtimes(dst+"/b", time.Time{}, time.Unix(7, 7)) },
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := t.TempDir(), t.TempDir()
			write1(t, src+"/a", "one")
			write1(t, src+"/b", "two")
			r, err := newRun(Options{From: Place{Dir: src}, To: Place{Dir: dst}, Workers: 2, Verify: VerifyContent}, new(Progress))
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			if err := r.copyAll(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if s := r.p.Look(); s.Files != 2 || s.Bytes != 6 || s.AllFiles > 2 {
				t.Errorf("progress %+v", s)
			}
			if err := change(dst); err != nil {
				t.Fatal(err)
			}
			if err := r.verifyAll(t.Context()); err != nil || r.rep.DiffCount == 0 || r.rep.Differs[0].Path == "a" {
				t.Errorf("%v, %+v", err, r.rep)
			}
		})
	}
}

// flip changes a bit and leaves the times alone, as a fault of a disk does.
func flip(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[0] ^= 1
	return errors.Join(os.WriteFile(path, b, 0o644), os.Chtimes(path, time.Time{}, st.ModTime()))
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	write1(t, dir+"/a/x", "x")
	if err := os.Symlink(dir+"/a", dir+"/l"); err != nil {
		t.Fatal(err)
	}
	var usage *UsageError
	for _, o := range []Options{
		local2(dir+"/a", dir+"/a"), local2(dir, dir+"/a/new"), local2(dir+"/a", dir), local2(dir+"/l", dir+"/a/y"), {},
		{From: Place{Dir: dir + "/a"}, To: Place{Dir: t.TempDir()}, Verify: "hard"}, {From: Place{Dir: dir + "/a"}, To: Place{Dir: t.TempDir()}, Exclude: []string{"{"}},
	} {
		if _, err := Run(t.Context(), o, nil); !errors.As(err, &usage) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Run(t.Context(), local2(dir+"/none", t.TempDir()), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
	other, err := openLocal(Options{}, filter{}, dir+"/a", true)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if _, err := Run(t.Context(), local2(t.TempDir(), dir+"/a"), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, local2(dir+"/a", t.TempDir()), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestChangedWhileRead: a file that is written to meanwhile is not given its
// name, for what was read may be of two versions.
func TestChangedWhileRead(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/log", strings.Repeat("x", 3*bufferSize))
	from, err := openLocal(Options{}, filter{}, src, false)
	if err != nil {
		t.Fatal(err)
	}
	defer from.close()
	to, err := openLocal(Options{}, filter{}, dst, true)
	if err != nil {
		t.Fatal(err)
	}
	defer to.close()
	want := &entry{path: "log"}
	if err := from.stat(from.fd, "log", want); err != nil {
		t.Fatal(err)
	}
	c, err := from.open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.wrote = func(int64) { write1(t, src+"/log", strings.Repeat("y", 3*bufferSize)) }
	d := &dir{want: &entry{mode: dirMode}, fd: -1}
	if err := to.ensure(d); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(d.fd)
	for _, have := range []*entry{nil, {}} { // without a name, and with a temporary one
		if _, _, err := to.put(t.Context(), d, want, have, c); !errors.Is(err, errChanged) {
			t.Errorf("%v", err)
		}
	}
	if left, err := os.ReadDir(dst); err != nil || len(left) > 0 {
		t.Errorf("there is %v, %v", left, err)
	}
}
