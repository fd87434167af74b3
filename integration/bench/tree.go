package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/tree"
)

var (
	copy1 = measure{Name: "copy tree in, 1 process", Unit: "us/file", Target: "<= 2000 us/file",
		How: "all directories by mkdir, then each file by open O_EXCL, write, close, in one thread"}
	copy8 = measure{Name: "copy tree in, 8 processes", Unit: "us/file", Target: "<= 500 us/file",
		How: "the same, the files shared among 8 threads"}
	copyA = measure{Name: "copy tree in, cp -a", Unit: "us/file",
		How: "cp -a, which also sets owner, mode and times of each entry"}
	firstRead = measure{Name: "first read on another node", Unit: "us/file",
		How: "open, read, close of every file on another node right after the copy, in one thread; locally a second look at the same files"}
	removeTree = measure{Name: "rm -rf tree", Unit: "us/file", Target: "<= 1000 us/file", How: "rm -rf"}
	statAll    = measure{Name: "stat, all files, warm", Unit: "us/file", Target: "later: <= 1.33 x slower", How: "lstat of each file, second pass"}
	statNone   = measure{Name: "stat, missing names, warm", Unit: "us/file", Target: "later: <= 1.33 x slower", How: "lstat of 3000 names that are not there, second pass"}
	readAll    = measure{Name: "open, read, close, warm", Unit: "us/file", Target: "<= 8.3 x slower", How: "each PHP file, second pass"}
	listAll    = measure{Name: "readdir and lstat, warm", Unit: "us/entry", Target: "later: <= 1.33 x slower", How: "the whole tree as ls -lR does it, second pass"}
	storm1     = measure{Name: "include storm, 1 worker", Unit: "req/s", Rate: true, Target: "later: <= 2.5 x slower",
		How: "requests of 150 lstat, 30 lstat of missing names, 60 open-read-close on files of the tree, in one thread"}
	storm4 = measure{Name: "include storm, 4 workers", Unit: "req/s", Rate: true, Target: "later: <= 2.5 x slower", How: "the same in 4 threads"}
)

const (
	missingNames  = 3000
	stormRequests = 20 // of each worker in one round
	stormStats    = 150
	stormMissing  = 30
	stormReads    = 60
)

// site is the source tree in the order of work.
type site struct {
	root  string
	dirs  []string // relative, parents first
	files []string
	php   []string
}

func siteOf(root string, es []tree.Entry) site {
	s := site{root: root}
	for _, e := range es {
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			s.dirs = append(s.dirs, e.Path)
		case unix.S_IFREG:
			s.files = append(s.files, e.Path)
			if strings.HasSuffix(e.Path, ".php") {
				s.php = append(s.php, e.Path)
			}
		}
	}
	if len(s.php) == 0 { // a tree of another language
		s.php = s.files
	}
	return s
}

// tree measures copying a site in, reading it and removing it.
func (b *bench) tree(ctx context.Context) error {
	root, es, err := b.source(ctx)
	if err != nil {
		return err
	}
	s := siteOf(root, es)
	for round := range b.o.treeRounds {
		for _, t := range b.targets() {
			if err := b.treeRound(ctx, s, t, round); err != nil {
				return fmt.Errorf("round %d on %s: %w", round, t.name, err)
			}
		}
		b.machine.calibrate()
		progress("tree", round+1, b.o.treeRounds)
	}
	return nil
}

func (b *bench) treeRound(ctx context.Context, s site, t target, round int) error {
	name := fmt.Sprintf("tree-%s-%d", t.name, round)
	at, other := filepath.Join(t.dir, name), filepath.Join(t.other, name)
	perFile := func(m measure, n int, f func() error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		b.book.add(m, t.name, round, float64(time.Since(began))/float64(time.Microsecond)/float64(n))
		return nil
	}
	n := len(s.files)
	remove := func() error { return exec.CommandContext(ctx, "rm", "-rf", at).Run() }
	copies := []struct {
		m measure
		f func() error
	}{
		{copyA, func() error { return exec.CommandContext(ctx, "cp", "-a", s.root, at).Run() }},
		{copy8, func() error { return s.copyTo(at, 8) }},
		{copy1, func() error { return s.copyTo(at, 1) }},
	}
	for i, c := range copies {
		if err := perFile(c.m, n, c.f); err != nil {
			return err
		}
		if i < len(copies)-1 { // the last copy is read first
			if err := perFile(removeTree, n, remove); err != nil {
				return err
			}
		}
	}
	if err := perFile(firstRead, n, func() error { return readFiles(other, s.files) }); err != nil {
		return err
	}
	if err := b.warmReads(s, t, at, perFile, round); err != nil {
		return err
	}
	return perFile(removeTree, n, remove)
}

// warmReads does each pass twice and measures the second.
func (b *bench) warmReads(s site, t target, at string, perFile func(measure, int, func() error) error, round int) error {
	missing := make([]string, missingNames)
	for i := range missing {
		missing[i] = filepath.Join(s.dirs[i%len(s.dirs)], fmt.Sprintf("missing-%d.php", i))
	}
	entries := 0
	passes := []struct {
		m measure
		n func() int
		f func() error
	}{
		{statAll, func() int { return len(s.files) }, func() error { return statFiles(at, s.files, nil) }},
		{statNone, func() int { return len(missing) }, func() error { return statFiles(at, missing, unix.ENOENT) }},
		{readAll, func() int { return len(s.php) }, func() error { return readFiles(at, s.php) }},
		{listAll, func() int { return entries }, func() (err error) { entries, err = listTree(at); return err }},
	}
	for _, p := range passes {
		if err := p.f(); err != nil {
			return err
		}
		if err := perFile(p.m, p.n(), p.f); err != nil {
			return err
		}
	}
	for _, st := range []struct {
		m       measure
		workers int
	}{{storm1, 1}, {storm4, 4}} {
		began := time.Now()
		if err := includeStorm(at, s, missing, st.workers); err != nil {
			return fmt.Errorf("%s: %w", st.m.Name, err)
		}
		b.book.add(st.m, t.name, round, float64(st.workers*stormRequests)/time.Since(began).Seconds())
	}
	return nil
}

// copyTo makes the tree at to, the files in n threads.
func (s site) copyTo(to string, n int) error {
	for _, d := range s.dirs {
		if err := os.Mkdir(filepath.Join(to, d), 0o755); err != nil {
			return err
		}
	}
	return parallel(n, func(worker int) error {
		for i := worker; i < len(s.files); i += n {
			data, err := os.ReadFile(filepath.Join(s.root, s.files[i]))
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(to, s.files[i]), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, data); err != nil {
				return fmt.Errorf("write %s: %w", s.files[i], err)
			}
		}
		return nil
	})
}

// parallel runs f in n threads.
func parallel(n int, f func(worker int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			errs[w] = f(w)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// statFiles wants the same error for all.
func statFiles(root string, names []string, want error) error {
	var st unix.Stat_t
	for _, name := range names {
		err := unix.Lstat(filepath.Join(root, name), &st)
		if !errors.Is(err, want) {
			return fmt.Errorf("lstat %s: %v, want %v", name, err, want)
		}
	}
	return nil
}

func readFiles(root string, names []string) error {
	b := make([]byte, 256<<10)
	for _, name := range names {
		if err := readOne(filepath.Join(root, name), b); err != nil {
			return err
		}
	}
	return nil
}

func readOne(path string, b []byte) error {
	fd, err := openAgain(path, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 {
			return nil
		}
	}
}

func listTree(root string) (int, error) {
	n := 0
	var st unix.Stat_t
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		return unix.Lstat(path, &st)
	})
	return n, err
}

// includeStorm is what PHP does for one page: look for files in several places,
// and read those that are there.
func includeStorm(root string, s site, missing []string, workers int) error {
	return parallel(workers, func(w int) error {
		for r := range stormRequests {
			k := (w*stormRequests + r) * 7
			pick := func(names []string, n int) []string {
				out := make([]string, n)
				for i := range out {
					out[i] = names[(k+i)%len(names)]
				}
				return out
			}
			err := errors.Join(statFiles(root, pick(s.php, stormStats), nil), statFiles(root, pick(missing, stormMissing), unix.ENOENT),
				readFiles(root, pick(s.php, stormReads)))
			if err != nil {
				return err
			}
		}
		return nil
	})
}
