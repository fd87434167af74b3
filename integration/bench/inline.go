package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/testcluster"
)

// inlineKiB are the sizes of the curve.
var inlineKiB = []int{1, 2, 4, 8, 16, 32, 64, 128, 256}

// inlineWay is one of two ways in which content can travel.
type inlineWay struct {
	name    string
	max     string // mount.inline_max_bytes
	cluster *testcluster.Cluster
	target  target
}

func inlineMeasure(kib int, way, what, how string) measure {
	return measure{Name: fmt.Sprintf("%s, %d KiB, %s", what, kib, way), Unit: "us/op", How: how}
}

// inline measures what a close costs by the size of the file, once with all
// content in the log and once with none, and what the first read on the third node
// costs after it. Two clusters of three nodes take turns.
func (b *bench) inline(ctx context.Context) (err error) {
	ways := []*inlineWay{{name: "in the log", max: "256KiB"}, {name: "as a chunk", max: "1"}}
	for _, w := range ways {
		if w.cluster, err = b.session.Start(testcluster.Config{Set: []string{"mount.inline_max_bytes=" + w.max}}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.cluster.Close()) }()
		leader, err := w.cluster.Leader()
		if err != nil {
			return err
		}
		var followers []*testcluster.Node
		for _, n := range w.cluster.Nodes {
			if n != leader {
				followers = append(followers, n)
			}
		}
		w.target = nodeTarget("follower", followers[0], followers[1])
		if err := os.Mkdir(w.target.dir, 0o755); err != nil {
			return err
		}
	}
	for round := range b.o.rounds {
		for _, kib := range inlineKiB {
			for _, w := range ways {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := b.inlineRound(w, kib, round); err != nil {
					return fmt.Errorf("round %d, %d KiB %s: %w", round, kib, w.name, err)
				}
			}
		}
		b.machine.calibrate()
		progress("inline", round+1, b.o.rounds)
	}
	return nil
}

func (b *bench) inlineRound(w *inlineWay, kib, round int) error {
	content, buf := make([]byte, kib<<10), make([]byte, kib<<10)
	closes := make([]time.Duration, 0, b.o.ops)
	reads := make([]time.Duration, 0, b.o.ops)
	for i := range b.o.ops {
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(kib), byte(round)}).Read(content)
		name := fmt.Sprintf("inline-%d-%d-%d", kib, round, i)
		fd, err := unix.Open(filepath.Join(w.target.dir, name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		if n, err := unix.Write(fd, content); err != nil || n < len(content) {
			return errors.Join(err, unix.Close(fd), fmt.Errorf("%d of %d bytes written", n, len(content)))
		}
		began := time.Now()
		if err := unix.Close(fd); err != nil {
			return err
		}
		closes = append(closes, time.Since(began))
		began = time.Now()
		if err := readOnce(filepath.Join(w.target.other, name), buf); err != nil {
			return err
		}
		reads = append(reads, time.Since(began))
	}
	b.book.addTimes(inlineMeasure(kib, w.name, "close", "close of a new file, written by one write, on a node that does not lead; one after the other"), "follower", round, closes)
	b.book.addTimes(inlineMeasure(kib, w.name, "first read elsewhere", "open, read, close on the third node right after that close"), "follower", round, reads)
	return nil
}

// readOnce reads a whole file of the length of buf.
func readOnce(path string, buf []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	n, err := unix.Read(fd, buf)
	if err == nil && n < len(buf) {
		err = fmt.Errorf("%s has %d bytes, want %d", path, n, len(buf))
	}
	return errors.Join(err, unix.Close(fd))
}
