package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const bigSize = 64 << 20

var (
	bigWrite = measure{Name: "64 MiB write, close", Unit: "MB/s", Rate: true, Target: "<= 2 x slower", How: "one thread, 1 MiB writes, to the return of close"}
	bigSync  = measure{Name: "64 MiB write, fsync, close", Unit: "MB/s", Rate: true, How: "the same with fsync before close"}
	bigFirst = measure{Name: "64 MiB first read elsewhere", Unit: "MB/s", Rate: true, Target: "<= 2 x slower",
		How: "on another node right after the close (it has a copy already if it was the one chosen to hold the second); locally after the file was synced and dropped from the page cache"}
	bigWarm = measure{Name: "64 MiB read, warm", Unit: "MB/s", Rate: true, How: "on the node that wrote it, second pass"}
)

// big measures a large file.
func (b *bench) big(ctx context.Context) error {
	for round := range b.o.rounds {
		for _, t := range b.targets() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.bigRound(t, round); err != nil {
				return fmt.Errorf("round %d on %s: %w", round, t.name, err)
			}
		}
		b.machine.calibrate()
		progress("big", round+1, b.o.rounds)
	}
	return nil
}

func (b *bench) bigRound(t target, round int) error {
	name := fmt.Sprintf("big-%s-%d", t.name, round)
	rate := func(m measure, f func() error) error {
		began := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		b.book.add(m, t.name, round, bigSize/1e6/time.Since(began).Seconds())
		return nil
	}
	path, synced := filepath.Join(t.dir, name), filepath.Join(t.dir, name+"-synced")
	buf := make([]byte, 1<<20)
	read := func(path string) func() error { return func() error { return readBig(path, buf) } }
	if err := rate(bigWrite, func() error { return writeBig(path, byte(round), false) }); err != nil {
		return err
	}
	if t.other == t.dir {
		if err := dropCache(path); err != nil {
			return err
		}
	}
	if err := rate(bigFirst, read(filepath.Join(t.other, name))); err != nil {
		return err
	}
	if err := read(path)(); err != nil {
		return err
	}
	if err := rate(bigWarm, read(path)); err != nil {
		return err
	}
	if err := rate(bigSync, func() error { return writeBig(synced, byte(round)+100, true) }); err != nil {
		return err
	}
	return errors.Join(os.Remove(path), os.Remove(synced))
}

func readBig(path string, buf []byte) error {
	p, err := toCPath(path)
	if err != nil {
		return err
	}
	return readPaths([]cpath{p}, buf, bigSize)
}

// writeBig writes content that is different for each seed and in each block, so
// that no chunk is known already.
func writeBig(path string, seed byte, sync bool) error {
	fd, err := openAgain(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
	if err != nil {
		return err
	}
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i*i>>3) ^ seed
	}
	for block := range bigSize / len(b) {
		b[0], b[1] = byte(block), seed
		if err := writeAll(fd, b); err != nil {
			unix.Close(fd)
			return err
		}
	}
	if sync {
		err = unix.Fsync(fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// dropCache makes the next read come from the disk.
func dropCache(path string) error {
	fd, err := openAgain(path, unix.O_RDWR)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), unix.Close(fd))
}
