package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/bench/rawraft"
)

// entrySize is a typical command in the log.
const entrySize = 300

var rawCommit = measure{Name: "bare Raft commit", Unit: "us/op",
	How: "one process commits 300 B entries on the leader, one after the other; three processes, hashicorp/raft and raft-wal with the settings of wpfs, no state machine"}

// opMeasure is the line of one operation.
func opMeasure(name, how string) measure {
	return measure{Name: name, Unit: "us/op", How: "one process, one call after the other: " + how, Target: "p50 <= 1.5 x Raft commit, p99 <= 10 ms"}
}

// step is one operation of the latency cycle, done for i from 0 on in a
// directory of its round.
type step struct {
	measure measure
	do      func(dir string, i int) error
}

// latency measures each mutating operation on all targets in turn. The bare Raft
// lives no longer than this: its heartbeats would be in the figures of the other
// parts.
func (b *bench) latency(ctx context.Context) (err error) {
	p, err := b.session.NewPlace()
	if err != nil {
		return err
	}
	raft, err := rawraft.Start(p.Dir, []string{p.Net + ".1:7580", p.Net + ".2:7580", p.Net + ".3:7580"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raft.Close()) }()
	for round := range b.o.rounds {
		took, err := raft.Measure(2*b.o.ops, entrySize)
		if err != nil {
			return err
		}
		b.book.addTimes(rawCommit, "raft", round, took)
		for _, t := range b.targets() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.latencyRound(t, round); err != nil {
				return fmt.Errorf("round %d on %s: %w", round, t.name, err)
			}
		}
		b.machine.calibrate()
		progress("latency", round+1, b.o.rounds)
	}
	return nil
}

func (b *bench) latencyRound(t target, round int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := filepath.Join(t.dir, fmt.Sprintf("latency-%s-%d", t.name, round))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	log, err := unix.Open(filepath.Join(dir, "log"), unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	for _, s := range steps(log) {
		took := make([]time.Duration, 0, b.o.ops)
		for i := range b.o.ops {
			began := time.Now()
			if err := s.do(dir, i); err != nil {
				return fmt.Errorf("%s %d: %w", s.measure.Name, i, err)
			}
			took = append(took, time.Since(began))
		}
		b.book.addTimes(s.measure, t.name, round, took)
	}
	return errors.Join(unix.Close(log), os.RemoveAll(dir))
}

// steps is the cycle: later steps use what earlier ones made.
func steps(log int) []step {
	at := func(dir, what string, i int) string { return filepath.Join(dir, fmt.Sprintf("%s%04d", what, i)) }
	small, line := make([]byte, 200), make([]byte, 120)
	line[len(line)-1] = '\n'
	return []step{
		{opMeasure("mkdir", "mkdir"), func(d string, i int) error { return unix.Mkdir(at(d, "d", i), 0o755) }},
		{opMeasure("create", "open with O_CREAT and O_EXCL, close"), func(d string, i int) error {
			return writeFile(at(d, "e", i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, nil)
		}},
		{opMeasure("create, write 200 B, close", "open with O_CREAT and O_EXCL, write, close"), func(d string, i int) error {
			return writeFile(at(d, "f", i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, small)
		}},
		{opMeasure("rewrite 200 B, close", "open with O_TRUNC, write, close"), func(d string, i int) error {
			return writeFile(at(d, "f", i), unix.O_TRUNC|unix.O_WRONLY, small)
		}},
		{opMeasure("symlink", "symlink"), func(d string, i int) error { return unix.Symlink("f0000", at(d, "s", i)) }},
		{opMeasure("link", "link"), func(d string, i int) error { return unix.Link(at(d, "f", i), at(d, "l", i)) }},
		{opMeasure("chmod", "chmod to another mode"), func(d string, i int) error { return unix.Chmod(at(d, "f", i), 0o600) }},
		{opMeasure("setxattr", "setxattr of 20 B"), func(d string, i int) error { return unix.Setxattr(at(d, "f", i), "user.bench", small[:20], 0) }},
		{opMeasure("rename", "rename to a free name"), func(d string, i int) error { return unix.Rename(at(d, "l", i), at(d, "m", i)) }},
		{opMeasure("replace", "rename over an existing file"), func(d string, i int) error { return unix.Rename(at(d, "e", i), at(d, "m", i)) }},
		{opMeasure("append, file held open", "write of 120 B to a file open with O_APPEND; visible elsewhere by close or fsync"), func(string, int) error {
			return writeAll(log, line)
		}},
		{opMeasure("append, file opened each time", "open with O_APPEND, write of 120 B, close"), func(d string, _ int) error {
			return writeFile(filepath.Join(d, "log2"), unix.O_CREAT|unix.O_APPEND|unix.O_WRONLY, line)
		}},
		{opMeasure("append and fsync", "write of 120 B to a file open with O_APPEND, fsync"), func(string, int) error {
			return errors.Join(writeAll(log, line), unix.Fsync(log))
		}},
		{opMeasure("unlink", "unlink"), func(d string, i int) error { return unix.Unlink(at(d, "f", i)) }},
		{opMeasure("rmdir", "rmdir"), func(d string, i int) error { return unix.Rmdir(at(d, "d", i)) }},
	}
}

func writeFile(path string, flags int, b []byte) error {
	fd, err := openAgain(path, flags)
	if err != nil {
		return err
	}
	return errors.Join(writeAll(fd, b), unix.Close(fd))
}

// openAgain repeats an open that a signal of the Go runtime interrupted.
func openAgain(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}
