package meta_test

import (
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func (r *rig) send(id fs.SessionID, seq, low uint64, op fs.Op) fs.Result {
	r.t.Helper()
	r.now.Sec++
	return r.command(fs.Command{Session: id, Seq: seq, LowWater: low, Now: r.now, Op: op})
}

func TestExactlyOnce(t *testing.T) {
	r := newRig(t)
	mkdir := fs.Mkdir{Parent: 1, Name: "d"}
	if res := r.send(7, 1, 0, mkdir); res.Kind != fs.ErrStale {
		t.Errorf("unknown session: %v", res.Kind)
	}
	r.gone(1, "d")
	r.must(fs.OpenSession{Session: 7, Node: "n1"})
	first := r.send(7, 1, 0, mkdir)
	if first.Kind != fs.OK {
		t.Fatal(first.Kind)
	}
	refused := r.send(7, 2, 0, mkdir)
	if refused.Kind != fs.ErrExist || refused.Index != r.s.Applied() {
		t.Fatalf("%+v", refused)
	}
	r.must(fs.Rmdir{Parent: 1, Name: "d"})
	// Neither the success nor the refusal happens again.
	if again := r.send(7, 1, 0, mkdir); again != first || len(r.keys) > 0 {
		t.Errorf("repeated: %+v, want %+v, keys %v", again, first, r.keys)
	}
	if again := r.send(7, 2, 0, mkdir); again != refused {
		t.Errorf("repeated: %+v, want %+v", again, refused)
	}
	r.gone(1, "d")
	if got, ok, err := r.s.SessionResult(7, 1); err != nil || !ok || got != first {
		t.Errorf("stored: %+v %t %v", got, ok, err)
	}
	if res := r.send(7, 0, 0, mkdir); res.Kind != fs.ErrInvalid {
		t.Errorf("sequence number 0: %v", res.Kind)
	}
}

// TestRepeatedInOneEntry: a retry can share the entry with the original.
func TestRepeatedInOneEntry(t *testing.T) {
	r := newRig(t)
	r.must(fs.OpenSession{Session: 7, Node: "n1"})
	f := r.file(1, "f")
	c := fs.Command{Session: 7, Seq: 1, Op: fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "line\n")}}}
	results, keys, err := r.s.Apply(r.s.Applied()+1, []fs.Command{c, c, c})
	if err != nil || results[0] != results[1] || results[1] != results[2] || results[0].Kind != fs.OK {
		t.Errorf("%+v, %v", results, err)
	}
	if got := r.content(f); got != "line\n" {
		t.Errorf("content %q", got)
	}
	if len(keys) != 2 {
		t.Errorf("keys %v: each once", keys)
	}
}

func TestWindow(t *testing.T) {
	const w = meta.SessionWindow
	for _, row := range []struct {
		what     string
		seq, low uint64
		floor    uint64 // afterwards
	}{
		{"first", 1, 0, 1},
		{"fills the window", w, 0, 1},
		{"one more", w + 1, 0, 2},
		{"far ahead", 5 * w, 0, 4*w + 1},
		{"largest number", 1<<64 - 1, 0, 1<<64 - w},
		{"low water", 100, 90, 90},
		{"low water of its own number", 100, 100, 100},
		{"low water above itself", 100, 1 << 40, 100},
		{"low water below the window", 5 * w, 3, 4*w + 1},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			r.must(fs.OpenSession{Session: 7, Node: "n1"})
			early := []uint64{1, 50, 90, 99}
			for _, seq := range early {
				if seq < row.seq {
					r.send(7, seq, 0, fs.Barrier{})
				}
			}
			if res := r.send(7, row.seq, row.low, fs.Barrier{}); res.Kind != fs.OK {
				t.Fatal(res.Kind)
			}
			for _, seq := range append(early, row.seq) {
				if seq > row.seq {
					continue
				}
				_, kept, err := r.s.SessionResult(7, seq)
				if err != nil || kept != (seq >= row.floor) {
					t.Errorf("result %d kept: %t, %v", seq, kept, err)
				}
			}
			if row.floor > 1 {
				if res := r.send(7, row.floor-1, 0, fs.Barrier{}); res.Kind != fs.ErrStale {
					t.Errorf("below the window: %v", res.Kind)
				}
			}
			if res := r.send(7, row.floor, 0, fs.Barrier{}); res.Kind != fs.OK {
				t.Errorf("at the bottom of the window: %v", res.Kind)
			}
		})
	}
}

func TestSessions(t *testing.T) {
	r := newRig(t)
	r.must(fs.OpenSession{Session: 9, Node: "n2"})
	r.must(fs.OpenSession{Session: 7, Node: "n1"})
	r.must(fs.OpenSession{Session: 7, Node: "n1"}) // a retry
	r.refuse(fs.OpenSession{Session: 7, Node: "n2"}, fs.ErrExist)
	r.refuse(fs.OpenSession{Session: 0, Node: "n2"}, fs.ErrInvalid)
	r.refuse(fs.OpenSession{Session: 3}, fs.ErrInvalid)
	list, err := r.s.Sessions()
	want := []meta.Session{{ID: 7, Node: "n1", Opened: 2}, {ID: 9, Node: "n2", Opened: 1}}
	if err != nil || len(list) != 2 || list[0] != want[0] || list[1] != want[1] {
		t.Errorf("%v, %v, want %v", list, err, want)
	}
	r.send(7, 1, 0, fs.Mkdir{Parent: 1, Name: "d"})
	r.must(fs.ExpireSession{Sessions: []fs.SessionID{7, 12345}})
	if node, ok := r.s.Session(7); ok {
		t.Errorf("session 7 still belongs to %q", node)
	}
	if node, ok := r.s.Session(9); !ok || node != "n2" {
		t.Errorf("session 9 belongs to %q, %t", node, ok)
	}
	for _, seq := range []uint64{1, 2} {
		if res := r.send(7, seq, 0, fs.Mkdir{Parent: 1, Name: "e"}); res.Kind != fs.ErrStale {
			t.Errorf("command %d of an ended session: %v", seq, res.Kind)
		}
	}
	// A registration that was on its way when the node died must not bring the
	// session back: its old commands would run a second time.
	r.refuse(fs.OpenSession{Session: 7, Node: "n1"}, fs.ErrStale)
	if _, ok, err := r.s.SessionResult(7, 1); err != nil || ok {
		t.Errorf("results of an ended session are kept: %t, %v", ok, err)
	}
	// A session may end itself.
	if res := r.send(9, 1, 0, fs.ExpireSession{Sessions: []fs.SessionID{9}}); res.Kind != fs.OK {
		t.Errorf("%v", res.Kind)
	}
	if list, err := r.s.Sessions(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestInitCluster(t *testing.T) {
	r := newRig(t)
	if id := r.s.UUID(); id != "" {
		t.Errorf("uuid %q before the first", id)
	}
	r.refuse(fs.InitCluster{}, fs.ErrInvalid)
	r.must(fs.InitCluster{UUID: "first"})
	r.must(fs.InitCluster{UUID: "second"})
	if id := r.s.UUID(); id != "first" {
		t.Errorf("uuid %q", id)
	}
}

func TestNodeSeen(t *testing.T) {
	r := newRig(t)
	r.must(fs.OpenSession{Session: 7, Node: "n1"})
	r.must(fs.ExpireSession{Sessions: []fs.SessionID{7}})
	r.must(fs.OpenSession{Session: 8, Node: "n2"})
	for node, want := range map[fs.NodeID]bool{"n1": true, "n2": true, "n": false, "": false} {
		if seen, err := r.s.NodeSeen(node); err != nil || seen != want {
			t.Errorf("%q seen: %t, %v, want %t", node, seen, err, want)
		}
	}
}
