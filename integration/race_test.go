package integration

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

const (
	raceRounds  = 300
	appendLines = 2000 // of each node
	appendBatch = 50
)

// TestRacesHaveOneWinner lets all nodes make the same name within microseconds.
func TestRacesHaveOneWinner(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	races := []struct {
		name  string
		setup func(p place, own string) []probe.Op // on each node
		try   func(p place, own string) probe.Op
	}{
		{"create O_EXCL", nil, func(p place, own string) probe.Op { return probe.CreateExcl(p.at("x"), []byte(own)) }},
		{"mkdir", nil, func(p place, _ string) probe.Op { return probe.Mkdir(p.at("x")) }},
		{"symlink", nil, func(p place, own string) probe.Op { return probe.Symlink(own, p.at("x")) }},
		{"mknod", nil, func(p place, _ string) probe.Op { return probe.Mkfifo(p.at("x")) }},
		{"link", ownFile, func(p place, own string) probe.Op { return probe.Link(p.at(own), p.at("x")) }},
		{"rename NOREPLACE", ownFile, func(p place, own string) probe.Op {
			return probe.Rename(p.at(own), p.at("x"), unix.RENAME_NOREPLACE)
		}},
	}
	for _, r := range races {
		t.Run(r.name, func(t *testing.T) {
			s := newSite(c, ps)
			base := fmt.Sprintf("race-%d", s.lane)
			s.do(t, 0, []probe.Op{probe.Mkdir(filepath.Join(s.mounts[0], base))})
			wins := make([]int, len(ps))
			for round := range scaled(t, raceRounds) {
				dir := filepath.Join(base, fmt.Sprint(round))
				s.do(t, round%len(ps), []probe.Op{probe.Mkdir(filepath.Join(s.mounts[round%len(ps)], dir))})
				if r.setup != nil {
					for i := range ps {
						s.do(t, i, r.setup(s.place(i, dir), ps[i].Name))
					}
				}
				at := probe.Now() + int64(time.Millisecond)
				rs := s.everybody(s.lane, func(i int) []probe.Op {
					op := r.try(s.place(i, dir), ps[i].Name)
					op.At = at
					// Who lost must see the winner's at once.
					return []probe.Op{op, probe.Lstat(s.place(i, dir).at("x"))}
				})
				winner := judgeRace(t, round, ps, rs)
				if t.Failed() {
					return
				}
				wins[winner]++
			}
			t.Logf("wins by node: %v", wins)
		})
	}
}

func ownFile(p place, own string) []probe.Op {
	return []probe.Op{probe.WriteFile(p.at(own), []byte(own))}
}

// judgeRace wants one success, EEXIST for all others, and the same file seen by
// all. It returns the winner.
func judgeRace(t *testing.T, round int, ps []*probe.Client, rs [][]probe.Result) int {
	t.Helper()
	winner := -1
	for i, r := range rs {
		switch {
		case r[0].Err() == nil && winner < 0:
			winner = i
		case r[0].Err() == nil:
			t.Errorf("round %d: both %s and %s won", round, ps[winner].Name, ps[i].Name)
		case r[0].Errno != unix.EEXIST:
			t.Errorf("round %d: %s lost with %v, want EEXIST", round, ps[i].Name, r[0].Err())
		}
		if err := r[1].Err(); err != nil {
			t.Errorf("round %d: %s does not see the name after its try: %v", round, ps[i].Name, err)
		} else if first := rs[0][1]; first.Err() == nil && r[1].Stat.Ino != first.Stat.Ino {
			t.Errorf("round %d: %s sees inode %d, %s sees %d", round, ps[i].Name, r[1].Stat.Ino, ps[0].Name, first.Stat.Ino)
		}
	}
	if winner < 0 {
		t.Errorf("round %d: nobody won", round)
	}
	return winner
}

// TestAppendsFromAllNodes has all nodes write lines to one log at once. Every
// line must be there exactly once, whole, and each node's in its order.
func TestAppendsFromAllNodes(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	n := scaled(t, appendLines)
	line := func(node string, i int) []byte {
		return fmt.Appendf(nil, "[%s %06d] PHP Warning: something that is %s long\n", node, i, string(bytes.Repeat([]byte("very "), i%17)))
	}
	held := func(sync bool) func(p place, own string, from, to int) []probe.Op {
		return func(p place, own string, from, to int) []probe.Op {
			var ops []probe.Op
			if from == 0 {
				ops = append(ops, probe.Open(p.h, p.at("log"), unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND, 0o644))
			}
			for i := from; i < to; i++ {
				ops = append(ops, probe.Write(p.h, line(own, i)))
				if sync {
					ops = append(ops, probe.Fsync(p.h))
				}
			}
			if to == n {
				ops = append(ops, probe.Close(p.h))
			}
			return ops
		}
	}
	kinds := []struct {
		name  string
		batch func(p place, own string, from, to int) []probe.Op
	}{
		{"held open", held(false)},
		{"held open, fsync after each line", held(true)},
		{"opened for each line", func(p place, own string, from, to int) []probe.Op {
			var ops []probe.Op
			for i := from; i < to; i++ {
				ops = append(ops, probe.AppendFile(p.at("log"), line(own, i)))
			}
			return ops
		}},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newSite(c, ps)
			base := fmt.Sprintf("append-%d", s.lane)
			s.do(t, 0, []probe.Op{probe.Mkdir(filepath.Join(s.mounts[0], base))})
			began := time.Now()
			pending := make([][]*probe.Pending, len(ps))
			for from := 0; from < n; from += appendBatch {
				for i, p := range ps {
					pending[i] = append(pending[i], p.Go(s.lane, k.batch(s.place(i, base), p.Name, from, min(n, from+appendBatch))...))
				}
			}
			for _, qs := range pending {
				for _, q := range qs {
					for _, r := range q.Wait() {
						if err := r.Err(); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			t.Logf("%d lines in %v", n*len(ps), time.Since(began).Round(time.Millisecond))
			for i, p := range ps {
				r := p.Go(s.lane, probe.ReadFile(s.place(i, base).at("log"))).Wait()[0]
				if err := r.Err(); err != nil {
					t.Fatal(err)
				}
				checkLines(t, p.Name, r.Data, ps, n, line)
			}
		})
	}
}

// checkLines compares the log with what each node wrote.
func checkLines(t *testing.T, reader string, log []byte, ps []*probe.Client, n int, line func(node string, i int) []byte) {
	t.Helper()
	var names []string
	for _, p := range ps {
		names = append(names, p.Name)
	}
	next := map[string]int{}
	torn := 0
	for got := range bytes.Lines(log) {
		var node string
		var i int
		_, err := fmt.Sscanf(string(got), "[%s %d]", &node, &i)
		if err != nil || !slices.Contains(names, node) || !bytes.Equal(got, line(node, i)) {
			torn++
			if torn == 1 {
				t.Errorf("%s: torn line %q", reader, got)
			}
			continue
		}
		if i != next[node] {
			t.Errorf("%s: %s's line %d comes where %d should", reader, node, i, next[node])
			return
		}
		next[node]++
	}
	for _, name := range names {
		if next[name] != n {
			t.Errorf("%s: %d lines of %s, want %d (%d torn)", reader, next[name], name, n, torn)
		}
	}
}
