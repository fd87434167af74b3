package meta_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func TestPublish(t *testing.T) {
	for _, row := range []struct {
		what  string
		op    fs.Publish // into a file with "0123456789"
		want  string
		bytes uint64
	}{
		{"overwrite", fs.Publish{Pieces: []fs.Piece{text(2, "ab")}}, "01ab456789", 10},
		{"across the end", fs.Publish{Pieces: []fs.Piece{text(8, "abcd")}}, "01234567abcd", 12},
		{"behind the end", fs.Publish{Pieces: []fs.Piece{text(12, "ab")}}, "0123456789\x00\x00ab", 12},
		{"all of it", fs.Publish{Pieces: []fs.Piece{text(0, "abcdefghij")}}, "abcdefghij", 10},
		{"two pieces", fs.Publish{Pieces: []fs.Piece{text(8, "x"), text(0, "y")}}, "y1234567x9", 10},
		{"the later piece wins", fs.Publish{Pieces: []fs.Piece{text(1, "abc"), text(2, "XYZ")}}, "0aXYZ56789", 10},
		{"cut, then write", fs.Publish{Cut: ptr(0), Pieces: []fs.Piece{text(0, "ab")}}, "ab", 2},
		{"cut in the middle, then write behind", fs.Publish{Cut: ptr(3), Pieces: []fs.Piece{text(5, "ab")}}, "012\x00\x00ab", 5},
		{"cut longer", fs.Publish{Cut: ptr(12)}, "0123456789\x00\x00", 10},
		{"grow", fs.Publish{Grow: 12}, "0123456789\x00\x00", 10},
		{"grow to less", fs.Publish{Grow: 5}, "0123456789", 10},
		{"cut, write and grow", fs.Publish{Cut: ptr(1), Pieces: []fs.Piece{text(2, "a")}, Grow: 4}, "0\x00a\x00", 2},
		{"nothing", fs.Publish{}, "0123456789", 10},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			f := r.file(1, "f")
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "0123456789")}, Mtime: r.now})
			was := r.attr(f)
			row.op.Ino, row.op.Mtime = f, r.now
			a := r.must(row.op)
			if got := r.content(f); got != row.want || a.Bytes != row.bytes || a.Size != uint64(len(row.want)) {
				t.Errorf("%q of %d bytes, %d in extents, want %q, %d", got, a.Size, a.Bytes, row.want, row.bytes)
			}
			changed := row.op.Cut != nil || row.op.Pieces != nil || row.op.Grow > 10
			if changed != was.Mtime.Before(a.Mtime) || changed != was.Ctime.Before(a.Ctime) || changed != (a.Version > was.Version) {
				t.Errorf("changed %t, was %+v, is %+v", changed, was, a)
			}
			hasData := slices.Contains(r.keys, fs.Key{Kind: fs.KeyData, Ino: f})
			if changed != hasData || changed != slices.Contains(r.keys, fs.Key{Kind: fs.KeyAttr, Ino: f}) {
				t.Errorf("changed %t, keys %v", changed, r.keys)
			}
		})
	}
}

func TestPublishAttr(t *testing.T) {
	r := newRig(t)
	f := r.must(fs.Create{Parent: 1, Name: "f", Mode: 0o6755, Cred: alice}).Ino
	a := r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "x")}, Mask: fs.KillSetid})
	if a.Mode != fs.ModeRegular|0o755 {
		t.Errorf("mode %o", a.Mode)
	}
	a = r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(1, "yz")}, Mtime: r.now, Attr: &fs.SetAttr{
		Ino: 77, Mask: fs.SetMode | fs.SetMtime | fs.SetSize, Mode: 0o4600, Mtime: fs.Time{Sec: 3}, Size: 2,
	}})
	if a.Ino != f || a.Mode != fs.ModeRegular|0o4600 || a.Mtime != (fs.Time{Sec: 3}) || a.Size != 2 || r.content(f) != "xy" {
		t.Errorf("%+v, content %q", a, r.content(f))
	}
	r.refuse(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "new")}, Attr: &fs.SetAttr{Mask: 1 << 9}}, fs.ErrInvalid)
	if got := r.content(f); got != "xy" {
		t.Errorf("a refused publication left %q", got)
	}
	a = r.must(fs.Append{Ino: f, Mask: fs.KillSetid, Attr: &fs.SetAttr{Mask: fs.SetUid, Uid: 3}})
	if a.Mode != fs.ModeRegular|0o600 || a.Uid != 3 || a.Mtime != (fs.Time{Sec: 3}) {
		t.Errorf("%+v", a)
	}
}

// held says that nodes have the chunk with these bytes.
func held(off uint64, content string, from, n int, nodes ...fs.NodeID) fs.Piece {
	return fs.Piece{Off: off, Len: uint64(n), Hash: sha256.Sum256([]byte(content)), ChunkOff: uint32(from), ChunkLen: uint32(len(content)), Holders: nodes}
}

func TestPublishRefusals(t *testing.T) {
	r := newRig(t)
	f, d := r.file(1, "f"), r.dir(1, "d")
	l := r.must(fs.Symlink{Parent: 1, Name: "l", Target: "f"}).Ino
	x := strings.Repeat("x", fs.InlineMax)
	long := make([]fs.Piece, fs.ExtentsMax+1)
	for i := range long {
		long[i] = held(0, "abc", 0, 3, "n1")
	}
	many := make([]fs.NodeID, meta.HoldersMax+1)
	for i := range many {
		many[i] = "n"
	}
	with := func(p fs.Piece, change func(*fs.Piece)) fs.Piece {
		change(&p)
		return p
	}
	ok := held(0, "abc", 0, 3, "n1")
	for _, row := range []struct {
		what   string
		pieces []fs.Piece
		want   fs.Kind
	}{
		{"empty inline", []fs.Piece{{Data: []byte{}}}, fs.ErrInvalid},
		{"empty held", []fs.Piece{with(ok, func(p *fs.Piece) { p.Len = 0 })}, fs.ErrInvalid},
		{"length is not the data's", []fs.Piece{{Len: 3, Data: []byte("ab")}}, fs.ErrInvalid},
		{"too much inline", []fs.Piece{text(0, x), text(0, "y")}, fs.ErrInvalid},
		{"too many pieces", long, fs.ErrInvalid},
		{"chunk too long", []fs.Piece{with(ok, func(p *fs.Piece) { p.ChunkLen = fs.ChunkMax + 1 })}, fs.ErrInvalid},
		{"longer than the chunk", []fs.Piece{with(ok, func(p *fs.Piece) { p.Len = 4 })}, fs.ErrInvalid},
		{"beyond the chunk's end", []fs.Piece{with(ok, func(p *fs.Piece) { p.ChunkOff = 1 })}, fs.ErrInvalid},
		{"offset that wraps around", []fs.Piece{with(ok, func(p *fs.Piece) { p.ChunkOff = 1<<32 - 1; p.Len = 2 })}, fs.ErrInvalid},
		{"nobody has it", []fs.Piece{with(ok, func(p *fs.Piece) { p.Holders = nil })}, fs.ErrInvalid},
		{"too many holders", []fs.Piece{with(ok, func(p *fs.Piece) { p.Holders = many })}, fs.ErrInvalid},
		{"holder without a name", []fs.Piece{with(ok, func(p *fs.Piece) { p.Holders = []fs.NodeID{""} })}, fs.ErrInvalid},
		{"beyond the largest file", []fs.Piece{with(ok, func(p *fs.Piece) { p.Off = fs.FileMax - 2 })}, fs.ErrTooBig},
		{"offset that overflows", []fs.Piece{with(ok, func(p *fs.Piece) { p.Off = 1<<64 - 1 })}, fs.ErrTooBig},
	} {
		t.Run(row.what, func(t *testing.T) {
			r.t = t
			r.refuse(fs.Publish{Ino: f, Pieces: row.pieces}, row.want)
			if row.want == fs.ErrInvalid {
				r.refuse(fs.Append{Ino: f, Pieces: row.pieces}, row.want)
			}
		})
	}
	r.t = t
	good := []fs.Piece{text(0, "a")}
	for ino, want := range map[fs.Ino]fs.Kind{d: fs.ErrIsDir, l: fs.ErrInvalid, 99: fs.ErrStale} {
		r.refuse(fs.Publish{Ino: ino, Pieces: good}, want)
		r.refuse(fs.Append{Ino: ino, Pieces: good}, want)
	}
	r.refuse(fs.Publish{Ino: f, Pieces: good, Mask: fs.SetMode}, fs.ErrInvalid)
	r.refuse(fs.Append{Ino: f, Pieces: good, Mtime: fs.Time{Nsec: 1e9}}, fs.ErrInvalid)
	r.refuse(fs.Publish{Ino: f, Cut: ptr(fs.FileMax + 1)}, fs.ErrTooBig)
	r.refuse(fs.Publish{Ino: f, Grow: fs.FileMax + 1}, fs.ErrTooBig)
	r.must(fs.Publish{Ino: f, Grow: fs.FileMax})
	r.refuse(fs.Append{Ino: f, Pieces: good}, fs.ErrTooBig)
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(fs.FileMax-3, "abc", 0, 3, "n1")}})
}

// chunks lists a file's chunk records.
func (r *rig) chunks(ino fs.Ino) (list []fs.ChunkInfo) {
	r.t.Helper()
	for _, x := range r.extents(ino) {
		c, err := r.s.View().Chunk(x.Chunk)
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func TestInlineChunksAreShared(t *testing.T) {
	r := newRig(t)
	var gone []string
	r.s.SetDroppedInline(func(_ fs.ChunkID, b []byte) { gone = append(gone, string(b)) })
	f, g := r.file(1, "f"), r.file(1, "g")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "same")}})
	first := r.s.Applied()
	r.must(fs.Publish{Ino: g, Pieces: []fs.Piece{text(0, "same"), text(10, "same")}})
	c := r.chunks(g)
	if len(c) != 2 || c[0].ID != c[1].ID || c[0].Refs != 3 || c[0].ID.Gen != first || string(c[0].Inline) != "same" || c[0].Durable {
		t.Fatalf("chunks %+v", c)
	}
	// The same bytes in place of themselves: the chunk must not go in between.
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "same")}})
	if c := r.chunks(f); c[0].ID.Gen != first {
		t.Errorf("made again: %+v", c)
	}
	// A hole in the middle of an extent makes two of it.
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(1, "XX")}})
	if x := r.extents(f); len(x) != 3 || x[0].Len != 1 || x[2].ChunkOff != 3 || r.content(f) != "sXXe" {
		t.Errorf("extents %+v", x)
	}
	if c := r.chunks(f); c[0].Refs != 4 || c[1].Refs != 1 {
		t.Errorf("references %d and %d, want 4 and 1", c[0].Refs, c[1].Refs)
	}
	if len(gone) > 0 {
		t.Errorf("dropped %q", gone)
	}
	id := r.chunks(f)[0].ID
	r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 0})
	r.must(fs.SetAttr{Ino: g, Mask: fs.SetSize, Size: 0})
	if _, err := r.s.View().Chunk(id); !errors.Is(err, fs.ErrNotFound) {
		t.Errorf("the last reference went, the chunk: %v", err)
	}
	if len(gone) > 0 { // nobody reads it any more: nobody is to keep it
		t.Errorf("handed over %q", gone)
	}
	// The same bytes come back under a new name (rule R36).
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "same")}})
	if c := r.chunks(f); c[0].ID.Gen != r.s.Applied() {
		t.Errorf("the name was used twice: %+v", c)
	}
}

func TestHeldChunks(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(0, "0123456789", 2, 5, "n2", "n1", "n2")}})
	c := r.chunks(f)[0]
	if c.Size != 10 || c.Refs != 1 || fmt.Sprint(c.Holders) != "[n1 n2]" || c.Inline != nil {
		t.Errorf("%+v", c)
	}
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(20, "0123456789", 0, 10, "n3")}})
	if got := r.chunks(f)[1]; got.ID != c.ID || got.Refs != 2 || fmt.Sprint(got.Holders) != "[n1 n2 n3]" {
		t.Errorf("%+v", got)
	}
	// A copy without holders is good as long as the chunk is known to be kept.
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(40, "0123456789", 0, 10)}})
	lie := held(60, "0123456789", 0, 3, "n1")
	lie.ChunkLen = 9
	r.refuse(fs.Publish{Ino: f, Pieces: []fs.Piece{lie}}, fs.ErrInvalid)
	// Its last reference gone, the record stays for the collector, but nobody
	// is bound to keep the bytes.
	r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 0})
	if got, err := r.s.View().Chunk(c.ID); err != nil || got.Refs != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	r.refuse(fs.Publish{Ino: f, Pieces: []fs.Piece{held(0, "0123456789", 0, 10)}}, fs.ErrInvalid)
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(0, "0123456789", 0, 10, "n4")}})
	if got := r.chunks(f)[0]; got.ID != c.ID || fmt.Sprint(got.Holders) != "[n4]" {
		t.Errorf("%+v", got)
	}
	r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 0})
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "0123456789")}})
	if got := r.chunks(f)[0]; got.ID != c.ID || string(got.Inline) != "0123456789" {
		t.Errorf("bytes that nobody is bound to keep were thrown away: %+v", got)
	}
}

// TestTrueBytesBeatAFalseSize: a piece with a wrong ChunkLen must not keep
// everybody from writing these bytes.
func TestTrueBytesBeatAFalseSize(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	lie := held(0, "abc", 0, 2, "n1")
	lie.ChunkLen = 2
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{lie}})
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "abc")}})
	if got := r.content(f); got != "abc" {
		t.Errorf("content %q", got)
	}
	other := held(0, "xyz", 0, 2, "n1")
	other.ChunkLen = 2
	r.refuse(fs.Publish{Ino: f, Pieces: []fs.Piece{other, text(0, "xyz")}}, fs.ErrInvalid)
}

func TestMarkDurable(t *testing.T) {
	r := newRig(t)
	gone := map[fs.ChunkID]string{}
	r.s.SetDroppedInline(func(id fs.ChunkID, b []byte) { gone[id] = string(b) })
	f := r.file(1, "f")
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "new")}})
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{held(8, "0123456789", 0, 10, "n1"), text(20, "newer")}})
	list, err := r.s.Undurable(fs.ChunkID{}, 10)
	if err != nil || len(list) != 3 || list[0].Info.ID.Gen > list[1].Info.ID.Gen {
		t.Fatalf("%+v, %v", list, err)
	}
	if rest, err := r.s.Undurable(list[0].Info.ID, 1); err != nil || len(rest) != 1 || rest[0].Info.ID != list[1].Info.ID {
		t.Errorf("behind the first: %+v, %v", rest, err)
	}
	inline := 0
	for _, u := range list {
		if u.Info.Inline != nil || u.Info.Refs != 1 {
			t.Errorf("%+v", u)
		}
		if u.Inline {
			inline++
		}
	}
	if inline != 2 {
		t.Errorf("%d inline, want 2", inline)
	}
	r.must(fs.MarkDurable{Chunks: []fs.ChunkID{list[0].Info.ID, {Gen: 77}, list[0].Info.ID}})
	if len(r.keys) > 0 {
		t.Errorf("readers see no difference, keys %v", r.keys)
	}
	c := r.chunks(f)[0]
	if !c.Durable || c.Inline != nil || gone[c.ID] != "new" || len(gone) != 1 {
		t.Errorf("%+v, dropped %q", c, gone)
	}
	for _, u := range list[1:] {
		r.must(fs.MarkDurable{Chunks: []fs.ChunkID{u.Info.ID}})
	}
	if list, err := r.s.Undurable(fs.ChunkID{}, 10); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	// Bytes the object store has are never inline again.
	r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "new")}})
	if got := r.chunks(f)[0]; got.ID != c.ID || got.Inline != nil {
		t.Errorf("%+v", got)
	}
	r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 0})
	if got, err := r.s.View().Chunk(c.ID); err != nil || got.Refs != 0 || !got.Durable {
		t.Errorf("a durable chunk without references: %+v, %v", got, err)
	}
}

func TestAppend(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	res := r.do(fs.Append{Ino: f, Pieces: []fs.Piece{text(99, "one\n"), text(0, "two\n")}, Mtime: r.now})
	if res.Kind != fs.OK || res.Offset != 0 || res.Attr.Size != 8 {
		t.Errorf("%+v", res)
	}
	res = r.do(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "three\n"), held(0, "FOUR\n", 0, 5, "n1"), text(0, "five\n")}})
	if res.Kind != fs.OK || res.Offset != 8 || res.Attr.Size != 24 || res.Attr.Bytes != 24 {
		t.Errorf("%+v", res)
	}
	if res = r.do(fs.Append{Ino: f}); res.Kind != fs.OK || res.Offset != 24 || len(r.keys) > 0 {
		t.Errorf("nothing appended: %+v, keys %v", res, r.keys)
	}
	if x := r.extents(f); len(x) != 3 {
		t.Errorf("extents %+v", x)
	}
	r.must(fs.Publish{Ino: f, Grow: 30})
	if res = r.do(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "six")}}); res.Offset != 30 {
		t.Errorf("behind a hole: %+v", res)
	}
}

// TestAppendMerges: which appends join the last chunk.
func TestAppendMerges(t *testing.T) {
	big := strings.Repeat("b", meta.AppendMergeMax-4)
	for _, row := range []struct {
		what    string
		prepare func(r *rig, f fs.Ino)
		add     string
		extents int
	}{
		{"to an empty file", func(*rig, fs.Ino) {}, "x", 1},
		{"to a line", func(r *rig, f fs.Ino) { r.must(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "line")}}) }, "x", 1},
		{"up to the limit", func(r *rig, f fs.Ino) { r.must(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, big)}}) }, "1234", 1},
		{"beyond the limit", func(r *rig, f fs.Ino) { r.must(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, big)}}) }, "12345", 2},
		{"to a trimmed head", func(r *rig, f fs.Ino) {
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "abcd")}})
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "X")}})
		}, "x", 2},
		{"to a trimmed tail", func(r *rig, f fs.Ino) {
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "abcd")}})
			r.must(fs.SetAttr{Ino: f, Mask: fs.SetSize, Size: 2})
		}, "x", 2},
		{"to a shared chunk", func(r *rig, f fs.Ino) {
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "abcd")}})
			r.must(fs.Publish{Ino: r.file(1, "g"), Pieces: []fs.Piece{text(0, "abcd")}})
		}, "x", 2},
		{"to a held chunk", func(r *rig, f fs.Ino) { r.must(fs.Append{Ino: f, Pieces: []fs.Piece{held(0, "abcd", 0, 4, "n1")}}) }, "x", 2},
		{"to a durable chunk", func(r *rig, f fs.Ino) {
			r.must(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "abcd")}})
			r.must(fs.MarkDurable{Chunks: []fs.ChunkID{r.chunks(f)[0].ID}})
		}, "x", 2},
		{"behind a hole", func(r *rig, f fs.Ino) {
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "abcd")}, Grow: 5})
		}, "x", 2},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			f := r.file(1, "f")
			row.prepare(r, f)
			before := r.attr(f).Size
			res := r.do(fs.Append{Ino: f, Pieces: []fs.Piece{text(0, row.add)}})
			if res.Kind != fs.OK || res.Offset != before || res.Attr.Size != before+uint64(len(row.add)) {
				t.Errorf("%+v", res)
			}
			x := r.extents(f)
			if len(x) != row.extents {
				t.Errorf("extents %+v, want %d", x, row.extents)
			}
			c := r.chunks(f)
			if last := string(c[len(c)-1].Inline); !strings.HasSuffix(last, row.add) {
				t.Errorf("the last chunk is %q", last)
			}
		})
	}
}

// TestReclaimInSteps: one Reclaim does so much work and no more.
func TestReclaimInSteps(t *testing.T) {
	r := newRig(t)
	f, g := r.file(1, "f"), r.file(1, "g")
	pieces := make([]fs.Piece, fs.ExtentsMax)
	fill := func(ino fs.Ino, from, n int) {
		for i := range pieces[:n] {
			pieces[i] = held(uint64(from+i)*2, "abc", 0, 1, "n1")
		}
		res, _, err := r.s.Apply(r.s.Applied()+1, []fs.Command{{Op: fs.Publish{Ino: ino, Pieces: pieces[:n]}}})
		if err != nil || res[0].Kind != fs.OK {
			t.Fatal(res, err)
		}
	}
	for n := 0; n < meta.ReclaimExtentsMax; n += len(pieces) {
		fill(f, n, len(pieces))
	}
	fill(f, meta.ReclaimExtentsMax, 10)
	for n := 0; n < meta.ReclaimExtentsMax-10; n += len(pieces) {
		fill(g, n, min(len(pieces), meta.ReclaimExtentsMax-10-n))
	}
	last := r.file(1, "last")
	fill(last, 0, 1)
	r.must(fs.SetXattr{Ino: f, Name: "user.a"})
	for _, name := range []string{"f", "g", "last"} {
		r.must(fs.Unlink{Parent: 1, Name: name})
	}
	// All but 10 extents of f; those and all of g, exactly; the last one.
	for _, left := range [][]fs.Ino{{f, g, last}, {last}, nil} {
		r.must(fs.Reclaim{Inos: []fs.Ino{f, g, last}})
		list, err := r.s.Orphans(0, 9)
		if err != nil || len(list) != len(left) {
			t.Fatalf("%v, %v, want %v", list, err, left)
		}
		for i, o := range list {
			if o.Ino != left[i] {
				t.Errorf("%v, want %v", list, left)
			}
		}
	}
	if _, err := r.s.View().Attr(f); !errors.Is(err, fs.ErrStale) {
		t.Errorf("a reclaimed inode: %v", err)
	}
	if next := r.file(1, "h"); next <= last {
		t.Errorf("inode number %d after %d: numbers do not return", next, last)
	}
}

// splice plays random publications and compares with a byte array.
func splice(t testing.TB, seq []byte) {
	r := newRig(t)
	f := r.file(1, "f")
	var want []byte
	fit := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	for ; len(seq) >= 4; seq = seq[4:] {
		off, n, fill := int(seq[1])|int(seq[0]>>4)<<8, 1+int(seq[2]), seq[3]
		b := bytes.Repeat([]byte{fill}, n)
		op := fs.Publish{Ino: f, Pieces: []fs.Piece{{Off: uint64(off), Len: uint64(n), Data: b}}}
		switch seq[0] & 7 {
		case 0:
			op = fs.Publish{Ino: f, Cut: ptr(uint64(off))}
			fit(off)
			want = want[:off]
		case 1:
			op = fs.Publish{Ino: f, Grow: uint64(off)}
			fit(off)
		case 2:
			r.must(fs.Append{Ino: f, Pieces: op.Pieces})
			want = append(want, b...)
			continue
		case 3:
			chunk := strings.Repeat(string(rune('a'+fill%4)), 256)
			op.Pieces[0] = held(uint64(off), chunk, 256-n, n, "n1")
			r.must(op)
			r.must(fs.Publish{Ino: f, Pieces: []fs.Piece{{Off: uint64(off), Len: uint64(n), Data: b}}})
			fit(off + n)
			copy(want[off:], b)
			continue
		default:
			fit(off + n)
			copy(want[off:], b)
		}
		r.must(op)
	}
	if got := r.content(f); got != string(want) {
		t.Fatalf("content differs: %d bytes, want %d", len(got), len(want))
	}
	for cut := uint64(len(want)); cut > 0; cut /= 2 {
		list, err := r.s.View().Extents(f, cut/2, cut-cut/2)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range list {
			if x.Off >= cut || x.Off+x.Len <= cut/2 || i > 0 && list[i-1].Off+list[i-1].Len > x.Off {
				t.Fatalf("extents of [%d,%d): %+v", cut/2, cut, list)
			}
		}
	}
}

func TestSplice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seedOf(t), 2))
	for range 30 {
		seq := make([]byte, 4*40)
		for i := range seq {
			seq[i] = byte(rnd.Uint32())
		}
		splice(t, seq)
	}
}

func FuzzSplice(f *testing.F) {
	f.Add([]byte{4, 0, 10, 'a', 4, 5, 10, 'b', 0x10, 3, 0, 0})
	f.Add([]byte{2, 0, 10, 'a', 2, 5, 10, 'b', 3, 3, 7, 1})
	f.Fuzz(func(t *testing.T, seq []byte) {
		if len(seq) <= 4*64 {
			splice(t, seq)
		}
	})
}
