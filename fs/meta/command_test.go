package meta_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/meta/metatest"
)

// writeGolden adds encodings that testdata does not have yet. It never changes
// one: what is in a log somewhere must decode for ever.
var writeGolden = flag.Bool("write-golden", false, "add missing encodings to testdata")

// samples has every operation with every field set, and with none.
func samples() map[string]fs.Command {
	c := fs.Cred{Uid: 1000, Gid: 33}
	t1, t2 := fs.Time{Sec: -5, Nsec: 999_999_999}, fs.Time{Sec: 1 << 40, Nsec: 1}
	attr := fs.SetAttr{Ino: 300, Mask: fs.SetMode | fs.KillSetid, Mode: 0o4755, Uid: 1, Gid: 2, Size: 1 << 50, Atime: t1, Mtime: t2, Cred: c}
	hash := fs.Hash{0: 0xab, 31: 0xcd}
	pieces := []fs.Piece{
		{Off: 4096, Len: 5, Data: []byte("hello")},
		{Off: 1 << 40, Len: 100, Hash: hash, ChunkOff: 7, ChunkLen: 4 << 20, Holders: []fs.NodeID{"web1", "web2"}},
	}
	ops := map[string]fs.Op{
		"create":      fs.Create{Parent: 1, Name: "index.php", Mode: 0o644, Excl: true, Cred: c},
		"mkdir":       fs.Mkdir{Parent: 1, Name: "wp-content", Mode: 0o755, Cred: c},
		"mknod":       fs.Mknod{Parent: 2, Name: "fifo", Mode: fs.ModeFifo | 0o600, Rdev: 0x501, Cred: c},
		"symlink":     fs.Symlink{Parent: 2, Name: "link", Target: "../target", Cred: c},
		"tmpfile":     fs.Tmpfile{Parent: 3, Mode: 0o600, Cred: c},
		"link":        fs.Link{Ino: 300, Parent: 4, Name: "hard"},
		"unlink":      fs.Unlink{Parent: 4, Name: "hard", Cred: c},
		"rmdir":       fs.Rmdir{Parent: 4, Name: "dir", Cred: c},
		"rename":      fs.Rename{Parent: 5, Name: "a", NewParent: 6, NewName: "b", Flags: fs.RenameExchange, Cred: c},
		"setattr":     attr,
		"setxattr":    fs.SetXattr{Ino: 300, Name: "user.a", Value: []byte("v\x00"), Flags: fs.XattrReplace},
		"removexattr": fs.RemoveXattr{Ino: 300, Name: "user.a"},
		"publish":     fs.Publish{Ino: 300, Cut: ptr(9), Pieces: pieces, Grow: 1 << 41, Mtime: t2, Mask: fs.KillSetid, Attr: &attr},
		"append":      fs.Append{Ino: 300, Pieces: pieces, Mtime: t1, Mask: fs.KillSetid, Attr: &attr},
		"opensession": fs.OpenSession{Session: 1 << 63, Node: "web1"}, "expiresession": fs.ExpireSession{Sessions: []fs.SessionID{1, 1 << 63}},
		"reclaim":     fs.Reclaim{Inos: []fs.Ino{300, 301}},
		"markdurable": fs.MarkDurable{Chunks: []fs.ChunkID{{Hash: hash, Gen: 77}, {Gen: 1 << 40}}},
		"storepack": fs.StorePack{Pack: fs.PackID{0: 1, 15: 2}, Size: 8 << 20, Chunks: []fs.Placed{
			{Chunk: fs.ChunkID{Hash: hash, Gen: 77}, Off: 64, Len: 5000}, {Chunk: fs.ChunkID{Gen: 1 << 40}, From: fs.PackID{7: 9}, Len: 1 << 22}}},
		"condemn":     fs.Condemn{Chunks: []fs.ChunkID{{Hash: hash, Gen: 77}}, Packs: []fs.PackID{{3: 4}}},
		"forget":      fs.Forget{Chunks: []fs.ChunkID{{Gen: 78}}, Packs: []fs.PackID{{3: 4}, {5: 6}}},
		"setlimits":   fs.SetLimits{BytesMax: 1 << 50, InodeMax: 10_000_000},
		"initcluster": fs.InitCluster{UUID: "6f1f5f8e-0000-4000-8000-000000000000"},
		"barrier":     fs.Barrier{},

		"recordshipped": fs.RecordShipped{Index: 1 << 40, Oldest: 77},
		"adoptcluster":  fs.AdoptCluster{UUID: "6f1f5f8e-0000-4000-8000-000000000001"},
		"marklost":      fs.MarkLost{Chunks: []fs.ChunkID{{Hash: hash, Gen: 77}, {Gen: 1 << 40}}},
		"setsetting":    fs.SetSetting{Key: "acme/file/x", Old: []byte("old"), Value: []byte{0, 1}},
	}
	all := map[string]fs.Command{}
	for name, op := range ops {
		all[name] = fs.Command{Session: 1<<63 + 5, Seq: 1000, LowWater: 990, Now: t2, Op: op}
		all[name+"-zero"] = fs.Command{Op: reflect.Zero(reflect.TypeOf(op)).Interface().(fs.Op)}
	}
	return all
}

func TestCommandRoundTrip(t *testing.T) {
	for name, want := range samples() {
		b := meta.EncodeCommand(want)
		got, err := meta.DecodeCommand(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
		for i := range b { // no prefix of a command is a command
			if _, err := meta.DecodeCommand(b[:i]); fs.KindOf(err) != fs.ErrCorrupt {
				t.Errorf("%s cut to %d of %d bytes: %v", name, i, len(b), err)
			}
		}
		if _, err := meta.DecodeCommand(append(b, 0)); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
}

// TestSamplesSetEveryField guards the round trip: a field that is zero in the
// sample could be forgotten in the encoding.
func TestSamplesSetEveryField(t *testing.T) {
	for name, c := range samples() {
		if strings.HasSuffix(name, "-zero") {
			continue
		}
		var walk func(path string, v reflect.Value)
		walk = func(path string, v reflect.Value) {
			switch v.Kind() {
			case reflect.Pointer, reflect.Interface:
				if v.IsNil() {
					t.Errorf("%s%s is nil", name, path)
					return
				}
				walk(path, v.Elem())
			case reflect.Struct:
				for i := range v.NumField() {
					walk(path+"."+v.Type().Field(i).Name, v.Field(i))
				}
			default:
				if v.IsZero() {
					t.Errorf("%s%s is not set", name, path)
				}
			}
		}
		walk("", reflect.ValueOf(c))
	}
}

func TestUnknownVersionsStop(t *testing.T) {
	ok := meta.EncodeCommand(fs.Command{Op: fs.Barrier{}})
	newerCommand, newerOp := bytes.Clone(ok), bytes.Clone(ok)
	newerCommand[0] = 2
	newerOp[len(ok)-1] = 200
	noOp := bytes.Clone(ok)
	noOp[len(ok)-1] = 0
	batch := meta.EncodeBatch([][]byte{ok})
	batch[0] = 2
	for what, err := range map[string]error{
		"command":          second(meta.DecodeCommand(newerCommand)),
		"operation":        second(meta.DecodeCommand(newerOp)),
		"operation 0":      second(meta.DecodeCommand(noOp)),
		"command in entry": second(meta.DecodeBatch(meta.EncodeBatch([][]byte{ok, newerCommand}))),
		"log entry":        second(meta.DecodeBatch(batch)),
		"result":           second(meta.DecodeResult([]byte{2})),
	} {
		var v *meta.VersionError
		if !errors.As(err, &v) || v.What == "" {
			t.Errorf("%s of a newer release: %v", what, err)
		}
	}
}

func TestDecodeRefusesBadBytes(t *testing.T) {
	for what, b := range map[string][]byte{
		"nothing":               {},
		"long form of a number": {1, 0x80, 0},
		"number of 65 bits":     {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
		"32-bit field too big":  {1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x1f, 21},
		"flag 2":                {1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0},
		"list longer than all":  {1, 0, 0, 0, 0, 0, 17, 0xff, 0xff, 0xff, 0xff, 0x0f},
	} {
		if _, err := meta.DecodeCommand(b); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, b := range map[string][]byte{
		"nothing": {}, "no count": {1}, "count beyond the end": {1, 200, 1, 1}, "bytes left over": {1, 0, 0}, "an empty command": {1, 1, 0},
	} {
		if _, err := meta.DecodeBatch(b); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("entry, %s: %v", what, err)
		}
	}
}

func results() map[string]fs.Result {
	t1 := fs.Time{Sec: -5, Nsec: 7}
	return map[string]fs.Result{
		"full": {Index: 1 << 40, Kind: fs.ErrStale, Offset: 99, Existed: true, Attr: fs.Attr{
			Ino: 5, Generation: 6, Mode: fs.ModeRegular | 0o644, Uid: 1, Gid: 2, Nlink: 3, Rdev: 4, Size: 1 << 50, Bytes: 8,
			Atime: t1, Mtime: t1, Ctime: t1, Btime: t1, Version: 9,
		}},
		"refusal": {Index: 3, Kind: fs.ErrNotFound},
		"barrier": {Index: 4},
	}
}

func TestResultRoundTrip(t *testing.T) {
	for name, want := range results() {
		b := meta.EncodeResult(want)
		if got, err := meta.DecodeResult(b); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if _, err := meta.DecodeResult(b[:len(b)-1]); fs.KindOf(err) != fs.ErrCorrupt {
			t.Errorf("%s cut off: %v", name, err)
		}
	}
}

// TestGolden: bytes that some release wrote decode to what it meant, and this
// release still writes the same.
func TestGolden(t *testing.T) {
	golden := map[string][]byte{}
	for name, c := range samples() {
		golden["command/"+name] = meta.EncodeCommand(c)
	}
	for name, r := range results() {
		golden["result/"+name] = meta.EncodeResult(r)
	}
	golden["entry/two"] = meta.EncodeBatch([][]byte{golden["command/mkdir"], golden["command/append"]})
	for name, b := range storeGolden(t, goldenEntries()) {
		golden["store/"+name] = b
	}
	for name, b := range storeGolden(t, packEntries()) {
		golden["packstore/"+name] = b
	}
	path := filepath.Join("testdata", "golden-v1.txt")
	have := readGolden(t, path)
	if *writeGolden {
		addGolden(t, path, have, golden)
		have = readGolden(t, path)
	}
	for name, want := range golden {
		if got, ok := have[name]; !ok {
			t.Errorf("%s is not in %s: run with -write-golden", name, path)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is now\n%x, it was\n%x", name, want, got)
		}
	}
	for name, b := range have {
		if err := decodeGolden(name, b); err != nil {
			t.Errorf("%s no longer decodes: %v", name, err)
		}
	}
}

func decodeGolden(name string, b []byte) error {
	kind, name, _ := strings.Cut(name, "/")
	switch kind {
	case "command":
		got, err := meta.DecodeCommand(b)
		if want, ok := samples()[name]; err == nil && (!ok || !reflect.DeepEqual(got, want)) {
			err = fmt.Errorf("it means %+v", got)
		}
		return err
	case "result":
		got, err := meta.DecodeResult(b)
		if err == nil && got != results()[name] {
			err = fmt.Errorf("it means %+v", got)
		}
		return err
	case "entry":
		got, err := meta.DecodeBatch(b)
		if err == nil && len(got) != 2 {
			err = fmt.Errorf("%d commands", len(got))
		}
		return err
	}
	return nil // records: the whole store is compared byte for byte
}

// storeGolden is every record of a store that random entries made.
func storeGolden(t *testing.T, entries []metatest.Entry) map[string][]byte {
	t.Helper()
	s := openMem(t)
	for _, e := range entries {
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			t.Fatal(err)
		}
	}
	all := map[string][]byte{}
	err := meta.KVOf(s).Scan(nil, nil, func(k, v []byte) bool {
		all[hex.EncodeToString(k)] = bytes.Clone(v)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// goldenEntries makes one record of each kind at least.
func goldenEntries() []metatest.Entry {
	now := fs.Time{Sec: 1_700_000_000, Nsec: 5}
	var list []metatest.Entry
	add := func(session fs.SessionID, seq uint64, op fs.Op) {
		list = append(list, metatest.Entry{At: fs.Index(len(list) + 1), Batch: []fs.Command{{Session: session, Seq: seq, Now: now, Op: op}}})
	}
	add(0, 0, fs.InitCluster{UUID: "uuid"})
	add(0, 0, fs.OpenSession{Session: 5, Node: "web1"})
	add(5, 1, fs.Mkdir{Parent: 1, Name: "d", Mode: 0o755, Cred: alice})
	add(5, 2, fs.Create{Parent: 2, Name: "f", Mode: 0o644, Cred: alice})
	add(5, 3, fs.Symlink{Parent: 2, Name: "l", Target: "f"})
	add(5, 4, fs.Mknod{Parent: 2, Name: "p", Mode: fs.ModeFifo | 0o600})
	add(5, 5, fs.Publish{Ino: 3, Pieces: []fs.Piece{text(0, "inline"), held(100, "held", 1, 2, "web1", "web2")}, Mtime: now})
	add(5, 6, fs.SetXattr{Ino: 3, Name: "user.a", Value: []byte("v")})
	add(5, 7, fs.Unlink{Parent: 2, Name: "missing"})
	add(5, 8, fs.Tmpfile{Parent: 2, Mode: 0o600})
	add(0, 0, fs.SetLimits{BytesMax: 1 << 40, InodeMax: 1 << 20})
	return list
}

// packEntries go on where goldenEntries end: records that came later, so that
// the store of the first release stays a golden one of its own.
func packEntries() []metatest.Entry {
	now := fs.Time{Sec: 1_700_000_100, Nsec: 7}
	list := goldenEntries()
	add := func(op fs.Op) {
		list = append(list, metatest.Entry{At: fs.Index(len(list) + 1), Batch: []fs.Command{{Now: now, Op: op}}})
	}
	id := func(s string, gen fs.Index) fs.ChunkID { return fs.ChunkID{Hash: sha256.Sum256([]byte(s)), Gen: gen} }
	add(fs.Publish{Ino: 3, Pieces: []fs.Piece{held(200, "dead", 0, 4, "web1")}, Mtime: now})
	add(fs.StorePack{Pack: fs.PackID{1}, Size: 4096, Chunks: []fs.Placed{
		{Chunk: id("inline", 7), Off: 0, Len: 70}, {Chunk: id("dead", 12), Off: 70, Len: 68}}})
	add(fs.SetAttr{Ino: 3, Mask: fs.SetSize, Size: 150})
	add(fs.Condemn{Chunks: []fs.ChunkID{id("dead", 12)}, Packs: []fs.PackID{{2}}})
	return list
}

func readGolden(t *testing.T, path string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		v, err := hex.DecodeString(value)
		if err != nil {
			t.Fatalf("%s: %s: %v", path, name, err)
		}
		all[name] = v
	}
	return all
}

func addGolden(t *testing.T, path string, have, golden map[string][]byte) {
	t.Helper()
	var lines []string
	for name, b := range golden {
		if _, ok := have[name]; !ok {
			have[name] = b
		}
	}
	for name, b := range have {
		lines = append(lines, name+" "+hex.EncodeToString(b)+"\n")
	}
	sort.Strings(lines)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzDecodeBatch: any bytes either fail to decode or apply to two stores with
// the same outcome, leaving both sound.
func FuzzDecodeBatch(f *testing.F) {
	var all [][]byte
	for _, c := range samples() {
		c.Session, c.Seq = 0, 0
		f.Add(meta.EncodeBatch([][]byte{meta.EncodeCommand(c)}))
		all = append(all, meta.EncodeCommand(c))
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i], all[j]) < 0 })
	f.Add(meta.EncodeBatch(all))
	for _, e := range packEntries() {
		f.Add(meta.EncodeBatch([][]byte{meta.EncodeCommand(e.Batch[0])}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := meta.DecodeBatch(b)
		if err != nil {
			var v *meta.VersionError
			if !errors.As(err, &v) && fs.KindOf(err) != fs.ErrCorrupt {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		var again [][]byte
		for _, c := range batch {
			again = append(again, meta.EncodeCommand(c))
		}
		if !bytes.Equal(meta.EncodeBatch(again), b) {
			t.Fatalf("decoded and encoded: %x, was %x", meta.EncodeBatch(again), b)
		}
		x, y := fuzzApply(t, batch), fuzzApply(t, batch)
		if x.StateHash() != y.StateHash() {
			t.Fatal("two nodes differ")
		}
		if p := x.Check(); len(p) > 0 {
			t.Fatal(p)
		}
	})
}

// fuzzApply applies a batch on top of a small tree, twice in a row.
func fuzzApply(t *testing.T, batch []fs.Command) *meta.State {
	t.Helper()
	s := openMem(t)
	for _, e := range packEntries() {
		if _, _, err := s.Apply(e.At, e.Batch); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, _, err := s.Apply(s.Applied()+1, batch); err != nil {
			t.Fatal(err)
		}
	}
	return s
}
