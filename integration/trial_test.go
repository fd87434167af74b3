package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

// trial is one change, and all looks before and after it.
type trial struct {
	s      site
	ch     change
	nth    int
	dir    string
	writer int
	looks  []look

	stale, looked int
}

// newTrial rotates the writer and the looks: a look may refresh what the next
// one would have found stale.
func newTrial(s site, ch change, base string, nth int) *trial {
	first := nth % len(ch.looks)
	return &trial{s: s, ch: ch, nth: nth, dir: filepath.Join(base, fmt.Sprint(nth)), writer: nth % len(s.probes),
		looks: slices.Concat(ch.looks[first:], ch.looks[:first])}
}

func (v *trial) place(i int) place { return v.s.place(i, v.dir) }

// setUp makes what is to be changed, and has everybody open what is to be held.
func (v *trial) setUp(t *testing.T) {
	t.Helper()
	setup := []probe.Op{probe.Mkdir(filepath.Join(v.s.mounts[v.writer], v.dir))}
	if v.ch.setup != nil {
		setup = append(setup, v.ch.setup(v.place(v.writer))...)
	}
	v.s.do(t, v.writer, setup)
	for i := range v.s.probes {
		v.s.do(t, i, v.holding(i, func(h int, path string) probe.Op { return probe.Open(h, path, unix.O_RDONLY, 0) }))
	}
}

func (v *trial) tearDown(t *testing.T) {
	t.Helper()
	for i := range v.s.probes {
		v.s.do(t, i, v.holding(i, func(h int, _ string) probe.Op { return probe.Close(h) }))
	}
	if v.ch.after != nil {
		v.s.do(t, v.writer, v.ch.after(v.place(v.writer)))
	}
}

// holding is an operation for each descriptor that node i's observer holds.
func (v *trial) holding(i int, call func(h int, path string) probe.Op) (ops []probe.Op) {
	seen := map[string]bool{}
	for _, l := range v.looks {
		if l.holds && !seen[l.held] {
			seen[l.held] = true
			ops = append(ops, call(v.place(i).fd(l.held), v.place(i).at(l.held)))
		}
	}
	return ops
}

// ask is all looks on node i.
func (v *trial) ask(i int) (ops []probe.Op) {
	for _, l := range v.looks {
		ops = append(ops, l.op(v.place(i)))
	}
	return ops
}

// warm asks for everything that a kernel can keep of the names that the looks
// are about: name or absence, attributes, pages, listing, target of a link. The
// cached answer to one question must not outlive a change that another shows.
func (v *trial) warm(i int) (ops []probe.Op) {
	type asked struct {
		call probe.Call
		path string
	}
	ops = v.ask(i)
	seen := map[asked]bool{}
	for _, op := range ops {
		seen[asked{op.Call, op.Path}] = true
	}
	for _, l := range v.looks {
		path := l.op(v.place(i)).Path
		for _, op := range []probe.Op{probe.Lstat(path), probe.ReadFile(path), probe.Readdir(path), probe.Readlink(path)} {
			if k := (asked{op.Call, op.Path}); path != "" && !seen[k] {
				seen[k] = true
				ops = append(ops, op)
			}
		}
	}
	return ops
}

// run does the trial. In every second one, the first looks at one of the other
// nodes are made by the thread that makes the change.
func (v *trial) run(t *testing.T) {
	t.Helper()
	v.setUp(t)
	warm := v.ask
	if v.nth%3 == 0 { // enough, for its costs; the looks themselves are always made twice
		warm = v.warm
	}
	v.s.everybody(v.s.lane, warm)
	before := v.s.everybody(v.s.lane, v.ask)
	act := v.ch.act(v.place(v.writer))
	ops, next := slices.Clone(act), (v.writer+1+v.nth/2%2)%len(v.s.probes)
	var atOnce []int // which looks; the descriptors belong to another process
	for j, l := range v.looks {
		if v.nth%2 == 1 && !l.holds {
			atOnce, ops = append(atOnce, j), append(ops, l.op(v.place(next)))
		}
	}
	rs := v.s.do(t, v.writer, ops, len(act))
	returned := rs[len(act)-1].End
	after := v.s.everybody(v.s.lane, v.ask)
	for k, j := range atOnce {
		v.judge(t, next, j, before[next][j], rs[len(act)+k], returned)
	}
	for i := range after {
		for j := range v.looks {
			v.judge(t, i, j, before[i][j], after[i][j], returned)
		}
	}
	v.tearDown(t)
}

// judge compares what look j on node i gave before the change and after.
func (v *trial) judge(t *testing.T, i, j int, was, is probe.Result, returned int64) {
	t.Helper()
	l := v.looks[j]
	if l.want == nil {
		return
	}
	if l.want(was, was) != l.keeps {
		t.Fatalf("trial %d: %s does not tell old from new", v.nth, describe(v.place(i), l, was, was))
	}
	v.looked++
	if !l.want(was, is) {
		v.stale++
		t.Errorf("trial %d: written on %s; look %d on %s, %v after the call returned: %s", v.nth, v.s.probes[v.writer].Name,
			j+1, v.s.probes[i].Name, time.Duration(is.Start-returned), describe(v.place(i), l, was, is))
	}
}
