package meta_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/meta/metatest"
)

const crashEntries = 3000

// TestMain lets the test binary be the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("META_CRASH_DIR"); dir != "" {
		if err := crashChild(dir, os.Getenv("META_CRASH_SEED")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashChild applies entries from where the store is and says so on each, until
// it is killed or, at the end of them, exits without closing the store.
func crashChild(dir, seed string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	entries, _, err := write(n, crashEntries)
	if err != nil {
		return err
	}
	kv, err := meta.OpenPebble(dir, smallPebble())
	if err != nil {
		return err
	}
	s, err := meta.Open(kv)
	if err != nil {
		return err
	}
	fmt.Println(s.Applied())
	for _, e := range entries {
		if e.At <= s.Applied() {
			continue
		}
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			return err
		}
		fmt.Println(e.At)
	}
	return nil
}

// history is the states of a memory store after each entry, asked for in order.
type history struct {
	t       *testing.T
	s       *meta.State
	entries []metatest.Entry
}

// is fails the test if s is not the state after the entry s says it is.
func (h *history) is(s *meta.State) {
	h.t.Helper()
	for len(h.entries) > 0 && h.entries[0].At <= s.Applied() {
		if _, _, err := h.s.Apply(h.entries[0].At, h.entries[0].Batch); err != nil {
			h.t.Fatal(err)
		}
		h.entries = h.entries[1:]
	}
	got, err := s.Digest()
	if err != nil {
		h.t.Fatal(err)
	}
	want, err := h.s.Digest()
	if err != nil {
		h.t.Fatal(err)
	}
	if got != want || s.StateHash() != h.s.StateHash() {
		h.t.Fatalf("the store says %d is applied, but it is not the state after entry %d", s.Applied(), h.s.Applied())
	}
	if p := broken(s); len(p) > 0 {
		h.t.Fatal(p)
	}
}

// TestKill kills a process at random moments while it applies entries: the store
// must be exactly the prefix that it names, and go on from there.
func TestKill(t *testing.T) {
	seed := seedOf(t)
	rnd := rand.New(rand.NewPCG(seed, 3))
	entries, _, err := write(seed, crashEntries)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t, openMem(t), entries}
	dir, lost, last := filepath.Join(t.TempDir(), "db"), 0, entries[len(entries)-1].At
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		reached := runAndKill(t, dir, seed, 1+rnd.IntN(2*crashEntries/rounds))
		s := openPebble(t, dir, 0)
		if s.Applied() > reached+1 {
			t.Fatalf("applied %d, the process had reached %d", s.Applied(), reached)
		}
		if s.Applied() < reached {
			lost++
		}
		h.is(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost == 0 {
		t.Error("no kill lost anything: the test did not test")
	}
	s := openPebble(t, dir, 0)
	for _, e := range entries {
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			t.Fatal(err)
		}
	}
	if s.Applied() != last {
		t.Errorf("applied %d, want %d", s.Applied(), last)
	}
	h.is(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// runAndKill starts the child, kills it some time after it has applied n entries,
// and returns the last one it spoke of.
func runAndKill(t *testing.T, dir string, seed uint64, n int) fs.Index {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "META_CRASH_DIR="+dir, fmt.Sprint("META_CRASH_SEED=", seed))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := fs.Index(0)
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		v, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			break // cut in the middle of a number
		}
		last = fs.Index(v)
		if i == n {
			time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err != nil && !killed(err) {
		t.Fatal(err)
	}
	return last
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// TestPowerLoss is TestKill with a disk that forgets what was not synced, a part
// of it at random, at many more moments.
func TestPowerLoss(t *testing.T) {
	seed := seedOf(t)
	rnd := rand.New(rand.NewPCG(seed, 4))
	entries, _, err := write(seed, 800)
	if err != nil {
		t.Fatal(err)
	}
	disk := vfs.NewCrashableMem()
	kv, err := meta.OpenPebble("db", smallPebble().WithFS(disk))
	if err != nil {
		t.Fatal(err)
	}
	s, err := meta.Open(kv)
	if err != nil {
		t.Fatal(err)
	}
	flushed := fs.Index(0)
	for i, e := range entries {
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(60) == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			flushed = e.At
		}
		if rnd.IntN(20) != 0 {
			continue
		}
		crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rnd.IntN(101), RNG: rnd})
		kv, err := meta.OpenPebble("db", smallPebble().WithFS(crashed))
		if err != nil {
			t.Fatalf("after entry %d: %v", i, err)
		}
		again, err := meta.Open(kv)
		if err != nil {
			t.Fatal(err)
		}
		if again.Applied() < flushed || again.Applied() > e.At {
			t.Fatalf("applied %d after the crash, %d was flushed, %d the last", again.Applied(), flushed, e.At)
		}
		(&history{t, openMem(t), entries}).is(again)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointIsAPrefix takes checkpoints beside Apply.
func TestCheckpointIsAPrefix(t *testing.T) {
	entries, _, err := write(seedOf(t), 600)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t, openMem(t), entries}
	s := openPebble(t, filepath.Join(t.TempDir(), "db"), 0)
	copies := t.TempDir()
	done := make(chan []string)
	go func() {
		var dirs []string
		for i := range 5 {
			dir := filepath.Join(copies, fmt.Sprint(i))
			if err := s.Checkpoint(dir); err != nil {
				t.Error(err)
			}
			dirs = append(dirs, dir)
		}
		done <- dirs
	}()
	for _, e := range entries {
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range <-done {
		c := openPebble(t, dir, 0)
		h.is(c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h.is(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSplitBatches: how commands are cut into entries changes no outcome, only
// the indexes in it.
func TestSplitBatches(t *testing.T) {
	seed := seedOf(t)
	m := metatest.NewModel()
	script := metatest.NewScript(seed, m) // names no chunks, whose names have indexes
	one, each := openMem(t), openMem(t)
	plain := func(r fs.Result) fs.Result {
		r.Index, r.Attr.Generation, r.Attr.Version = 0, 0, 0
		return r
	}
	alone := metatest.NewModel()
	alone.Content = m.Content
	keep := func(id fs.ChunkID, b []byte) { m.Content[id.Hash] = b }
	one.SetDroppedInline(keep)
	for range 600 {
		e := script.Next()
		want, _, err := one.Apply(e.At, e.Batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range e.Batch {
			m.Apply(e.At, c)
			at := each.Applied() + 1
			alone.Apply(at, c)
			got, _, err := each.Apply(at, []fs.Command{c})
			if err != nil {
				t.Fatal(err)
			}
			if plain(got[0]) != plain(want[i]) {
				t.Fatalf("%+v alone: %+v, in its batch: %+v", c, got[0], want[i])
			}
		}
	}
	if err := m.Compare(one); err != nil {
		t.Error(err)
	}
	if err := alone.Compare(each); err != nil {
		t.Error(err)
	}
}
