package bulk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/tree"
)

// randomTree makes files, directories, links and all else below root, with
// names of any bytes; of text only if utf8.
type randomTree struct {
	t     testing.TB
	r     *rand.Rand
	utf8  bool
	files []string
	n     int
}

func (g *randomTree) name() string {
	odd := []rune("ab-.!0 ~\t\n\\\"'*[&+%é\U0001F600")
	b := []byte{}
	for range 1 + g.r.IntN(6) {
		b = append(b, string(odd[g.r.IntN(len(odd))])...)
	}
	if !g.utf8 && g.r.IntN(4) == 0 {
		b = append(b, 0xff, 1)
	}
	g.n++
	return fmt.Sprintf("%s%d", b, g.n)
}

func (g *randomTree) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *randomTree) fill(dir string, depth int) {
	for range 3 + g.r.IntN(6) {
		path := dir + "/" + g.name()
		switch k := g.r.IntN(12); {
		case k < 5:
			g.file(path)
		case k < 7 && depth > 0:
			g.must(os.Mkdir(path, 0o755))
			g.fill(path, depth-1)
		case k == 7:
			g.must(os.Symlink(g.name(), path))
		case k == 8 && len(g.files) > 0:
			g.must(os.Link(g.files[g.r.IntN(len(g.files))], path))
			continue // times and modes are the file's
		case k == 9:
			g.must(unix.Mkfifo(path, 0o640))
		case k == 10 && os.Geteuid() == 0:
			g.must(unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		default:
			g.must(os.Mkdir(path, 0o755)) // empty
		}
		g.attrs(path)
	}
	g.attrs(dir)
}

func (g *randomTree) file(path string) {
	size := []int{0, 1, 100, 4096, 70_000, 300_000}[g.r.IntN(6)]
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	g.must(os.WriteFile(path, b, 0o644))
	if g.r.IntN(4) == 0 {
		g.must(os.Truncate(path, int64(size)+1<<20)) // a hole at the end
	}
	if g.r.IntN(3) == 0 {
		g.must(unix.Setxattr(path, "user."+"key", b[:min(size, 200)], 0))
	}
	g.files = append(g.files, path)
}

func (g *randomTree) attrs(path string) {
	st, err := os.Lstat(path)
	g.must(err)
	if os.Geteuid() == 0 {
		g.must(os.Lchown(path, g.r.IntN(3)*1000, g.r.IntN(3)*33))
	}
	if st.Mode()&os.ModeSymlink == 0 {
		mode := []uint32{0o644, 0o600, 0o755, 0o4755, 0o2775, 0o1777, 0o700}[g.r.IntN(7)]
		g.must(unix.Chmod(path, mode|0o700))
	}
	at := unix.NsecToTimespec(time.Date(1995+g.r.IntN(40), 1, 1, 0, 0, 0, g.r.IntN(1e9), time.UTC).UnixNano())
	g.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}

func makeTree(t testing.TB, seed uint64, utf8 bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g := &randomTree{t: t, r: rand.New(rand.NewPCG(seed, 0)), utf8: utf8}
	g.fill(dir, 3)
	return dir
}

func scan(t testing.TB, dir string) []tree.Entry {
	t.Helper()
	es, err := tree.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

// equal compares whole trees: names, types, modes, owners, times, links,
// attributes and content.
func equal(t testing.TB, want []tree.Entry, dir string) {
	t.Helper()
	if d := tree.Diff(want, scan(t, dir), tree.Copies, 20); len(d) > 0 {
		t.Errorf("the trees differ:\n%s", strings.Join(d, "\n"))
	}
}

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
	do(t, local2(src, dst))
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
	rep, err := Run(t.Context(), local2(src, dst), nil)
	if err != nil || rep.FailedCount != 3 || !strings.Contains(rep.Failed[0].What, "--delete") || rep.Copied != 1 {
		t.Errorf("%v, %+v", err, rep)
	}
	if b, err := os.ReadFile(dst + "/b"); err != nil || string(b) != "file" {
		t.Errorf("overwritten: %q, %v", b, err)
	}
	o := local2(src, dst)
	o.Delete = true
	do(t, o)
	equal(t, scan(t, src), dst)
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
