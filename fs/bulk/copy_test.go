package bulk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/integration/tree"
)

// do runs a copy that must succeed as a whole.
func do(t testing.TB, o Options) *Report {
	t.Helper()
	rep, err := Run(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rep.FailedCount+rep.DiffCount > 0 {
		t.Fatalf("failed %q, different %q", rep.Failed, rep.Differs)
	}
	return rep
}

func local2(from, to string) Options { return Options{From: Place{Dir: from}, To: Place{Dir: to}} }

// nothing fails the test if the run changed something.
func nothing(t testing.TB, rep *Report) {
	t.Helper()
	if n := rep.Copied + rep.Linked + rep.Updated + rep.Directories + rep.Deleted + rep.Leftovers; n != 0 {
		t.Errorf("a second run is not idle: %+v", *rep)
	}
}

// blocks is what a file takes on its disk, in bytes.
func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestRandomTrees(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			src, dst := makeTree(t, seed, false), filepath.Join(t.TempDir(), "a", "dst")
			want := scan(t, src)
			rep := do(t, local2(src, dst))
			equal(t, want, dst)
			files, dirs, others, _ := tree.Count(want)
			if rep.Copied+rep.Linked != int64(files+others) || rep.Verified != rep.Copied+rep.Linked || rep.Directories != int64(dirs-1) {
				t.Errorf("%d files and others, %d directories; report %+v", files+others, dirs, *rep)
			}
			nothing(t, do(t, local2(src, dst)))
			o := local2(src, dst)
			o.Checksum = true
			nothing(t, do(t, o))

			// Another tree over it: everything that differs is made right.
			other := makeTree(t, seed+1000, false)
			o = local2(other, dst)
			o.Delete = true
			do(t, o)
			equal(t, scan(t, other), dst)
		})
	}
}

func write1(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSparseStaysSparse(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	f, err := os.Create(src + "/s")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("middle"), 40<<20); err != nil || f.Truncate(100<<20) != nil {
		t.Fatal(err)
	}
	do(t, local2(src, dst))
	equal(t, scan(t, src), dst)
	if n := blocks(t, dst+"/s"); n > 1<<20 {
		t.Errorf("the copy takes %d bytes on the disk", n)
	}
}

// TestOnlyWhatChanged: each kind of change is seen, and nothing else is touched.
func TestOnlyWhatChanged(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	for _, n := range []string{"grown", "time", "mode", "kind", "rest", "d/x", "sametime"} {
		write1(t, filepath.Join(src, n), n)
	}
	if err := unix.Setxattr(src+"/mode", "user.old", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	do(t, local2(src, dst))
	if err := unix.Removexattr(src+"/mode", "user.old"); err != nil {
		t.Fatal(err)
	}
	write1(t, src+"/grown", "has grown")
	if err := errors.Join(os.Chtimes(src+"/time", time.Time{}, time.Unix(1, 5)), os.Chmod(src+"/mode", 0o600), os.Remove(src+"/kind"),
		os.Symlink("rest", src+"/kind"), unix.Setxattr(src+"/d/x", "user.new", []byte("1"), 0)); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(src + "/sametime")
	if err != nil {
		t.Fatal(err)
	}
	write1(t, src+"/sametime", "SAMETIME")
	if err := os.Chtimes(src+"/sametime", time.Time{}, st.ModTime()); err != nil {
		t.Fatal(err)
	}
	dry := local2(src, dst)
	dry.DryRun = true
	before := scan(t, dst)
	planned := do(t, dry)
	equal(t, before, dst)
	rep := do(t, local2(src, dst))
	for _, r := range []*Report{planned, rep} {
		if r.Copied != 3 || r.Updated != 2 || r.Same != 2 {
			t.Errorf("%+v", *r)
		}
	}
	o := local2(src, dst)
	o.Checksum = true
	if rep := do(t, o); rep.Copied != 1 {
		t.Errorf("with checksums: %+v", *rep)
	}
	equal(t, scan(t, src), dst)
}

// TestHardLinksAreMade: names that were one file become one again, and what was
// one file and is no more does not stay one.
func TestHardLinksAreMade(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/a", "same")
	write1(t, src+"/b", "same")
	write1(t, src+"/c", "same")
	for _, n := range []string{"a", "b", "c"} {
		if err := os.Chtimes(src+"/"+n, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	do(t, local2(src, dst))
	if err := errors.Join(os.Remove(src+"/c"), os.Link(src+"/a", src+"/c")); err != nil {
		t.Fatal(err)
	}
	do(t, local2(src, dst))
	equal(t, scan(t, src), dst)
	if err := errors.Join(os.Link(src+"/b", src+"/d"), os.Remove(dst+"/b"), os.Link(dst+"/a", dst+"/b")); err != nil {
		t.Fatal(err) // at the destination a, b and c are one now, in the source two
	}
	do(t, local2(src, dst))
	equal(t, scan(t, src), dst)
	nothing(t, do(t, local2(src, dst)))
}

// TestLeftoversAreRemoved: of this program's, in directories that are copied,
// and nothing that only looks like it.
func TestLeftoversAreRemoved(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/d/f", "x")
	write1(t, src+"/"+TempPrefix+"01234567-1", "unfinished in the source")
	write1(t, dst+"/d/"+TempPrefix+"01234567-1f", "unfinished")
	write1(t, dst+"/d/"+TempPrefix+"mine", "somebody's")
	rep := do(t, local2(src, dst))
	names, err := filepath.Glob(dst + "/*/.*")
	if err != nil || rep.Leftovers != 1 || !slices.Equal(names, []string{dst + "/d/" + TempPrefix + "mine"}) {
		t.Errorf("%+v; there is %q", *rep, names)
	}
	if _, err := os.Stat(dst + "/" + TempPrefix + "01234567-1"); err == nil {
		t.Error("an unfinished file was copied")
	}
}

func TestDelete(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/keep", "x")
	write1(t, src+"/d/keep", "x")
	write1(t, dst+"/d/gone/deep/x", "x")
	write1(t, dst+"/d/gone/x.log", "excluded")
	write1(t, dst+"/gone", "x")
	if err := os.Symlink(src, dst+"/link"); err != nil {
		t.Fatal(err)
	}
	do(t, local2(src, dst))
	if _, err := os.Stat(dst + "/gone"); err != nil {
		t.Fatal("deleted without being told to")
	}
	o := local2(src, dst)
	o.Delete, o.Exclude = true, []string{"*.log"}
	rep := do(t, o)
	if rep.Deleted != 4 {
		t.Errorf("%+v", *rep)
	}
	if _, err := os.Stat(dst + "/d/gone/x.log"); err != nil {
		t.Errorf("what is excluded was deleted: %v", err)
	}
	o.Exclude = nil
	do(t, o)
	equal(t, scan(t, src), dst)
}

// TestNothingIsDeletedBlindly: where the source cannot be listed, all that is
// at the destination stays.
func TestNothingIsDeletedBlindly(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/d/f", "x")
	write1(t, dst+"/d/mine", "x")
	write1(t, dst+"/extra", "x")
	if err := os.Chmod(src+"/d", 0o311); err != nil {
		t.Fatal(err)
	}
	defer func() { // so that the directories can be removed
		if err := errors.Join(os.Chmod(src+"/d", 0o755), os.Chmod(dst+"/d", 0o755)); err != nil {
			t.Error(err)
		}
	}()
	o := local2(src, dst)
	o.Delete = true
	rep, err := Run(t.Context(), o, nil)
	if err != nil || rep.FailedCount == 0 || rep.Failed[0].Path != "d" || !rep.KeptBack || rep.Deleted != 1 {
		t.Errorf("%v, %+v", err, rep)
	}
	if _, err := os.Stat(dst + "/d/mine"); err != nil {
		t.Errorf("deleted although the source could not be read: %v", err)
	}
}

// TestEmptySource: a mount that is not there must not empty its own backup.
func TestEmptySource(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	do(t, local2(src, dst)) // empty onto empty is nothing to worry about
	write1(t, dst+"/d/precious", "x")
	o := local2(src, dst)
	o.Delete = true
	var usage *UsageError
	if _, err := Run(t.Context(), o, nil); !errors.As(err, &usage) {
		t.Errorf("an empty source: %v", err)
	}
	if _, err := os.Stat(dst + "/d/precious"); err != nil {
		t.Error(err)
	}
	m := filled(nil)
	if _, err := Run(t.Context(), from(m, dst), nil); !errors.Is(err, object.NotExist) {
		t.Errorf("an empty prefix: %v", err)
	}
}

// TestVanished: what goes away while the copy runs is no fault.
func TestVanished(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	for _, n := range []string{"a", "b", "d/c", "d/e"} {
		write1(t, src+"/"+n, n)
	}
	o := local2(src, dst)
	o.Workers = 1
	o.OnAction = func(_, path string) {
		if path == "a" { // b and all in d have been listed, or will not be
			if err := errors.Join(os.Remove(src+"/b"), os.RemoveAll(src+"/d")); err != nil {
				t.Error(err)
			}
		}
	}
	rep := do(t, o)
	if _, err := os.Lstat(dst + "/b"); err == nil && rep.Copied > 3 {
		t.Errorf("%+v", *rep)
	}
}

// TestVanishedDirectory: one that goes between its listing and its own.
func TestVanishedDirectory(t *testing.T) {
	src := t.TempDir()
	write1(t, src+"/a/x", "x")
	write1(t, src+"/b/y", "x")
	l, err := openLocal(Options{}, filter{}, src, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var seen []string
	for e, err := range l.walk(t.Context()) {
		if err != nil {
			t.Errorf("%s: %v", e.path, err)
		}
		if seen = append(seen, e.path); e.path == "a" {
			if err := os.RemoveAll(src + "/b"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Equal(seen, []string{"", "a", "a/x"}) {
		t.Errorf("listed %q", seen)
	}
}

// TestOthersAreNotLookedAt: directories that only the destination has cost
// nothing.
func TestOthersAreNotLookedAt(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write1(t, src+"/m", "x")
	write1(t, dst+"/a/b/c", "x")
	l, err := openLocal(Options{}, filter{}, dst, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var seen []string
	for e, err := range l.walk(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		e.skip = e.path == "a"
		seen = append(seen, e.path)
	}
	if !slices.Equal(seen, []string{"", "a"}) {
		t.Errorf("looked at %q", seen)
	}
}

// TestNewOwnerKeepsSetuid: chown(2) takes the set-id bits away.
func TestNewOwnerKeepsSetuid(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	src, dst := t.TempDir(), t.TempDir()
	for _, path := range []string{src + "/f", dst + "/f"} {
		write1(t, path, "x")
		if err := errors.Join(os.Chmod(path, 0o755|os.ModeSetuid), os.Chtimes(path, time.Time{}, time.Unix(1e9, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chown(src+"/f", 33, 33), os.Chmod(src+"/f", 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	if rep := do(t, local2(src, dst)); rep.Updated != 1 {
		t.Errorf("%+v", *rep)
	}
	equal(t, scan(t, src), dst)
}
