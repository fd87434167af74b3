package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/seal"
)

// backedUp is a bucket with two snapshots and, behind each, segments.
func backedUp(t *testing.T) (*world, *mem.Store) {
	t.Helper()
	st := mem.New()
	return backedUpIn(t, st), st
}

// stores are a bucket as the archive sees it, by name: as it is, and encrypted.
var stores = map[string]func(object.Store) object.Store{
	"plain": func(bucket object.Store) object.Store { return bucket },
	"sealed": func(bucket object.Store) object.Store {
		return seal.New(bucket, seal.Options{Keys: seal.Keys{{1}}})
	},
}

// sealHead is more than what tells which key an object is encrypted with: another
// one's is not taken for damage.
const sealHead = 16

func backedUpIn(t *testing.T, st object.Store) *world {
	t.Helper()
	w := newWorld("c1")
	le := w.lead(t, st, func(o *Options) { o.SnapshotBytes = 1 << 20 })
	fill := func() {
		for i := range 4 {
			w.write(fmt.Sprintf("entry %d of term %d", i, w.term))
			le.tick(t.Context())
		}
	}
	w.write("begin")
	le.tick(t.Context())
	fill()
	le.l.sinceRaw = 1 << 20
	fill()
	if n := len(keys(t, st, logPrefix)); n != 8 {
		t.Fatalf("%d segments", n)
	}
	return w
}

func put(t *testing.T, st object.Store, key string, b []byte) {
	t.Helper()
	if err := st.Put(t.Context(), key, b, object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, st object.Store, key string) []byte {
	t.Helper()
	b, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDamagedSegment: what is restored ends right before the damage, and says so.
func TestDamagedSegment(t *testing.T) {
	foreign := func(t *testing.T, b []byte) []byte { // put as it is, it is damage of an encrypted bucket
		if !bytes.HasPrefix(b, []byte(segmentMagic)) {
			return nil
		}
		seg, err := decodeSegment(b)
		if err != nil {
			t.Fatal(err)
		}
		seg.Cluster = "somebody else"
		out, err := seg.encode()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	flip := func(at func(n int) int) func(t *testing.T, b []byte) []byte {
		return func(_ *testing.T, b []byte) []byte {
			b = bytes.Clone(b)
			b[max(at(len(b)), sealHead)] ^= 0x10
			return b
		}
	}
	for _, row := range []struct {
		name string
		do   func(t *testing.T, b []byte) []byte // nil: the object goes
	}{
		{"missing", nil},
		{"empty", func(*testing.T, []byte) []byte { return nil }},
		{"torn in the head", func(_ *testing.T, b []byte) []byte { return b[:frameBytes+10] }},
		{"torn in the body", func(_ *testing.T, b []byte) []byte { return b[:len(b)-1] }},
		{"longer", func(_ *testing.T, b []byte) []byte { return append(bytes.Clone(b), 0) }},
		{"bit in the frame", flip(func(int) int { return 9 })},
		{"bit in the head", flip(func(int) int { return 100 })},
		{"bit in the body", flip(func(n int) int { return n - 5 })},
		{"of another cluster", foreign},
	} {
		onStores(t, row.name, func(t *testing.T, wrap func(object.Store) object.Store) {
			for i := 5; i < 8; i++ { // what the fifth has is in the snapshot, too
				bucket := mem.New()
				st := wrap(bucket)
				w := backedUpIn(t, st)
				key := keys(t, st, logPrefix)[i]
				p, _ := parseKey(key)
				if row.do == nil {
					if err := st.Delete(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				} else {
					put(t, bucket, key, row.do(t, read(t, bucket, key)))
				}
				r := w.load(t, st)
				if want := p.index - 1; r.Index != want {
					t.Errorf("segment %d: restored up to %d, want %d", i, r.Index, want)
				}
				lastGone := row.do == nil && i == 7 // nobody can tell
				if (len(r.Problems) == 0) != lastGone {
					t.Errorf("segment %d: problems %q", i, r.Problems)
				}
			}
		})
	}
}

// onStores runs a test on every kind of store.
func onStores(t *testing.T, name string, test func(t *testing.T, wrap func(object.Store) object.Store)) {
	for kind, wrap := range stores {
		t.Run(name+" "+kind, func(t *testing.T) { test(t, wrap) })
	}
}

// TestSwappedSegments: each under the other's key.
func TestSwappedSegments(t *testing.T) {
	w, st := backedUp(t)
	k := keys(t, st, logPrefix)
	a, b := read(t, st, k[5]), read(t, st, k[6])
	put(t, st, k[5], b)
	put(t, st, k[6], a)
	p, _ := parseKey(k[5])
	if r := w.load(t, st); r.Index != p.index-1 || len(r.Problems) == 0 {
		t.Errorf("restored up to %d, want %d; problems %q", r.Index, p.index-1, r.Problems)
	}
}

// TestUnlinkedSegment: a whole segment of the right place that was not written
// behind the one that is there is used, and told.
func TestUnlinkedSegment(t *testing.T) {
	w, st := backedUp(t)
	key := keys(t, st, logPrefix)[6]
	seg, err := decodeSegment(read(t, st, key))
	if err != nil {
		t.Fatal(err)
	}
	seg.Prev = hashOf([]byte("another history"))
	b, err := seg.encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, st, key, b)
	r := w.load(t, st)
	if r.Index != w.end() || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], key) {
		t.Errorf("restored up to %d of %d; problems %q", r.Index, w.end(), r.Problems)
	}
}

// TestDamagedSnapshot: an older snapshot and the log behind it give everything.
func TestDamagedSnapshot(t *testing.T) {
	for _, part := range []string{manifest, "-00000"} {
		for _, do := range []string{"missing", "torn", "bit", "another"} {
			onStores(t, part+" "+do, func(t *testing.T, wrap func(object.Store) object.Store) {
				bucket := mem.New()
				st := wrap(bucket)
				w := backedUpIn(t, st)
				var key string
				for _, k := range keys(t, st, snapPrefix) {
					if strings.HasSuffix(k, part) {
						key = k // of the newest
					}
				}
				b := read(t, bucket, key)
				switch do {
				case "missing":
					if err := st.Delete(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				case "torn":
					put(t, bucket, key, b[:len(b)-3])
				case "bit":
					b[len(b)/2] ^= 2
					put(t, bucket, key, b)
				case "another": // whole in itself
					put(t, bucket, key, read(t, bucket, otherOf(t, st, key, part)))
				}
				r := w.load(t, st)
				if r.Index != w.end() {
					t.Errorf("restored up to %d of %d", r.Index, w.end())
				}
				if silent := part == manifest && do == "missing"; (len(r.Problems) == 0) != silent {
					t.Errorf("problems %q", r.Problems)
				}
			})
		}
	}
}

// TestLeadersGetOverDamage: what is damaged in the bucket does not stop the next
// leader, nor the present one; a snapshot takes its place.
func TestLeadersGetOverDamage(t *testing.T) {
	last := func(t *testing.T, st object.Store, prefix, suffix string) (key string) {
		for _, k := range keys(t, st, prefix) {
			if strings.HasSuffix(k, suffix) {
				key = k
			}
		}
		return key
	}
	flip := func(t *testing.T, bucket object.Store, key string) {
		b := read(t, bucket, key)
		b[len(b)-3] ^= 4
		put(t, bucket, key, b)
	}
	for what, do := range map[string]func(t *testing.T, w *world, st, bucket object.Store){
		"the last segment": func(t *testing.T, _ *world, st, bucket object.Store) {
			flip(t, bucket, last(t, st, logPrefix, ""))
		},
		"the newest manifest": func(t *testing.T, _ *world, st, bucket object.Store) {
			flip(t, bucket, last(t, st, snapPrefix, manifest))
		},
		"an old manifest": func(t *testing.T, _ *world, st, bucket object.Store) {
			flip(t, bucket, otherOf(t, st, last(t, st, snapPrefix, manifest), manifest))
		},
	} {
		onStores(t, what, func(t *testing.T, wrap func(object.Store) object.Store) {
			bucket := mem.New()
			st := wrap(bucket)
			w := backedUpIn(t, st)
			do(t, w, st, bucket)
			w.elect()
			le := w.lead(t, st)
			for i := range 20 {
				w.write(fmt.Sprintf("later entry %d, so long that there is a snapshot of it soon", i))
				le.tick(t.Context())
			}
			if s := le.Status(); s.Shipped != w.end() || !s.FailingSince.IsZero() {
				t.Errorf("status %+v, the log ends at %d", s, w.end())
			}
			if r := w.load(t, st); r.Index != w.end() {
				t.Errorf("restored up to %d of %d; problems %q", r.Index, w.end(), r.Problems)
			}
		})
	}
	onStores(t, "the next segment", func(t *testing.T, wrap func(object.Store) object.Store) {
		bucket := mem.New()
		st := wrap(bucket)
		w := newWorld("c1")
		w.write("a")
		le := w.lead(t, st)
		le.tick(t.Context())
		put(t, st, segmentKey(1, le.l.chain.next), []byte("torn"))
		flip(t, bucket, segmentKey(1, le.l.chain.next))
		w.write("b")
		for range 3 {
			le.tick(t.Context())
		}
		if s := le.Status(); s.Shipped != w.end() || !s.FailingSince.IsZero() {
			t.Errorf("status %+v, the log ends at %d", s, w.end())
		}
	})
}

// otherOf is the object of the older snapshot that has the place of key.
func otherOf(t *testing.T, st object.Store, key, part string) string {
	t.Helper()
	for _, k := range keys(t, st, snapPrefix) {
		if strings.HasSuffix(k, part) && k != key {
			return k
		}
	}
	t.Fatal("there is no other")
	return ""
}

// TestBodyIsTheOneOfTheHead: a body that unpacks well is not enough.
func TestBodyIsTheOneOfTheHead(t *testing.T) {
	a, b := encoder.EncodeAll([]byte("aaaa"), nil), encoder.EncodeAll([]byte("bbbb"), nil)
	if got, err := unpack(a, len(a), 4, hashOf(a)); err != nil || string(got) != "aaaa" {
		t.Errorf("%q, %v", got, err)
	}
	for name, err := range map[string]error{
		"another body":  fails(unpack(b, len(b), 4, hashOf(a))),
		"longer":        fails(unpack(a, len(a)-1, 4, hashOf(a))),
		"of other size": fails(unpack(a, len(a), 5, hashOf(a))),
		"too large":     fails(unpack(a, len(a), bodyMax+1, hashOf(a))),
		"no zstd":       fails(unpack([]byte("aaaa"), 4, 4, hashOf([]byte("aaaa")))),
	} {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func fails(_ []byte, err error) error { return err }

func TestLoadEarlier(t *testing.T) {
	w, st := backedUp(t)
	for at := fs.Index(1); at <= w.end(); at++ {
		if r, _ := w.loadInto(t, st, &restored{stop: at + 1}, LoadOptions{Index: at}); r.Index != at {
			t.Errorf("restored up to %d, want %d", r.Index, at)
		}
	}
	b, err := Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Load(t.Context(), &restored{}, LoadOptions{Time: time.Now().Add(-time.Hour)})
	if !errors.Is(err, ErrEmpty) {
		t.Errorf("before everything: %v", err)
	}
}

func TestNothingToLoad(t *testing.T) {
	st := mem.New()
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty bucket: %v", err)
	}
	if err := TakeOver(t.Context(), st, Owner{Cluster: "c1", Epoch: 1}, ""); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(t.Context(), &restored{}, LoadOptions{}); !errors.Is(err, ErrEmpty) {
		t.Errorf("an owner only: %v", err)
	}
}

// TestLoadDoesNotGuess: a store that fails is not a store that has less.
func TestLoadDoesNotGuess(t *testing.T) {
	_, real := backedUp(t)
	for n := 0; ; n++ {
		st := faulty.New(real)
		st.Inject(faulty.Fault{Skip: n, Times: 1, Kind: object.Busy})
		b, err := Open(t.Context(), st)
		if err == nil {
			_, err = b.Load(t.Context(), &restored{}, LoadOptions{})
		}
		if len(st.Calls()) <= n {
			if err != nil || n < 10 {
				t.Errorf("without a fault, %d calls: %v", n, err)
			}
			return
		}
		if call := st.Calls()[n]; !errors.Is(err, object.Busy) && call.Op != object.OpGet {
			t.Errorf("call %d (%v) fails: %v", n, call, err)
		}
	}
}

func TestOwnership(t *testing.T) {
	newOwner := func(st object.Store, uuid string, leads bool) *Ownership {
		return NewOwnership(OwnershipOptions{Store: st, UUID: func() string { return uuid }, Leads: func() bool { return leads },
			Name: "shop", Node: "web1", Founders: "web1=10.0.0.1:7480", First: true})
	}
	t.Run("claimed by the leader only, and found by all", func(t *testing.T) {
		st := mem.New()
		follower, leader := newOwner(st, "c1", false), newOwner(st, "c1", true)
		if err := follower.Confirm(t.Context()); !errors.Is(err, errNoOwner) || follower.Owned() == nil {
			t.Errorf("a follower of an empty bucket: %v, %v", err, follower.Owned())
		}
		for _, o := range []*Ownership{leader, follower, leader} {
			if err := o.Confirm(t.Context()); err != nil || o.Owned() != nil || o.Epoch() != 1 {
				t.Errorf("%v, %v, epoch %d", err, o.Owned(), o.Epoch())
			}
			<-o.Confirmed()
		}
	})
	t.Run("foreign", func(t *testing.T) {
		st := mem.New()
		if err := newOwner(st, "c1", true).Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := newOwner(st, "c2", true)
		err := other.Run(t.Context())
		var foreign *ForeignError
		if !errors.As(err, &foreign) || foreign.Owner.Cluster != "c1" || !errors.Is(other.Owned(), ErrForeign) {
			t.Errorf("Run: %v; Owned: %v", err, other.Owned())
		}
		if !strings.Contains(err.Error(), `"shop"`) {
			t.Errorf("the sentence is %q", err)
		}
	})
	t.Run("fenced while it runs", func(t *testing.T) {
		st := mem.New()
		w := newWorld("c1")
		w.write("a")
		le := w.lead(t, st)
		le.tick(t.Context())
		o, version, err := ReadOwner(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		o.Cluster, o.Epoch = "c2", 2
		if err := TakeOver(t.Context(), st, o, version); err != nil {
			t.Fatal(err)
		}
		if err := TakeOver(t.Context(), st, o, version); !errors.Is(err, object.Changed) {
			t.Errorf("a second restore at the same time: %v", err)
		}
		if err := le.o.Owner.Confirm(t.Context()); !errors.Is(err, ErrForeign) {
			t.Errorf("Confirm: %v", err)
		}
		before := len(keys(t, st, ""))
		w.write("b")
		le.tick(t.Context())
		if after := len(keys(t, st, "")); after != before || le.Status().Active || !errors.Is(le.o.Owner.Fenced(), ErrForeign) {
			t.Errorf("%d objects, then %d; status %+v; %v", before, after, le.Status(), le.o.Owner.Fenced())
		}
		// Not even if OWNER came back: nobody knows what the other one did.
		o.Cluster, o.Epoch = "c1", 1
		b, err := o.encode()
		if err != nil {
			t.Fatal(err)
		}
		put(t, st, OwnerKey, b)
		if err := le.o.Owner.Confirm(t.Context()); !errors.Is(err, ErrForeign) {
			t.Errorf("afterwards: %v", err)
		}
	})
	t.Run("the lost answer of a claim", func(t *testing.T) {
		st := faulty.New(mem.New())
		st.Inject(faulty.Fault{Op: object.OpPut, Times: 1, Do: faulty.LoseAnswer})
		o := newOwner(st, "c1", true)
		if err := o.Confirm(t.Context()); err == nil || o.Owned() == nil {
			t.Errorf("the lost answer: %v, %v", err, o.Owned())
		}
		if err := o.Confirm(t.Context()); err != nil || o.Owned() != nil {
			t.Errorf("the next look: %v, %v", err, o.Owned())
		}
	})
	t.Run("OWNER was deleted", func(t *testing.T) {
		w, st := newWorld("c1"), mem.New()
		w.write("a")
		w.lead(t, st).tick(t.Context())
		for _, row := range []struct {
			uuid  string
			epoch uint64
		}{{"c1", 1}, {"c2", 2}} {
			if err := st.Delete(t.Context(), OwnerKey); err != nil {
				t.Fatal(err)
			}
			o := newOwner(st, row.uuid, true)
			if err := o.Confirm(t.Context()); err != nil || o.Epoch() != row.epoch {
				t.Errorf("%s: %v, epoch %d, want %d", row.uuid, err, o.Epoch(), row.epoch)
			}
			if err := st.Delete(t.Context(), OwnerKey); err != nil {
				t.Fatal(err)
			}
			if err := o.Confirm(t.Context()); err != nil || o.Epoch() != row.epoch {
				t.Errorf("%s while it runs: %v, epoch %d, want %d", row.uuid, err, o.Epoch(), row.epoch)
			}
		}
	})
	t.Run("damaged", func(t *testing.T) {
		st := mem.New()
		put(t, st, OwnerKey, []byte("{}"))
		if err := newOwner(st, "c1", true).Confirm(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("Confirm: %v", err)
		}
	})
}

func FuzzSegment(f *testing.F) {
	seg := &Segment{Head: Head{Cluster: "c", Epoch: 1, First: 3, Last: 9, Base: 3}, Log: []Entry{{Index: 4, Term: 1, Data: []byte("x")}, {Index: 9, Term: 2}}}
	b, err := seg.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		seg, err := decodeSegment(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		for i, e := range seg.Log {
			if e.Index < seg.First || e.Index > seg.Last || i > 0 && e.Index <= seg.Log[i-1].Index {
				t.Errorf("entry %d of a segment from %d to %d", e.Index, seg.First, seg.Last)
			}
		}
	})
}

func FuzzPart(f *testing.F) {
	var p partBuilder
	p.add([]byte("key"), []byte("value"))
	p.add([]byte("key2"), nil)
	b, err := p.take(partHead{Cluster: "c", Epoch: 1, Index: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := readPart(b, func(_, _ []byte) error { return nil })
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("an error of no kind: %v", err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	m := &Manifest{Cluster: "c", Epoch: 1, Index: 9, Next: 10, Parts: []Part{{Key: "k"}}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if again, err := m.encode(); err != nil {
			t.Errorf("encode again: %q, %v", again, err)
		}
	})
}

// TestNewerVersions are said to be what they are, not damaged.
func TestNewerVersions(t *testing.T) {
	seg := &Segment{Head: Head{Cluster: "c", Epoch: 1, First: 3, Last: 9, Base: 3}}
	b, err := seg.encode()
	if err != nil {
		t.Fatal(err)
	}
	b[4]++
	if _, err := decodeSegment(b); !errors.Is(err, ErrDamaged) {
		t.Errorf("a version that the checksum does not know: %v", err)
	}
	b, err = frame(segmentMagic, &seg.Head, nil)
	if err != nil {
		t.Fatal(err)
	}
	if newer := reseal(b, objectVersion+1); !errors.Is(second(decodeSegment(newer)), ErrNewer) {
		t.Errorf("segment: %v", second(decodeSegment(newer)))
	}
	if _, err := decodeManifest([]byte(`{"version": 2}`)); !errors.Is(err, ErrNewer) {
		t.Errorf("manifest: %v", err)
	}
	st := mem.New()
	put(t, st, OwnerKey, []byte(`{"version": 2, "cluster": "c", "epoch": 1}`))
	if _, _, err := ReadOwner(t.Context(), st); !errors.Is(err, ErrNewer) {
		t.Errorf("owner: %v", err)
	}
}

func second(_ *Segment, err error) error { return err }

// reseal gives a framed object another version and the checksum for it.
func reseal(b []byte, version byte) []byte {
	b = bytes.Clone(b)
	b[4] = version
	n := binary.LittleEndian.Uint32(b[8:])
	crc := crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[frameBytes:frameBytes+n])
	binary.LittleEndian.PutUint32(b[12:], crc)
	return b
}
