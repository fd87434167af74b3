package integration

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

// ledger is the outside observer's book of what the file system acknowledged.
// Below its directory are unique files and one log that all writers append to.
type ledger struct {
	mu      sync.Mutex
	files   map[string]string // acknowledged: name and content
	unknown map[string]bool   // names whose last operation had no clear outcome
	lines   map[string]bool   // acknowledged lines of the log
	maybe   map[string]bool   // lines without a clear outcome
}

func newLedger() *ledger {
	return &ledger{files: map[string]string{}, unknown: map[string]bool{}, lines: map[string]bool{}, maybe: map[string]bool{}}
}

// writer puts load on one node: it makes files, renames and removes some, and
// appends to the log, one call after the other.
type writer struct {
	p    *probe.Client
	lane int
	dir  string // on the node's mount
	l    *ledger

	mu    sync.Mutex
	acked int
	errs  []error
	took  []probe.Result // all calls; without their data
}

// run writes until stop is closed. After an error it waits until its mount
// answers again: only the calls in flight at a crash have unknown outcomes.
func (w *writer) run(stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if !w.round(i) {
			w.awaitMount(stop)
		}
	}
}

// round is one file's life and one line. It reports whether all calls had a
// clear outcome.
func (w *writer) round(i int) bool {
	name := fmt.Sprintf("%s-%d-%06d", w.p.Name, w.lane, i)
	content := fmt.Sprintf("content of %s %s", name, bytes.Repeat([]byte("."), i%3000))
	if !w.step(probe.CreateExcl(filepath.Join(w.dir, name), []byte(content)), func() { w.l.files[name] = content }, func() { w.l.unknown[name] = true }) {
		return false
	}
	switch i % 4 {
	case 1:
		to := name + ".renamed"
		moved := func() { delete(w.l.files, name); w.l.files[to] = content }
		lost := func() { delete(w.l.files, name); w.l.unknown[name], w.l.unknown[to] = true, true }
		if !w.step(probe.Rename(filepath.Join(w.dir, name), filepath.Join(w.dir, to), 0), moved, lost) {
			return false
		}
	case 2:
		gone := func() { delete(w.l.files, name) }
		lost := func() { delete(w.l.files, name); w.l.unknown[name] = true }
		if !w.step(probe.Unlink(filepath.Join(w.dir, name)), gone, lost) {
			return false
		}
	}
	line := "line of " + name + "\n"
	return w.step(probe.AppendFile(filepath.Join(w.dir, "log"), []byte(line)), func() { w.l.lines[line] = true }, func() { w.l.maybe[line] = true })
}

// step does one operation and books its outcome.
func (w *writer) step(op probe.Op, acked, lost func()) bool {
	r := w.p.Go(w.lane, op).Wait()[0]
	err := r.Err()
	w.l.mu.Lock()
	if err == nil {
		acked()
	} else {
		lost()
	}
	w.l.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Data = nil
	w.took = append(w.took, r)
	if err != nil {
		w.errs = append(w.errs, fmt.Errorf("%s lane %d: %w", w.p.Name, w.lane, err))
		return false
	}
	w.acked++
	return true
}

func (w *writer) awaitMount(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if r := w.p.Go(w.lane, probe.Lstat(w.dir)).Wait()[0]; r.Err() == nil {
			return
		}
	}
}

// count is how many operations were acknowledged so far.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// slowest is the longest call that began after since, and how many took longer
// than a second.
func (w *writer) slowest(since int64) (worst probe.Result, overSecond int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.took {
		if r.End < since {
			continue
		}
		if r.Took() > worst.Took() {
			worst = r
		}
		if r.Took() > time.Second {
			overSecond++
		}
	}
	return worst, overSecond
}

// errors returns what failed so far.
func (w *writer) errors() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.errs)
}

// awaitProgress waits until each writer has had n more operations acknowledged.
func awaitProgress(t *testing.T, ws []*writer, n int, limit time.Duration) {
	t.Helper()
	start := make([]int, len(ws))
	for i, w := range ws {
		start[i] = w.count()
	}
	deadline := time.Now().Add(limit)
	for i, w := range ws {
		for w.count() < start[i]+n {
			if time.Now().After(deadline) {
				t.Fatalf("%s lane %d: %d operations acknowledged in %v, want %d; errors: %v", w.p.Name, w.lane, w.count()-start[i], limit, n, w.errors())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// verify compares what a node shows with the book: everything acknowledged is
// there, whole and once, and nothing else but what was never clear.
func (l *ledger) verify(t *testing.T, p *probe.Client, dir string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	rs := must(t, p, probe.Readdir(dir), probe.ReadFile(filepath.Join(dir, "log")))
	var bad []string
	there := map[string]bool{}
	for _, name := range rs[0].Names {
		there[name] = true
		if _, ok := l.files[name]; !ok && !l.unknown[name] && name != "log" {
			bad = append(bad, name+": never made, or removed")
		}
	}
	for name, content := range l.files {
		if !there[name] {
			bad = append(bad, name+": acknowledged, but not in the listing")
			continue
		}
		r := p.Call(probe.ReadFile(filepath.Join(dir, name)))
		if r.Err() != nil || string(r.Data) != content {
			bad = append(bad, fmt.Sprintf("%s: %v, %d bytes, want %d", name, r.Err(), len(r.Data), len(content)))
		}
	}
	seen := map[string]int{}
	for line := range bytes.Lines(rs[1].Data) {
		seen[string(line)]++
	}
	for line, n := range seen {
		if !l.lines[line] && !l.maybe[line] {
			bad = append(bad, fmt.Sprintf("log: line %q was never written so", line))
		}
		if n > 1 {
			bad = append(bad, fmt.Sprintf("log: line %q is there %d times", line, n))
		}
	}
	for line := range l.lines {
		if seen[line] == 0 {
			bad = append(bad, fmt.Sprintf("log: acknowledged line %q is lost", line))
		}
	}
	slices.Sort(bad)
	if n := len(bad); n > diffsShown {
		bad = append(bad[:diffsShown], fmt.Sprintf("and %d more", n-diffsShown))
	}
	for _, b := range bad {
		t.Errorf("%s: %s", p.Name, b)
	}
	t.Logf("%s: %d files and %d lines as acknowledged (%d names and %d lines had no clear outcome)", p.Name, len(l.files), len(l.lines), len(l.unknown), len(l.maybe))
}

// unclear are the errors that leave open whether an operation happened, or that
// a mount gives whose agent is gone.
func unclear(err error) bool {
	for _, e := range []unix.Errno{unix.EIO, unix.ENOTCONN, unix.ECONNABORTED, unix.ESTALE, unix.EROFS} {
		if isErrno(err, e) {
			return true
		}
	}
	return false
}
