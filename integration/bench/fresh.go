package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var freshRead = measure{Name: "first read elsewhere, new small files", Unit: "us/file", Goal: goal{Value: 300},
	How: "3000 new files of 0.3 to 60 KiB, 8 KiB in the mean, one in twenty too large to be inline, written in 8 threads; then open, read, close of each on another node in one thread, begun when the last close has returned; locally a second look at the same files"}

const (
	freshFiles   = 3000
	freshPerDir  = 50
	freshWriters = 8
)

// freshSizes is a mix like that of PHP files, by quantiles, in bytes. The last
// one stands for 33 to 60 KiB, which is too much to be inline.
var freshSizes = []int{300, 500, 800, 1000, 1300, 1700, 2100, 2600, 3100, 3700, 4400, 5200, 6200, 7400, 8900, 10800, 13500, 17500, 27000, 0}

func freshSize(i int) int {
	if n := freshSizes[i%len(freshSizes)]; n > 0 {
		return n
	}
	return 33<<10 + i/len(freshSizes)%8*(27<<10/7)
}

// fresh measures content that a node has never seen.
func (b *bench) fresh(ctx context.Context) error {
	if err := b.settle(); err != nil {
		return err
	}
	for round := range b.o.warmRounds {
		for _, t := range b.targets() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.freshRound(t, round); err != nil {
				return fmt.Errorf("round %d on %s: %w", round, t.name, err)
			}
		}
		b.machine.calibrate()
		progress("first read elsewhere", round+1, b.o.warmRounds)
	}
	return nil
}

// freshRound leaves its files where they are: removing them would be at work
// while the next ones are measured.
func (b *bench) freshRound(t target, round int) error {
	name := fmt.Sprintf("fresh-%s-%d", t.name, round)
	names, bytes := freshNames()
	paths, err := toCPaths(filepath.Join(t.other, name), names)
	if err != nil {
		return err
	}
	var before requestCounts
	if t.otherNode != nil {
		if before, err = requestsOf(t.otherNode); err != nil {
			return err
		}
	}
	if err := writeFresh(filepath.Join(t.dir, name), names, round); err != nil {
		return err
	}
	buf := make([]byte, readBuf)
	began := time.Now()
	err = parallel(1, func(int) error { return readPaths(paths, buf, bytes) })
	took := time.Since(began)
	if err != nil {
		return err
	}
	b.book.add(freshRead, t.name, round, float64(took)/float64(time.Microsecond)/freshFiles)
	if t.otherNode == nil {
		return nil
	}
	after, err := requestsOf(t.otherNode)
	if err != nil {
		return err
	}
	b.book.caused(freshRead.Name, t.name, false).book(freshFiles, freshFiles, took, after.since(before))
	return nil
}

func freshNames() (names []string, bytes int64) {
	names = make([]string, freshFiles)
	for i := range names {
		names[i] = fmt.Sprintf("d%02d/f%04d.php", i/freshPerDir, i)
		bytes += int64(freshSize(i))
	}
	return names, bytes
}

// writeFresh writes content that is nowhere else, so that no chunk is known
// already.
func writeFresh(root string, names []string, round int) error {
	for i := 0; i < len(names); i += freshPerDir {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(names[i])), 0o755); err != nil {
			return err
		}
	}
	seed := time.Now().UnixNano()
	return parallel(freshWriters, func(w int) error {
		var key [32]byte
		copy(key[:], fmt.Sprintf("%x %x %x", seed, round, w))
		rnd := rand.NewChaCha8(key)
		for i := w; i < len(names); i += freshWriters {
			data := make([]byte, freshSize(i))
			rnd.Read(data) // never fails
			if err := writeFile(filepath.Join(root, names[i]), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, data); err != nil {
				return fmt.Errorf("write %s: %w", names[i], err)
			}
		}
		return nil
	})
}
