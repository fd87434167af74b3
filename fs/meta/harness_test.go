package meta_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/meta/metatest"
)

// rig is a file system in memory whose clock moves a second per command.
type rig struct {
	t   testing.TB
	s   *meta.State
	now fs.Time
	// keys of the last command
	keys []fs.Key
	lost bool // a command has marked content as lost
}

var (
	root  = fs.Cred{}
	alice = fs.Cred{Uid: 1000, Gid: 1000}
	bob   = fs.Cred{Uid: 2000, Gid: 2000}
)

func newRig(t testing.TB) *rig {
	t.Helper()
	return &rig{t: t, s: openMem(t), now: fs.Time{Sec: 1_000_000}}
}

// do applies op as an entry of its own. The state must be sound afterwards.
func (r *rig) do(op fs.Op) fs.Result {
	r.t.Helper()
	r.now.Sec++
	return r.command(fs.Command{Now: r.now, Op: op})
}

func (r *rig) command(c fs.Command) fs.Result {
	r.t.Helper()
	at := r.s.Applied() + 1
	results, keys, err := r.s.Apply(at, []fs.Command{c})
	if err != nil {
		r.t.Fatal(err)
	}
	if results[0].Kind != fs.OK && len(keys) > 0 {
		r.t.Errorf("%T was refused but changed %v", c.Op, keys)
	}
	r.keys = keys
	if _, lost := c.Op.(fs.MarkLost); lost {
		r.lost = true
	}
	check := r.s.Check
	if r.lost {
		check = func() []meta.Problem { return broken(r.s) }
	}
	if p := check(); len(p) > 0 {
		r.t.Fatalf("after %T: %v", c.Op, p)
	}
	return results[0]
}

// broken is what Check finds, without content that is lost by fs.MarkLost.
func broken(s *meta.State) []meta.Problem {
	return slices.DeleteFunc(s.Check(), func(p meta.Problem) bool { return p.Lost })
}

// must is do for an operation that succeeds.
func (r *rig) must(op fs.Op) fs.Attr {
	r.t.Helper()
	res := r.do(op)
	if res.Kind != fs.OK {
		r.t.Fatalf("%T%+v: %v", op, op, res.Kind)
	}
	return res.Attr
}

// refuse is do for an operation that does not, and leaves nothing behind.
func (r *rig) refuse(op fs.Op, want fs.Kind) {
	r.t.Helper()
	before := r.records()
	if res := r.do(op); res.Kind != want || res.Attr != (fs.Attr{}) {
		r.t.Errorf("%s: %v, want %v", meta.OpName(op), res.Kind, want)
	}
	if after := r.records(); !maps.Equal(before, after) {
		r.t.Errorf("%s was refused but changed records", meta.OpName(op))
	}
}

// records is the store without the applied index.
func (r *rig) records() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	err := meta.KVOf(r.s).Scan(nil, nil, func(k, v []byte) bool {
		all[string(k)] = string(v)
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	delete(all, "mapplied")
	return all
}

func (r *rig) attr(ino fs.Ino) fs.Attr {
	r.t.Helper()
	a, err := r.s.View().Attr(ino)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rig) lookup(dir fs.Ino, name string) (fs.Attr, error) {
	return r.s.View().Lookup(dir, name)
}

func (r *rig) gone(dir fs.Ino, name string) {
	r.t.Helper()
	if _, err := r.lookup(dir, name); !errors.Is(err, fs.ErrNotFound) {
		r.t.Errorf("lookup %q: %v, want %v", name, err, fs.ErrNotFound)
	}
}

func (r *rig) leads(dir fs.Ino, name string, ino fs.Ino) {
	r.t.Helper()
	if a, err := r.lookup(dir, name); err != nil || a.Ino != ino {
		r.t.Errorf("lookup %q: inode %d, %v, want %d", name, a.Ino, err, ino)
	}
}

func (r *rig) file(dir fs.Ino, name string) fs.Ino {
	r.t.Helper()
	return r.must(fs.Create{Parent: dir, Name: name, Mode: 0o644, Excl: true, Cred: alice}).Ino
}

func (r *rig) dir(parent fs.Ino, name string) fs.Ino {
	r.t.Helper()
	return r.must(fs.Mkdir{Parent: parent, Name: name, Mode: 0o755, Cred: alice}).Ino
}

// content reads a file whose chunks are all inline.
func (r *rig) content(ino fs.Ino) string {
	r.t.Helper()
	b, err := metatest.NewModel().Read(r.s.View(), ino)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *rig) extents(ino fs.Ino) []fs.Extent {
	r.t.Helper()
	x, err := r.s.View().Extents(ino, 0, fs.FileMax)
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

func text(off uint64, s string) fs.Piece {
	return fs.Piece{Off: off, Len: uint64(len(s)), Data: []byte(s)}
}

func ptr(n uint64) *uint64 { return &n }
