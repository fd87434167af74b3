package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

const ownPrefix = "own-"

// thing is a file, a directory or a symbolic link, as its worker left it.
type thing struct {
	kind  uint32 // S_IFREG, S_IFDIR or S_IFLNK
	data  string // of a file or a link; the names in a directory
	mode  uint32
	links int
	ino   uint64 // as somebody saw it first; 0 before
	// crossed is a directory that was moved from one directory into another.
	// When its new name is looked up on another node, that node's kernel has to
	// move the dentry it has under the old one. It needs the lock of the old
	// parent for that, only tries to get it, and gives ESTALE when some call
	// holds it, twice (__d_unalias in fs/dcache.c): no answer, but no old one
	// either. Such calls are repeated and counted.
	crossed bool
}

// busyMax bounds the repetitions of a call on a directory that was moved.
const busyMax = 2000

type tally struct{ changes, looks, bad, busy int }

// torturer is one worker. It writes down operations together with what each
// must give, sends some steps of them at once, so that nothing but the thread
// that makes the calls is between a change and the look at it, and judges.
type torturer struct {
	p      *probe.Client
	lane   int
	home   int
	mounts []string
	prefix string // of its own names
	rng    *rand.Rand
	races  *races
	has    map[string]*thing // by path below the mount
	made   int

	// The path that another node changes next, with no look at it before, or "".
	again     string
	againFrom int

	ops    []probe.Op
	judges []judge
	n      tally
	told   []string
}

// judge says what is wrong with a result, or "".
type judge func(r probe.Result) string

func (w *torturer) run(until time.Time) {
	for time.Now().Before(until) && w.n.bad == 0 {
		w.ops, w.judges = nil, nil
		for range tortureSteps {
			switch k := w.rng.IntN(20); {
			case w.again != "" || k < 15:
				w.own()
			case k < 18:
				w.fight()
			default:
				w.race()
			}
		}
		rs := w.p.Go(w.lane, w.ops...).Wait()
		changed := rs[0].Start
		for i, r := range rs {
			w.n.busy += r.Repeats
			if what := w.judges[i](r); what != "" {
				w.n.bad++
				if len(w.told) < toldMax {
					w.told = append(w.told, fmt.Sprintf("%s, %v after its last change had returned: %s %s: %s", w.prefix,
						time.Duration(r.Start-changed), r.Call, r.Path, what))
				}
			}
			if _, isLook := looks[r.Call]; !isLook {
				changed = r.End
			}
		}
	}
}

// looks are the calls that change nothing.
var looks = map[probe.Call]struct{}{probe.CallStat: {}, probe.CallAccess: {}, probe.CallReadFile: {}, probe.CallReadlink: {}, probe.CallReaddir: {}}

func (w *torturer) plan(op probe.Op, j judge) {
	w.ops, w.judges = append(w.ops, op), append(w.judges, j)
}

// planChange plans a call that changes something about the paths, on a node.
func (w *torturer) planChange(node int, op probe.Op, j judge, rels ...string) {
	w.n.changes++
	for _, rel := range rels {
		// rename(2) across directories holds the lock itself that its look-up of
		// the old name would try to get. mv(1) looks first, and so does this.
		if w.has[rel].busy() > 0 {
			w.stat(node, rel)
		}
		op.Busy = max(op.Busy, w.has[rel].busy())
	}
	w.plan(op, j)
}

// look plans a call that changes nothing.
func (w *torturer) look(op probe.Op, j judge) { w.n.looks++; w.plan(op, j) }

func (th *thing) busy() int {
	if th == nil || !th.crossed {
		return 0
	}
	return busyMax
}

func (w *torturer) at(node int, rel string) string { return filepath.Join(w.mounts[node], rel) }

func ends(want unix.Errno) judge {
	return func(r probe.Result) string {
		if r.Lost != "" || r.Errno != want {
			return fmt.Sprintf("gave %v, want %s", r.Err(), probe.ErrnoName(want))
		}
		return ""
	}
}

// stat looks at attributes.
func (w *torturer) stat(node int, rel string) {
	th := w.has[rel]
	if th == nil {
		w.look(probe.Lstat(w.at(node, rel)), ends(unix.ENOENT))
		return
	}
	now := *th // as of this place in the plan
	op := probe.Lstat(w.at(node, rel))
	op.Busy = th.busy()
	w.look(op, func(r probe.Result) string {
		if r.Err() != nil {
			return fmt.Sprintf("gave %v, want a thing of mode %o", r.Err(), now.kind|now.mode)
		}
		if th.ino == 0 {
			th.ino = r.Stat.Ino
		}
		switch s := r.Stat; {
		case s.Ino != th.ino:
			return fmt.Sprintf("leads to inode %d, want %d", s.Ino, th.ino)
		case s.Mode != now.kind|now.mode:
			return fmt.Sprintf("mode %o, want %o", s.Mode, now.kind|now.mode)
		case now.kind == unix.S_IFREG && s.Size != int64(len(now.data)):
			return fmt.Sprintf("size %d, want %d", s.Size, len(now.data))
		case now.kind == unix.S_IFREG && s.Nlink != uint64(now.links):
			return fmt.Sprintf("nlink %d, want %d", s.Nlink, now.links)
		}
		return ""
	})
}

// content looks inside.
func (w *torturer) content(node int, rel string) {
	path, th := w.at(node, rel), w.has[rel]
	switch {
	case th == nil && w.rng.IntN(2) == 0:
		w.look(probe.Op{Call: probe.CallAccess, Path: path}, ends(unix.ENOENT))
		return
	case th == nil:
		w.look(probe.ReadFile(path), ends(unix.ENOENT))
		return
	}
	want, op := th.data, probe.ReadFile(path)
	switch th.kind {
	case unix.S_IFDIR:
		op = probe.Readdir(path)
	case unix.S_IFLNK:
		op = probe.Readlink(path)
	}
	op.Busy = th.busy()
	w.look(op, func(r probe.Result) string {
		if got := string(r.Data) + r.Str + strings.Join(r.Names, ","); r.Err() != nil || got != want {
			return fmt.Sprintf("shows %q (%v), want %q", got, r.Err(), want)
		}
		return ""
	})
}

// list looks at a directory. Of the names in it the worker knows its own.
func (w *torturer) list(node int, dir string) {
	var want []string
	for rel := range w.has {
		if filepath.Dir(rel) == dir {
			want = append(want, filepath.Base(rel))
		}
	}
	slices.Sort(want)
	w.look(probe.Readdir(w.at(node, dir)), func(r probe.Result) string {
		got := slices.DeleteFunc(r.Names, func(n string) bool { return !strings.HasPrefix(n, w.prefix) })
		if r.Err() != nil || !slices.Equal(got, want) {
			return fmt.Sprintf("lists %q (%v), want %q", got, r.Err(), want)
		}
		return ""
	})
}

// all looks at everything that a change of the paths shows in, in any order: a
// look may refresh what the next would have found stale.
func (w *torturer) all(node int, rels []string) {
	var fs []func()
	dirs := map[string]bool{}
	for _, rel := range rels {
		fs = append(fs, func() { w.stat(node, rel) }, func() { w.content(node, rel) })
		dirs[filepath.Dir(rel)] = true
	}
	for dir := range maps.Keys(dirs) {
		fs = append(fs, func() { w.list(node, dir) })
	}
	w.rng.Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] })
	for _, f := range fs {
		f()
	}
}

// change plans a change through one node's mount and all looks at it: twice
// before, so that whatever can be cached is, and at once afterwards. apply brings
// the worker's book up to date.
func (w *torturer) change(node int, op probe.Op, rels []string, apply func()) {
	other := (node + 1 + w.rng.IntN(len(w.mounts)-1)) % len(w.mounts)
	w.warm(node, other, rels)
	w.planChange(node, op, ends(0), rels...)
	apply()
	if w.rng.IntN(4) == 0 {
		w.again, w.againFrom = rels[w.rng.IntN(len(rels))], other
		return
	}
	w.all(other, rels)
	w.all(node, rels)
}

// warm leaves out what comes first after another node's change: there the change
// itself must get past what is cached.
func (w *torturer) warm(node, other int, rels []string) {
	if w.again != "" {
		w.again = ""
		return
	}
	for range 2 {
		w.all(other, rels)
		if w.rng.IntN(2) == 0 {
			w.all(node, rels)
		}
	}
}

// refused plans a change that must fail, by what is there.
func (w *torturer) refused(node int, op probe.Op, rel string, errno unix.Errno) {
	w.warm(node, (node+1)%len(w.mounts), []string{rel})
	w.planChange(node, op, ends(errno), rel)
}

func (w *torturer) name() string {
	return filepath.Join(tortureDir(w.rng.IntN(tortureDirs)), fmt.Sprint(w.prefix, w.rng.IntN(tortureNames)))
}

// pick is a path of its own for which ok holds, if it finds one soon.
func (w *torturer) pick(ok func(th *thing) bool) (string, bool) {
	for range 12 {
		if rel := w.name(); ok(w.has[rel]) {
			return rel, true
		}
	}
	return "", false
}

// names are all paths that lead to the thing.
func (w *torturer) names(th *thing) []string {
	var rels []string
	for rel, other := range w.has {
		if other == th {
			rels = append(rels, rel)
		}
	}
	slices.Sort(rels)
	return rels
}

// fight is a call on a name that others use as well. Any outcome that a local
// file system could give will do, and a content is whole or not there yet.
func (w *torturer) fight() {
	hot := func() string {
		return filepath.Join(tortureDir(w.rng.IntN(tortureDirs)), fmt.Sprint("hot", w.rng.IntN(tortureHot)))
	}
	const text = "everybody's"
	usual := func(r probe.Result) string {
		if r.Lost != "" || r.Errno != 0 && !slices.Contains([]unix.Errno{unix.ENOENT, unix.EEXIST, unix.EISDIR, unix.ENOTDIR}, r.Errno) {
			return fmt.Sprintf("gave %v on a contended name", r.Err())
		}
		if s := string(r.Data); s != "" && s != text {
			return fmt.Sprintf("shows %q on a contended name", s)
		}
		return ""
	}
	one, two := hot(), hot()
	for node := range w.mounts[:2] {
		w.look(probe.Lstat(w.at(node, one)), func(probe.Result) string { return "" }) // leaves what it finds in a cache
		w.look(probe.Readdir(w.at(node, filepath.Dir(two))), usual)
	}
	node := w.home
	a, b := w.at(node, one), w.at(node, two)
	ops := []probe.Op{probe.CreateExcl(a, []byte(text)), probe.WriteFile(a, []byte(text)), probe.Mkdir(a), probe.Unlink(a), probe.Unlink(a), probe.Rmdir(a),
		probe.Rename(a, b, 0), probe.Rename(a, b, unix.RENAME_EXCHANGE), probe.Rename(a, b, unix.RENAME_NOREPLACE), probe.Link(a, b)}
	op := ops[w.rng.IntN(len(ops))]
	op.Busy = busyMax
	w.planChange(node, op, func(r probe.Result) string {
		if op.Call == probe.CallLink && r.Errno == unix.EPERM { // of a directory
			return ""
		}
		return usual(r)
	})
	read := probe.ReadFile(w.at(1-node, one))
	read.Busy = busyMax
	w.look(read, usual)
}

// race tries to make the name of this moment. Whoever made it, from then on it
// is there for everybody, and is the same thing.
func (w *torturer) race() {
	k := w.races.now()
	rel := filepath.Join(tortureDir(k%tortureDirs), fmt.Sprint("race-", k))
	w.look(probe.Lstat(w.at(1-w.home, rel)), func(probe.Result) string { return "" }) // leaves its absence in a cache
	path := w.at(w.home, rel)
	ops := []probe.Op{probe.CreateExcl(path, nil), probe.Mkdir(path), probe.Symlink("nowhere", path)}
	w.planChange(w.home, ops[w.rng.IntN(len(ops))], func(r probe.Result) string {
		if r.Lost != "" || r.Errno != 0 && r.Errno != unix.EEXIST {
			return fmt.Sprintf("gave %v, want success or EEXIST", r.Err())
		}
		w.races.tried(k, w.prefix, r.Errno == 0)
		return ""
	})
	for _, node := range []int{1 - w.home, w.home, 2} {
		w.look(probe.Lstat(w.at(node, rel)), func(r probe.Result) string {
			if r.Err() != nil {
				return fmt.Sprintf("gave %v after somebody had made it", r.Err())
			}
			if first := w.races.saw(k, r.Stat.Ino); first != r.Stat.Ino {
				return fmt.Sprintf("leads to inode %d, elsewhere to %d", r.Stat.Ino, first)
			}
			return ""
		})
	}
}
