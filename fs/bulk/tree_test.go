package bulk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
