package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// warmUps is how many untimed passes come first. wpfs lets the kernel keep an
// absent name, and a file in a directory that the node has changed, from the
// second time on that it is asked for.
const warmUps = 2

const warmHow = "; passes on the local file system and each node in turn, after two untimed ones, until the phase has lasted its least time"

var (
	statAll  = measure{Name: "stat, all files, warm", Unit: "us/file", Goal: goal{Speed: 0.75}, How: "lstat of each file of the tree by its path, one thread" + warmHow}
	statNone = measure{Name: "stat, missing names, warm", Unit: "us/file", Goal: goal{Speed: 0.75}, How: "lstat of 3000 names that are not there, in all directories of the tree, one thread" + warmHow}
	readAll  = measure{Name: "open, read, close, warm", Unit: "us/file", Goal: goal{Speed: 0.12}, How: "each PHP file, one read for up to 256 KiB, one thread" + warmHow}
	listAll  = measure{Name: "readdir and lstat, warm", Unit: "us/entry", Goal: goal{Speed: 0.6}, How: "the whole tree as find does it: openat, getdents, lstat of each name in its open directory, one thread" + warmHow}
	storm1   = measure{Name: "include storm, 1 worker", Unit: "req/s", Rate: true, Goal: goal{Speed: 0.4},
		How: "requests of 150 lstat, 30 lstat of missing names, 60 open-read-close on PHP files of the tree, other ones each time, in one thread" + warmHow}
	storm4 = measure{Name: "include storm, 4 workers", Unit: "req/s", Rate: true, Goal: goal{Speed: 0.4}, How: "the same in 4 threads"}
)

const (
	missingNames = 3000
	stormStats   = 150
	stormMissing = 30
	stormReads   = 60
	stormWorkers = 4
	readBuf      = 256 << 10
	settleMax    = 2 * time.Minute // for the uploads of what earlier parts wrote
)

// phase is one way of reading a warm tree.
type phase struct {
	measure measure
	calls   int // of one pass
	names   int // that it uses, directories of the paths included
	workers int
	pass    func(worker, n int) error // the nth of the worker
	prepare func() error              // brings all names into the kernel's cache
}

// run makes passes until least has passed, and at least one for each worker.
func (p phase) run(least time.Duration) (passes int, took time.Duration, err error) {
	var done atomic.Int64
	began := time.Now()
	err = parallel(p.workers, func(w int) error {
		for n := 0; n == 0 || time.Since(began) < least; n++ {
			if err := p.pass(w, n); err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
	return int(done.Load()), time.Since(began), err
}

// warm measures what the kernel should be able to answer by itself, then what
// it cannot know yet, then nothing at all.
func (b *bench) warm(ctx context.Context) error {
	if err := b.settle(); err != nil {
		return err
	}
	b.machine.CallNS = float64(ownCost())
	phases, err := b.warmPhases(ctx)
	if err != nil {
		return err
	}
	for round := range b.o.warmRounds {
		if err := b.warmRound(ctx, phases, round); err != nil {
			return fmt.Errorf("round %d on %w", round, err)
		}
		b.machine.calibrate()
		progress("warm", round+1, b.o.warmRounds)
	}
	if err := b.fresh(ctx); err != nil {
		return err
	}
	return b.idle(ctx)
}

// warmRound takes the targets in turn in each phase, so that a busy moment falls
// on all of them, and begins with another one each time.
func (b *bench) warmRound(ctx context.Context, phases map[string][]phase, round int) error {
	targets := b.targets()
	for i := range phases[b.local.name] {
		for j := range targets {
			if err := ctx.Err(); err != nil {
				return err
			}
			t := targets[(j+round)%len(targets)]
			p := phases[t.name][i]
			if err := b.warmPhase(t, p, round); err != nil {
				return fmt.Errorf("%s: %s: %w", t.name, p.measure.Name, err)
			}
		}
	}
	return nil
}

// settle waits until no node has anything to upload.
func (b *bench) settle() error {
	for _, n := range b.cluster.Nodes {
		if err := n.WaitDurable(settleMax); err != nil {
			return err
		}
	}
	return nil
}

// warmPhases copies the tree in, once for both nodes, and gives the phases of
// each target in the same order.
func (b *bench) warmPhases(ctx context.Context) (map[string][]phase, error) {
	s, err := b.source(ctx)
	if err != nil {
		return nil, err
	}
	const name = "warm"
	for _, t := range []target{b.local, b.nodes[0]} {
		if err := s.copyTo(filepath.Join(t.dir, name), 8); err != nil {
			return nil, fmt.Errorf("copy to %s: %w", t.name, err)
		}
	}
	if err := b.settle(); err != nil {
		return nil, err
	}
	phases := map[string][]phase{}
	for _, t := range b.targets() {
		if phases[t.name], err = s.phases(filepath.Join(t.dir, name)); err != nil {
			return nil, err
		}
	}
	return phases, nil
}

func (b *bench) warmPhase(t target, p phase, round int) error {
	for range warmUps {
		if err := p.prepare(); err != nil {
			return err
		}
	}
	var before requestCounts
	var err error
	if t.node != nil {
		if before, err = requestsOf(t.node); err != nil {
			return err
		}
	}
	passes, took, err := p.run(b.o.warmTime)
	if err != nil {
		return err
	}
	v := float64(passes) / took.Seconds()
	if !p.measure.Rate {
		v = float64(took) / float64(time.Microsecond) / float64(passes*p.calls)
	}
	b.book.add(p.measure, t.name, round, v)
	if t.node == nil {
		return nil
	}
	after, err := requestsOf(t.node)
	if err != nil {
		return err
	}
	b.book.caused(p.measure.Name, t.name, true).book(passes*p.calls, p.names, took, after.since(before))
	return nil
}

// phases are the ways of reading the copy of the site at root.
func (s site) phases(root string) ([]phase, error) {
	names := make([]string, missingNames)
	for i := range names {
		names[i] = filepath.Join(s.dirs[i%len(s.dirs)], fmt.Sprintf("missing-%d.php", i))
	}
	files, err1 := toCPaths(root, s.files)
	php, err2 := toCPaths(root, s.php)
	missing, err3 := toCPaths(root, names)
	top, err4 := toCPath(root)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return nil, err
		}
	}
	entries, err := countEntries(root)
	if err != nil {
		return nil, err
	}
	dirs := len(s.dirs) + 2 // the mount's root and the bench's directory are asked for as well
	var l lister
	buf := make([]byte, readBuf)
	one := func(m measure, calls, names int, pass func() error) phase {
		return phase{m, calls, names, 1, func(int, int) error { return pass() }, pass}
	}
	ps := []phase{
		one(statAll, len(files), len(files)+dirs, func() error { return lstatPaths(files, 0) }),
		one(statNone, len(missing), len(missing)+dirs, func() error { return lstatPaths(missing, unix.ENOENT) }),
		one(readAll, len(php), len(php)+dirs, func() error { return readPaths(php, buf, s.phpBytes) }),
		one(listAll, entries, entries+dirs, func() error { return l.all(top, entries) }),
	}
	st := newStorm(php, missing)
	warmUp := func() error {
		if err := lstatPaths(missing, unix.ENOENT); err != nil {
			return err
		}
		return readPaths(php, buf, s.phpBytes)
	}
	calls, used := stormStats+stormMissing+stormReads, len(php)+len(missing)+dirs
	return append(ps, phase{storm1, calls, used, 1, st.request, warmUp}, phase{storm4, calls, used, stormWorkers, st.request, warmUp}), nil
}

// all lists the tree and wants a number of entries.
func (l *lister) all(top cpath, want int) error {
	got, err := l.list(atCWD, top.p, 0)
	if err == nil && got != want {
		err = fmt.Errorf("%d entries in %s, want %d", got, top, want)
	}
	return err
}

// countEntries counts by another way than the timed one.
func countEntries(root string) (n int, err error) {
	err = filepath.WalkDir(root, func(_ string, _ os.DirEntry, err error) error {
		n++
		return err
	})
	return n, err
}

// storm is what PHP does for pages: look for files in several places, and read
// those that are there.
type storm struct {
	php, missing []cpath
	bufs         [stormWorkers][]byte
}

func newStorm(php, missing []cpath) *storm {
	s := &storm{php: php, missing: missing}
	for i := range s.bufs {
		s.bufs[i] = make([]byte, readBuf)
	}
	return s
}

// request takes runs of names that begin at another place each time and for each
// worker.
func (s *storm) request(worker, n int) error {
	const step, apart = 7, 211
	k := worker*apart + n*step
	if err := inRing(s.php, k, stormStats, func(ps []cpath) error { return lstatPaths(ps, 0) }); err != nil {
		return err
	}
	if err := inRing(s.missing, k, stormMissing, func(ps []cpath) error { return lstatPaths(ps, unix.ENOENT) }); err != nil {
		return err
	}
	return inRing(s.php, k, stormReads, func(ps []cpath) error { return readPaths(ps, s.bufs[worker], -1) })
}

// inRing calls f with n elements from the kth on, in as many pieces as the end
// of ps makes of them.
func inRing(ps []cpath, k, n int, f func([]cpath) error) error {
	for n > 0 {
		from := k % len(ps)
		piece := ps[from:min(from+n, len(ps))]
		if err := f(piece); err != nil {
			return err
		}
		k, n = k+len(piece), n-len(piece)
	}
	return nil
}
