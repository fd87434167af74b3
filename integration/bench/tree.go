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
)

// site is the source tree in the order of work.
type site struct {
	root     string
	dirs     []string // relative, parents first
	files    []string
	bytes    int64 // of the files
	php      []string
	phpBytes int64
}

func siteOf(root string, es []tree.Entry) site {
	s := site{root: root}
	for _, e := range es {
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			s.dirs = append(s.dirs, e.Path)
		case unix.S_IFREG:
			s.files = append(s.files, e.Path)
			s.bytes += e.Size
			if strings.HasSuffix(e.Path, ".php") {
				s.php = append(s.php, e.Path)
				s.phpBytes += e.Size
			}
		}
	}
	if len(s.php) == 0 { // a tree of another language
		s.php, s.phpBytes = s.files, s.bytes
	}
	return s
}

// tree measures copying a site in, its first read elsewhere and removing it.
func (b *bench) tree(ctx context.Context) error {
	s, err := b.source(ctx)
	if err != nil {
		return err
	}
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
	paths, err := toCPaths(other, s.files)
	if err != nil {
		return err
	}
	if err := perFile(firstRead, n, func() error { return readPaths(paths, make([]byte, readBuf), s.bytes) }); err != nil {
		return err
	}
	return perFile(removeTree, n, remove)
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
