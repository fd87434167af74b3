package meta_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

func TestRoot(t *testing.T) {
	r := newRig(t)
	want := fs.Attr{Ino: 1, Mode: fs.ModeDir | 0o755, Nlink: 2, Size: 4096}
	if a := r.attr(1); a != want {
		t.Errorf("root %+v, want %+v", a, want)
	}
	if up, err := r.s.View().Parent(1); err != nil || up != 1 {
		t.Errorf("parent %d, %v", up, err)
	}
	if p := r.s.Check(); len(p) > 0 {
		t.Error(p)
	}
}

func TestApplySkipsWhatItHas(t *testing.T) {
	r := newRig(t)
	apply := func(at fs.Index) []fs.Result {
		res, _, err := r.s.Apply(at, []fs.Command{{Op: fs.Mkdir{Parent: 1, Name: fmt.Sprint("d", at)}}})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	apply(5)
	hash := r.s.StateHash()
	for _, at := range []fs.Index{0, 4, 5} {
		if res := apply(at); res != nil {
			t.Errorf("entry %d gave %v", at, res)
		}
	}
	if r.s.StateHash() != hash || r.s.Applied() != 5 {
		t.Errorf("hash %x, applied %d", r.s.StateHash(), r.s.Applied())
	}
	if res := apply(9); len(res) != 1 || res[0].Index != 9 || r.s.Applied() != 9 {
		t.Errorf("a gap, as the log's own entries make: %v, applied %d", res, r.s.Applied())
	}
	if _, _, err := r.s.Apply(10, nil); err != nil || r.s.Applied() != 10 {
		t.Errorf("an entry without commands: %v, applied %d", err, r.s.Applied())
	}
}

// TestHashTellsHistories: different entries, different hash; also for entries
// that change nothing else.
func TestHashTellsHistories(t *testing.T) {
	seen := map[uint64]string{}
	for what, batch := range map[string][]fs.Command{
		"nothing": nil, "mkdir a": {{Op: fs.Mkdir{Parent: 1, Name: "a"}}}, "mkdir b": {{Op: fs.Mkdir{Parent: 1, Name: "b"}}},
		"limit": {{Op: fs.SetLimits{BytesMax: 9}}}, "time": {{Now: fs.Time{Sec: 1}, Op: fs.Mkdir{Parent: 1, Name: "a"}}},
	} {
		r := newRig(t)
		if _, _, err := r.s.Apply(1, batch); err != nil {
			t.Fatal(err)
		}
		if other, dup := seen[r.s.StateHash()]; dup {
			t.Errorf("%s and %s have the same hash", what, other)
		}
		seen[r.s.StateHash()] = what
	}
}

// TestRefusedCommandLeavesBatch: in one entry, a refusal undoes its own command
// only.
func TestRefusedCommandLeavesBatch(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	batch := []fs.Command{
		{Op: fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "kept")}}},
		{Op: fs.Publish{Ino: f, Cut: ptr(0), Pieces: []fs.Piece{text(0, "undone"), text(fs.FileMax, "x")}}},
		{Op: fs.Mkdir{Parent: 1, Name: "d"}},
		{Op: fs.Mkdir{Parent: 1, Name: "d"}},
		{Op: fs.Append{Ino: f, Pieces: []fs.Piece{text(0, "!")}}},
	}
	res, keys, err := r.s.Apply(r.s.Applied()+1, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []fs.Kind{fs.OK, fs.ErrTooBig, fs.OK, fs.ErrExist, fs.OK} {
		if res[i].Kind != want {
			t.Errorf("command %d: %v, want %v", i, res[i].Kind, want)
		}
	}
	if got := r.content(f); got != "kept!" {
		t.Errorf("content %q", got)
	}
	if p := r.s.Check(); len(p) > 0 {
		t.Error(p)
	}
	for i, k := range keys {
		if slices.Contains(keys[:i], k) {
			t.Errorf("key %v twice", k)
		}
	}
}

// TestKeys: the keys of each operation are all that a reader could see changed.
func TestKeys(t *testing.T) {
	name := func(dir fs.Ino, n string) fs.Key { return fs.Key{Kind: fs.KeyName, Ino: dir, Name: n} }
	attr := func(i fs.Ino) fs.Key { return fs.Key{Kind: fs.KeyAttr, Ino: i} }
	data := func(i fs.Ino) fs.Key { return fs.Key{Kind: fs.KeyData, Ino: i} }
	lst := func(i fs.Ino) fs.Key { return fs.Key{Kind: fs.KeyList, Ino: i} }
	// Before each row: /d (2), /d/f (3), /d/sub (4), /e (5), /e/g (6), an orphan
	// (7), next 8.
	for _, row := range []struct {
		what string
		op   fs.Op
		want []fs.Key
	}{
		{"create", fs.Create{Parent: 2, Name: "n"}, []fs.Key{name(2, "n"), lst(2), attr(2), attr(8)}},
		{"create existing", fs.Create{Parent: 2, Name: "f"}, nil},
		{"mkdir", fs.Mkdir{Parent: 2, Name: "n"}, []fs.Key{name(2, "n"), lst(2), attr(2), attr(8)}},
		{"tmpfile", fs.Tmpfile{Parent: 2}, []fs.Key{attr(8)}},
		{"link", fs.Link{Ino: 3, Parent: 5, Name: "n"}, []fs.Key{name(5, "n"), lst(5), attr(5), attr(3)}},
		{"unlink", fs.Unlink{Parent: 2, Name: "f"}, []fs.Key{name(2, "f"), lst(2), attr(2), attr(3)}},
		{"rmdir", fs.Rmdir{Parent: 2, Name: "sub"}, []fs.Key{name(2, "sub"), lst(2), attr(2), attr(4)}},
		{"rename", fs.Rename{Parent: 2, Name: "sub", NewParent: 5, NewName: "n"}, []fs.Key{name(2, "sub"), name(5, "n"), lst(2), lst(5), attr(2), attr(5), attr(4)}},
		{"rename over", fs.Rename{Parent: 2, Name: "f", NewParent: 5, NewName: "g"}, []fs.Key{name(2, "f"), name(5, "g"), lst(2), lst(5), attr(2), attr(5), attr(3), attr(6)}},
		{"exchange", fs.Rename{Parent: 2, Name: "f", NewParent: 5, NewName: "g", Flags: fs.RenameExchange}, []fs.Key{name(2, "f"), name(5, "g"), lst(2), lst(5), attr(2), attr(5), attr(3), attr(6)}},
		{"chmod", fs.SetAttr{Ino: 3, Mask: fs.SetMode}, []fs.Key{attr(3)}},
		{"chmod of a directory", fs.SetAttr{Ino: 2, Mask: fs.SetMode | fs.SetAtime}, []fs.Key{attr(2)}},
		{"utimens of a file", fs.SetAttr{Ino: 3, Mask: fs.SetMtime}, []fs.Key{attr(3)}},
		{"utimens of a directory", fs.SetAttr{Ino: 2, Mask: fs.SetMtime}, []fs.Key{attr(2), lst(2)}},
		{"truncate", fs.SetAttr{Ino: 3, Mask: fs.SetSize, Size: 2}, []fs.Key{attr(3), data(3)}},
		{"xattr", fs.SetXattr{Ino: 3, Name: "user.a"}, []fs.Key{attr(3)}},
		{"publish", fs.Publish{Ino: 3, Pieces: []fs.Piece{text(0, "x")}}, []fs.Key{attr(3), data(3)}},
		{"append", fs.Append{Ino: 3, Pieces: []fs.Piece{text(0, "x")}}, []fs.Key{attr(3), data(3)}},
		{"reclaim", fs.Reclaim{Inos: []fs.Ino{7, 3}}, []fs.Key{attr(7), data(7)}},
		{"barrier", fs.Barrier{}, nil},
		{"refused", fs.Rmdir{Parent: 1, Name: "d"}, nil},
	} {
		t.Run(row.what, func(t *testing.T) {
			r := newRig(t)
			d := r.dir(1, "d")
			r.file(d, "f")
			r.dir(d, "sub")
			r.file(r.dir(1, "e"), "g")
			r.must(fs.Tmpfile{Parent: 1})
			var hooked []fs.Key
			r.s.SetBeforeCommit(func(at fs.Index, keys []fs.Key, by []int) {
				if at != r.s.Applied()+1 {
					t.Errorf("hook for %d, applied %d", at, r.s.Applied())
				}
				hooked = slices.Clone(keys)
				if len(by) != len(keys) || slices.ContainsFunc(by, func(i int) bool { return i != 0 }) {
					t.Errorf("keys of an entry of one command are by %v", by)
				}
			})
			r.do(row.op)
			if !sameKeys(r.keys, row.want) {
				t.Errorf("keys %v, want %v", r.keys, row.want)
			}
			if !slices.Equal(hooked, r.keys) {
				t.Errorf("hook got %v, Apply returned %v", hooked, r.keys)
			}
		})
	}
}

// TestKeysSayWhichCommand: the hook learns which command of an entry touched a
// key. A refused one touched nothing; one that touched it twice is still one.
func TestKeysSayWhichCommand(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f") // 2
	got := map[fs.Key]int{}
	r.s.SetBeforeCommit(func(_ fs.Index, keys []fs.Key, by []int) {
		for i, k := range keys {
			got[k] = by[i]
		}
	})
	_, keys, err := r.s.Apply(r.s.Applied()+1, []fs.Command{
		{Op: fs.Mkdir{Parent: 1, Name: "f"}}, // refused
		{Op: fs.Create{Parent: 1, Name: "a"}},
		{Op: fs.SetAttr{Ino: f, Mask: fs.SetMode | fs.SetSize, Size: 9}},
		{Op: fs.Create{Parent: 1, Name: "b"}},
		{Op: fs.Publish{Ino: f, Pieces: []fs.Piece{text(0, "x"), text(9, "y")}}},
		{Op: fs.Unlink{Parent: 1, Name: "a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[fs.Key]int{
		{Kind: fs.KeyName, Ino: 1, Name: "a"}: -1, {Kind: fs.KeyName, Ino: 1, Name: "b"}: 3,
		{Kind: fs.KeyList, Ino: 1}: -1, {Kind: fs.KeyAttr, Ino: 1}: -1,
		{Kind: fs.KeyAttr, Ino: 3}: -1, {Kind: fs.KeyAttr, Ino: 4}: 3,
		{Kind: fs.KeyAttr, Ino: f}: -1, {Kind: fs.KeyData, Ino: f}: -1,
	}
	if !maps.Equal(got, want) || len(keys) != len(want) {
		t.Errorf("keys %v\nby %v\nwant %v", keys, got, want)
	}
}

func sameKeys(a, b []fs.Key) bool {
	for _, k := range a {
		if !slices.Contains(b, k) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestReadSeesOneState: readers beside Apply never see half an entry.
func TestReadSeesOneState(t *testing.T) {
	r := newRig(t)
	d, e := r.dir(1, "d"), r.dir(1, "e")
	f := r.file(d, "f")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := r.s.Read(func(v fs.View) error {
					_, err1 := v.Lookup(d, "f")
					_, err2 := v.Lookup(e, "f")
					if (err1 == nil) == (err2 == nil) {
						return fmt.Errorf("in d: %w, in e: %w", err1, err2)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				if a, err := r.s.View().Attr(f); err != nil || a.Nlink != 1 {
					t.Errorf("%+v, %v", a, err)
				}
			}
		})
	}
	for i := range 2000 {
		from, to := d, e
		if i%2 == 1 {
			from, to = e, d
		}
		res, _, err := r.s.Apply(r.s.Applied()+1, []fs.Command{{Op: fs.Rename{Parent: from, Name: "f", NewParent: to, NewName: "f"}}})
		if err != nil || res[0].Kind != fs.OK {
			t.Fatal(res, err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestViewErrors(t *testing.T) {
	r := newRig(t)
	f, d := r.file(1, "f"), r.dir(1, "d")
	v := r.s.View()
	long := string(make([]byte, 256))
	for what, row := range map[string]struct {
		err  error
		want fs.Kind
	}{
		"lookup a missing name":    {second(v.Lookup(1, "x")), fs.ErrNotFound},
		"lookup dot":               {second(v.Lookup(1, ".")), fs.ErrNotFound},
		"lookup a long name":       {second(v.Lookup(1, long)), fs.ErrNameTooLong},
		"lookup in a file":         {second(v.Lookup(f, "x")), fs.ErrNotDir},
		"lookup in nothing":        {second(v.Lookup(99, "x")), fs.ErrStale},
		"stat nothing":             {second(v.Attr(99)), fs.ErrStale},
		"parent of a file":         {second(v.Parent(f)), fs.ErrNotDir},
		"parent of nothing":        {second(v.Parent(99)), fs.ErrStale},
		"list a file":              {second(v.List(f, 0, 1)), fs.ErrNotDir},
		"list nothing":             {second(v.List(99, 0, 1)), fs.ErrStale},
		"readlink a file":          {second(v.Readlink(f)), fs.ErrInvalid},
		"readlink nothing":         {second(v.Readlink(99)), fs.ErrStale},
		"extents of a directory":   {second(v.Extents(d, 0, 1)), fs.ErrIsDir},
		"extents of nothing":       {second(v.Extents(99, 0, 1)), fs.ErrStale},
		"missing chunk":            {second(v.Chunk(fs.ChunkID{})), fs.ErrNotFound},
		"missing xattr":            {second(v.Xattr(f, "user.a")), fs.ErrNoXattr},
		"xattr of nothing":         {second(v.Xattr(99, "user.a")), fs.ErrStale},
		"list of xattrs of none":   {second(v.Xattrs(99)), fs.ErrStale},
		"extents that wrap around": {second(v.Extents(f, 1, 1<<64-1)), fs.OK},
		"listing from the end":     {second(v.List(1, 1<<64-1, 1)), fs.OK},
	} {
		if k := fs.KindOf(row.err); k != row.want {
			t.Errorf("%s: %v, want %v", what, row.err, row.want)
		}
		var e *fs.Error
		if row.want != fs.OK && !errors.As(row.err, &e) {
			t.Errorf("%s: %T", what, row.err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// failingKV fails the Commit with this number.
type failingKV struct {
	meta.KV
	left int
}

var errDisk = errors.New("no disk")

func (f *failingKV) Commit(w []meta.Write) error {
	if f.left--; f.left < 0 {
		return errDisk
	}
	return f.KV.Commit(w)
}

func TestFailingStoreLatches(t *testing.T) {
	kv := &failingKV{meta.NewMemKV(), 2} // root, one entry
	s, err := meta.Open(kv)
	if err != nil {
		t.Fatal(err)
	}
	mkdir := func(at fs.Index, name string) error {
		_, _, err := s.Apply(at, []fs.Command{{Op: fs.Mkdir{Parent: 1, Name: name}}})
		return err
	}
	if err := mkdir(1, "a"); err != nil {
		t.Fatal(err)
	}
	hash := s.StateHash()
	if err := mkdir(2, "b"); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	kv.left = 100
	if err := mkdir(3, "c"); !errors.Is(err, errDisk) {
		t.Errorf("after a failure: %v", err)
	}
	if s.Applied() != 1 || s.StateHash() != hash {
		t.Errorf("applied %d", s.Applied())
	}
	if u, err := s.View().Usage(); err != nil || u.Inodes != 2 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestDamagedStoreStopsApply: what cannot be is an error, not a result and not a
// panic.
func TestDamagedStoreStopsApply(t *testing.T) {
	r := newRig(t)
	f := r.file(1, "f")
	kv := meta.KVOf(r.s)
	key := append([]byte("i"), 0, 0, 0, 0, 0, 0, 0, byte(f))
	for what, w := range map[string]meta.Write{
		"missing inode": {Key: key, Delete: true}, "cut off": {Key: key, Value: []byte{1, 2}}, "empty": {Key: key},
	} {
		if err := kv.Commit([]meta.Write{w}); err != nil {
			t.Fatal(err)
		}
		s, err := meta.Open(kv)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Apply(s.Applied()+1, []fs.Command{{Op: fs.Unlink{Parent: 1, Name: "f"}}}); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := s.View().Lookup(1, "f"); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%s: lookup: %v", what, err)
		}
	}
	var newer *meta.VersionError
	if err := kv.Commit([]meta.Write{{Key: key, Value: []byte{2}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.s.View().Attr(f); !errors.As(err, &newer) || newer.Got != 2 {
		t.Errorf("a record of a newer release: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	var newer *meta.VersionError
	for what, row := range map[string]struct {
		w    meta.Write
		want func(error) bool
	}{
		"newer format":      {meta.Write{Key: []byte("mformat"), Value: []byte{2}}, func(err error) bool { return errors.As(err, &newer) && newer.Got == 2 && newer.Max == 1 }},
		"no format":         {meta.Write{Key: []byte("mformat"), Value: []byte{}}, isCorrupt},
		"format 0":          {meta.Write{Key: []byte("mformat"), Value: []byte{0}}, isCorrupt},
		"format with more":  {meta.Write{Key: []byte("mformat"), Value: []byte{1, 1}}, isCorrupt},
		"format deleted":    {meta.Write{Key: []byte("mformat"), Delete: true}, isCorrupt},
		"no system record":  {meta.Write{Key: []byte("msystem"), Delete: true}, isCorrupt},
		"bad system record": {meta.Write{Key: []byte("msystem"), Value: []byte{1, 0xff}}, isCorrupt},
		"bad applied":       {meta.Write{Key: []byte("mapplied"), Value: []byte{1}}, isCorrupt},
	} {
		r := newRig(t)
		kv := meta.KVOf(r.s)
		if err := kv.Commit([]meta.Write{row.w}); err != nil {
			t.Fatal(err)
		}
		if _, err := meta.Open(kv); err == nil || !row.want(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func isCorrupt(err error) bool { return fs.KindOf(err) == fs.ErrCorrupt }

// TestLinkMax changes link counts in the store, because making 65,000 links
// takes long.
func TestLinkMax(t *testing.T) {
	full := func(t *testing.T, name string, dir bool) (*meta.State, fs.Ino) {
		r := newRig(t)
		r.dir(r.dir(1, "from"), "sub")
		ino := fs.Ino(0)
		if dir {
			ino = r.dir(1, name)
		} else {
			ino = r.file(1, name)
		}
		meta.SetNlink(t, r.s, ino, fs.LinkMax)
		return r.s, ino
	}
	kind := func(s *meta.State, op fs.Op) fs.Kind {
		res, _, err := s.Apply(s.Applied()+1, []fs.Command{{Op: op}})
		if err != nil {
			t.Fatal(err)
		}
		return res[0].Kind
	}
	s, f := full(t, "f", false)
	if k := kind(s, fs.Link{Ino: f, Parent: 1, Name: "g"}); k != fs.ErrTooManyLinks {
		t.Errorf("link: %v", k)
	}
	s, d := full(t, "d", true)
	if k := kind(s, fs.Mkdir{Parent: d, Name: "x"}); k != fs.ErrTooManyLinks {
		t.Errorf("mkdir: %v", k)
	}
	if k := kind(s, fs.Rename{Parent: 2, Name: "sub", NewParent: d, NewName: "x"}); k != fs.ErrTooManyLinks {
		t.Errorf("rename: %v", k)
	}
	if k := kind(s, fs.Create{Parent: d, Name: "file"}); k != fs.OK {
		t.Errorf("create: %v", k)
	}
	if k := kind(s, fs.Rename{Parent: 2, Name: "sub", NewParent: d, NewName: "file", Flags: fs.RenameExchange}); k != fs.ErrTooManyLinks {
		t.Errorf("exchange there: %v", k)
	}
	if k := kind(s, fs.Rename{Parent: d, Name: "file", NewParent: 2, NewName: "sub", Flags: fs.RenameExchange}); k != fs.ErrTooManyLinks {
		t.Errorf("exchange back: %v", k)
	}
}
