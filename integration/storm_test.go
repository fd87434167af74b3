package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

const (
	stormFor     = 60 // seconds
	stormLanes   = 3  // on each node
	stormBatch   = 16
	stormCallMax = 5 * time.Second
	hotNames     = 8 // names that all lanes fight for
)

// stormer is one lane of a storm. Its own files have names that nobody else
// touches, so every operation on them must succeed; beside them it fights with
// everybody for the hot names.
type stormer struct {
	p    *probe.Client
	lane int
	base string // on its mount
	rng  *rand.Rand
	made int
	own  map[string]string // path below base, and content
	dirs map[string]bool   // own directories, below base

	calls  int
	worst  probe.Result
	faults []string
}

// planned is an operation and the errnos it may end with.
type planned struct {
	op    probe.Op
	allow []unix.Errno
}

var stormDirs = []string{"a", "b"}

func (s *stormer) at(rel string) string { return filepath.Join(s.base, rel) }

func (s *stormer) dir() string { return stormDirs[s.rng.IntN(len(stormDirs))] }

func (s *stormer) hot() string {
	return filepath.Join(s.dir(), fmt.Sprint("hot", s.rng.IntN(hotNames)))
}

// pick is a random own file, if there is one.
func (s *stormer) pick(m []string) (string, bool) {
	if len(m) == 0 {
		return "", false
	}
	return m[s.rng.IntN(len(m))], true
}

// next plans one operation and books it as done.
func (s *stormer) next() planned {
	owns := slices.Sorted(maps.Keys(s.own))
	file, any := s.pick(owns)
	k := s.rng.IntN(100)
	switch {
	case !any || k < 25 && len(owns) < 200:
		s.made++
		name := filepath.Join(s.dir(), fmt.Sprintf("%s-%d-%d", s.p.Name, s.lane, s.made))
		s.own[name] = name
		return planned{op: probe.CreateExcl(s.at(name), []byte(name))}
	case k < 50: // across directories, or within one
		s.made++
		to := filepath.Join(s.dir(), fmt.Sprintf("%s-%d-%d", s.p.Name, s.lane, s.made))
		s.own[to] = s.own[file]
		delete(s.own, file)
		return planned{op: probe.Rename(s.at(file), s.at(to), 0)}
	case k < 60:
		delete(s.own, file)
		return planned{op: probe.Unlink(s.at(file))}
	case k < 70:
		return s.directory()
	case k < 75:
		return planned{op: probe.Readdir(s.at(s.dir()))}
	case k < 80:
		return planned{op: probe.ReadFile(s.at(file))}
	}
	return s.fight(file)
}

// directory makes, moves or removes a directory of its own. Moves across the
// two parents take the kernel's lock for renames of directories.
func (s *stormer) directory() planned {
	d, any := s.pick(slices.Sorted(maps.Keys(s.dirs)))
	s.made++
	fresh := filepath.Join(s.dir(), fmt.Sprintf("dir-%s-%d-%d", s.p.Name, s.lane, s.made))
	switch {
	case !any || len(s.dirs) < 5:
		s.dirs[fresh] = true
		return planned{op: probe.Mkdir(s.at(fresh))}
	case s.rng.IntN(4) == 0:
		delete(s.dirs, d)
		return planned{op: probe.Rmdir(s.at(d))}
	}
	delete(s.dirs, d)
	s.dirs[fresh] = true
	return planned{op: probe.Rename(s.at(d), s.at(fresh), 0)}
}

// fight is an operation on a name that others use as well: any of its usual
// errors will do, and it must end.
func (s *stormer) fight(file string) planned {
	allow := []unix.Errno{unix.ENOENT, unix.EEXIST}
	switch s.rng.IntN(6) {
	case 0: // an own file is moved over the name and is everybody's from then on
		delete(s.own, file)
		return planned{op: probe.Rename(s.at(file), s.at(s.hot()), 0)}
	case 1:
		return planned{probe.Unlink(s.at(s.hot())), allow}
	case 2:
		return planned{op: probe.WriteFile(s.at(s.hot()), []byte("everybody's"))}
	case 3:
		return planned{probe.Rename(s.at(s.hot()), s.at(s.hot()), 0), allow}
	case 4:
		return planned{probe.Rename(s.at(s.hot()), s.at(s.hot()), unix.RENAME_EXCHANGE), allow}
	}
	return planned{probe.Link(s.at(s.hot()), s.at(s.hot())), allow}
}

// run storms until the deadline.
func (s *stormer) run(until time.Time) {
	for time.Now().Before(until) {
		var plans []planned
		var ops []probe.Op
		for range stormBatch {
			p := s.next()
			plans, ops = append(plans, p), append(ops, p.op)
		}
		for i, r := range s.p.Go(s.lane, ops...).Wait() {
			s.calls++
			if r.Took() > s.worst.Took() {
				r.Data, r.Names = nil, nil
				s.worst = r
			}
			if r.Lost != "" || r.Errno != 0 && !slices.Contains(plans[i].allow, r.Errno) {
				s.faults = append(s.faults, fmt.Sprintf("%s: %v (to %s)", s.p.Name, r.Err(), ops[i].Path2))
			}
		}
		if len(s.faults) > 0 {
			return
		}
	}
}

// TestStorm has all nodes create, rename, remove and list in the same two
// directories at once. No call takes longer than five seconds, no task hangs,
// and in the end all nodes show the same, which is what was acknowledged.
func TestStorm(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, "storm")))
	for _, d := range stormDirs {
		must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, "storm", d)))
	}
	var pids []int
	for _, p := range ps {
		pids = append(pids, p.PID())
	}
	hangs := testcluster.DetectHangs(stormCallMax, nil, pids...)
	ss := storm(t, c, ps, time.Duration(scaled(t, stormFor))*time.Second)
	for _, h := range hangs.Stop() {
		t.Errorf("a task hangs: %v", h)
	}
	want := map[string]string{}
	calls := 0
	var worst probe.Result
	for _, s := range ss {
		calls += s.calls
		if s.worst.Took() > worst.Took() {
			worst = s.worst
		}
		for _, f := range s.faults {
			t.Error(f)
		}
		maps.Copy(want, s.own)
		for d := range s.dirs {
			want[d] = ""
		}
	}
	t.Logf("%d calls, the longest a %s of %v", calls, worst.Call, worst.Took().Round(time.Millisecond))
	if worst.Took() > stormCallMax {
		t.Errorf("%s %s took %v, more than %v", worst.Call, worst.Path, worst.Took(), stormCallMax)
	}
	got := map[string]bool{}
	for _, e := range sameTrees(t, c, ps, "storm") {
		got[e.Path] = true
		if _, ok := want[e.Path]; !ok && strings.Contains(e.Path, "/") && !strings.Contains(e.Path, "/hot") {
			t.Errorf("%s is there but was removed or moved away", e.Path)
		}
	}
	for path := range want {
		if !got[path] {
			t.Errorf("%s was acknowledged and is not there", path)
		}
	}
	for _, s := range ss {
		for path, content := range s.own {
			r := s.p.Call(probe.ReadFile(s.at(path)))
			if r.Err() != nil || string(r.Data) != content {
				t.Errorf("%s: %v, content %q, want %q", path, r.Err(), r.Data, content)
			}
		}
	}
}

// storm runs all lanes to their end.
func storm(t *testing.T, c *testcluster.Cluster, ps []*probe.Client, d time.Duration) []*stormer {
	t.Helper()
	until := time.Now().Add(d)
	var ss []*stormer
	done := make(chan struct{})
	for i, p := range ps {
		for range stormLanes {
			s := &stormer{p: p, lane: int(lanes.Add(1)) * 2, base: filepath.Join(c.Nodes[i].Mount, "storm"),
				rng: rand.New(rand.NewPCG(uint64(i), uint64(len(ss)))), own: map[string]string{}, dirs: map[string]bool{}}
			ss = append(ss, s)
			go func() { s.run(until); done <- struct{}{} }()
		}
	}
	for range ss {
		<-done
	}
	return ss
}

// TestHangDetectorFindsAHang freezes an agent under a call, so that the
// detector's silence in the storm means something.
func TestHangDetectorFindsAHang(t *testing.T) {
	c, ps := start(t, testcluster.Config{Nodes: 1})
	found := make(chan testcluster.Hang, 1)
	d := testcluster.DetectHangs(500*time.Millisecond, func(h testcluster.Hang) {
		select {
		case found <- h:
		default:
		}
	}, ps[0].PID())
	defer d.Stop()
	must(t, ps[0], probe.Readdir(c.Nodes[0].Mount))
	if err := c.Nodes[0].Pause(); err != nil {
		t.Fatal(err)
	}
	call := ps[0].Go(0, probe.Statfs(c.Nodes[0].Mount)) // never answered from a cache
	select {
	case h := <-found:
		t.Logf("found: %v", h)
	case <-time.After(20 * time.Second):
		t.Error("a call on the mount of a frozen agent was not found")
	}
	if err := c.Nodes[0].Resume(); err != nil {
		t.Fatal(err)
	}
	if err := call.Wait()[0].Err(); err != nil {
		t.Errorf("the call failed after the agent went on: %v", err)
	}
}
