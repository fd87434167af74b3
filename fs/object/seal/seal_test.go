package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/retry"
	"github.com/wpfs/wpfs/fs/object/seal"
)

func key(b byte) seal.Key { return seal.Key(bytes.Repeat([]byte{b}, 32)) }

func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStore: the suite of all stores, with keys, without, and on a bucket from before.
func TestStore(t *testing.T) {
	for name, o := range map[string]seal.Options{
		"with keys":    {Keys: seal.Keys{key(1), key(2)}},
		"without":      {},
		"accept plain": {Keys: seal.Keys{key(1)}, AcceptPlain: true},
	} {
		t.Run(name, func(t *testing.T) {
			objecttest.Run(t, func(*testing.T) object.Store {
				st := retry.New(seal.New(mem.New(), o), retry.Options{})
				if o.AcceptPlain {
					return statSizes{st}
				}
				return st
			})
		})
	}
}

// statSizes lists with the sizes of Stat, for a store whose own are bounds.
type statSizes struct{ object.Store }

func (s statSizes) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			if err == nil {
				var exact object.Info
				if exact, err = s.Stat(ctx, info.Key); exact.Size > info.Size {
					err = fmt.Errorf("%s is listed with %d bytes and has %d", info.Key, info.Size, exact.Size)
				}
				info.Size = exact.Size
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// TestListOfMixedBucket: plain objects are never listed as smaller than they are.
func TestListOfMixedBucket(t *testing.T) {
	bucket := mem.New()
	st := seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}, AcceptPlain: true})
	want := map[string]int64{"sealed": 1000, "plain": 1000}
	must(t, st.Put(t.Context(), "sealed", content(1, 1000), object.PutOptions{}))
	must(t, bucket.Put(t.Context(), "plain", content(2, 1000), object.PutOptions{}))
	for info, err := range st.List(t.Context(), "", "") {
		must(t, err)
		if info.Size < want[info.Key] || info.Key == "plain" && info.Size != want[info.Key] {
			t.Errorf("%s is listed with %d bytes", info.Key, info.Size)
		}
		exact, err := st.Stat(t.Context(), info.Key)
		must(t, err)
		if exact.Size != want[info.Key] {
			t.Errorf("%s has %d bytes by Stat", info.Key, exact.Size)
		}
	}
}

// sizes around every boundary of the format.
var sizes = []int{0, 1, 100, 65479, 65480, 65481, 65520, 65536, 131000, 131016, 131017, 196536, 196537, 1 << 20}

// TestRanges: every range of every size is what was put, and sizes are told as put.
func TestRanges(t *testing.T) {
	bucket := mem.New()
	st := seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}})
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		want := content(uint64(size), size)
		must(t, st.Put(t.Context(), "k", want, object.PutOptions{}))
		fresh := seal.New(bucket, seal.Options{Keys: seal.Keys{key(2), key(1)}})
		info, err := fresh.Stat(t.Context(), "k")
		must(t, err)
		if info.Size != int64(size) {
			t.Errorf("size %d, want %d", info.Size, size)
		}
		for info, err := range fresh.List(t.Context(), "", "") {
			must(t, err)
			if info.Size != int64(size) {
				t.Errorf("listed size %d, want %d", info.Size, size)
			}
		}
		offs := []int{0, 1, size / 2, max(size-1, 0), size, size + 1, size + 70000, 65479, 65480, 65481, 131016}
		for range 20 {
			offs = append(offs, rng.IntN(size+1))
		}
		for _, off := range offs {
			for _, n := range []int{-1, 0, 1, 100, 65480, 65536, rng.IntN(size + 10)} {
				got, err := fresh.Get(t.Context(), "k", int64(off), int64(n))
				must(t, err)
				part := want[min(off, size):]
				if n >= 0 {
					part = part[:min(n, len(part))]
				}
				if !bytes.Equal(got, part) {
					t.Fatalf("size %d, %d bytes from %d: got %d bytes, want %d", size, n, off, len(got), len(part))
				}
			}
		}
	}
}

// TestTinkReadsIt: the format is that of the library, which reads it without us.
func TestTinkReadsIt(t *testing.T) {
	bucket := mem.New()
	st := seal.New(bucket, seal.Options{Keys: seal.Keys{key(7)}})
	for _, size := range sizes {
		want := content(1, size)
		must(t, st.Put(t.Context(), "c/name", want, object.PutOptions{}))
		raw, err := bucket.Get(t.Context(), "c/name", 0, -1)
		must(t, err)
		k := key(7)
		aead, err := subtle.NewAESGCMHKDF(k[:], "SHA256", 32, 64<<10, 0)
		must(t, err)
		r, err := aead.NewDecryptingReader(bytes.NewReader(raw[16:]), []byte("c/name"))
		must(t, err)
		got, err := io.ReadAll(r)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("size %d: the library reads something else", size)
		}
		if size >= 100 && bytes.Contains(raw, want[:100]) {
			t.Errorf("size %d: the content is in the bucket as it is", size)
		}
	}
}

// TestChangedObjects: whatever is done to an object in the bucket, no read returns
// anything but what was put.
func TestChangedObjects(t *testing.T) {
	const size = 200_000
	want := content(1, size)
	for name, change := range map[string]func(raw, other []byte) []byte{
		"a bit in the head":       func(raw, _ []byte) []byte { raw[20] ^= 1; return raw },
		"a bit in the first part": func(raw, _ []byte) []byte { raw[100] ^= 1; return raw },
		"a bit in the last part":  func(raw, _ []byte) []byte { raw[len(raw)-1] ^= 1; return raw },
		"cut":                     func(raw, _ []byte) []byte { return raw[:len(raw)-5] },
		"cut between segments":    func(raw, _ []byte) []byte { return raw[:16+2*65536] },
		"cut to the head":         func(raw, _ []byte) []byte { return raw[:56] },
		"cut within the head":     func(raw, _ []byte) []byte { return raw[:30] },
		"longer":                  func(raw, _ []byte) []byte { return append(raw, 0) },
		"another object":          func(_, other []byte) []byte { return other },
		"segments swapped": func(raw, _ []byte) []byte {
			a, b := bytes.Clone(raw[16+65536:16+2*65536]), raw[16+2*65536:16+3*65536]
			copy(raw[16+65536:], b)
			copy(raw[16+2*65536:], a)
			return raw
		},
		"plain": func(_, _ []byte) []byte { return want },
		"empty": func(_, _ []byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bucket := mem.New()
			o := seal.Options{Keys: seal.Keys{key(1)}}
			st := seal.New(bucket, o)
			for _, k := range []string{"a", "b"} {
				must(t, st.Put(t.Context(), k, want, object.PutOptions{}))
			}
			raw, err := bucket.Get(t.Context(), "a", 0, -1)
			must(t, err)
			other, err := bucket.Get(t.Context(), "b", 0, -1)
			must(t, err)
			must(t, bucket.Put(t.Context(), "a", change(raw, other), object.PutOptions{}))
			refused := 0
			for _, st := range []*seal.Store{st, seal.New(bucket, o)} {
				for _, r := range [][2]int64{{0, -1}, {0, 10}, {70_000, 10}, {70_000, 130_000}, {size - 10, 10}, {size - 10, -1}, {size, 5}, {size + 100_000, 5}} {
					got, err := st.Get(t.Context(), "a", r[0], r[1])
					if err != nil {
						refused++
						if k := object.KindOf(err); k != object.Damaged && k != object.Credentials {
							t.Errorf("%v: %v", r, err)
						}
						continue
					}
					part := want[min(r[0], size):]
					if r[1] >= 0 {
						part = part[:min(r[1], int64(len(part)))]
					}
					if !bytes.Equal(got, part) {
						t.Errorf("%v: %d bytes, not those that were put", r, len(got))
					}
				}
			}
			if refused == 0 {
				t.Error("nothing was noticed")
			}
		})
	}
}

// TestWhoCanRead: errors say which key is missing, or that there is none needed.
func TestWhoCanRead(t *testing.T) {
	bucket := mem.New()
	must(t, seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}}).Put(t.Context(), "sealed", content(1, 1000), object.PutOptions{}))
	must(t, bucket.Put(t.Context(), "plain", content(2, 1000), object.PutOptions{}))
	for _, row := range []struct {
		name, key, says string
		o               seal.Options
	}{
		{"no keys", "sealed", key(1).ID().String(), seal.Options{}},
		{"another key", "sealed", key(1).ID().String(), seal.Options{Keys: seal.Keys{key(2)}}},
		{"plain refused", "plain", "encryption_accept_plain", seal.Options{Keys: seal.Keys{key(1)}}},
		{"the old key is second", "sealed", "", seal.Options{Keys: seal.Keys{key(2), key(1)}}},
		{"plain accepted", "plain", "", seal.Options{Keys: seal.Keys{key(1)}, AcceptPlain: true}},
		{"no keys, plain", "plain", "", seal.Options{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := seal.New(bucket, row.o).Get(t.Context(), row.key, 0, -1)
			switch {
			case row.says == "" && (err != nil || len(b) != 1000):
				t.Errorf("%d bytes, %v", len(b), err)
			case row.says != "" && (object.KindOf(err) != object.Credentials || !strings.Contains(object.Advice(err), row.says)):
				t.Errorf("%q does not say %q", object.Advice(err), row.says)
			}
		})
	}
}

// TestRewritten: an object that another node has put anew is read as it is now,
// whatever was remembered of it.
func TestRewritten(t *testing.T) {
	bucket := mem.New()
	a, b := seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}}), seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}})
	for i := range uint64(3) {
		want := content(i, 200_000)
		must(t, a.Put(t.Context(), "k", want, object.PutOptions{}))
		got, err := b.Get(t.Context(), "k", 100_000, 50_000)
		must(t, err)
		if !bytes.Equal(got, want[100_000:150_000]) {
			t.Error("not what was put last")
		}
	}
}

// TestTooLarge: what would not fit when sealed is refused before it is sent.
func TestTooLarge(t *testing.T) {
	st := seal.New(mem.New(), seal.Options{Keys: seal.Keys{key(1)}})
	must(t, st.Put(t.Context(), "k", make([]byte, seal.PlainMax), object.PutOptions{}))
	if err := st.Put(t.Context(), "k", make([]byte, seal.PlainMax+1), object.PutOptions{}); !errors.Is(err, object.Invalid) {
		t.Errorf("%v, want %v", err, object.Invalid)
	}
}

func TestParseKeys(t *testing.T) {
	one, two := key(1), key(2)
	text := "# new\n" + hex.EncodeToString(one[:]) + "\n\n  " + base64.StdEncoding.EncodeToString(two[:]) + "  \n"
	ks, err := seal.ParseKeys([]byte(text))
	must(t, err)
	if len(ks) != 2 || ks[0] != one || ks[1] != two {
		t.Error("not the keys in the text, in their order")
	}
	secret := "5ec2e75ec2e7"
	for text, says := range map[string]string{
		"":                             "no key",
		"# nothing\n":                  "no key",
		secret + "\n":                  "line 1",
		"\n" + strings.Repeat("0", 64): "line 2",
		hex.EncodeToString(one[:]) + "\n" + hex.EncodeToString(one[:]): "twice",
	} {
		_, err := seal.ParseKeys([]byte(text))
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v; want it to say %q, and no secret", text, err, says)
		}
	}
}

// FuzzOpen: no bytes in the bucket make a read panic or return what was never put.
func FuzzOpen(f *testing.F) {
	bucket := mem.New()
	st := seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}})
	want := content(1, 70_000)
	if err := st.Put(f.Context(), "k", want, object.PutOptions{}); err != nil {
		f.Fatal(err)
	}
	raw, err := bucket.Get(f.Context(), "k", 0, -1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, int64(0), int64(-1))
	f.Add(raw[:56], int64(3), int64(4))
	f.Add([]byte("wpfseal1"), int64(70_000), int64(1))
	f.Fuzz(func(t *testing.T, raw []byte, off, n int64) {
		bucket := mem.New()
		must(t, bucket.Put(t.Context(), "k", raw, object.PutOptions{}))
		off, n = off&0x3ffff, n%(1<<20)
		got, err := seal.New(bucket, seal.Options{Keys: seal.Keys{key(1)}}).Get(t.Context(), "k", off, n)
		if err == nil && !bytes.HasPrefix(want[min(off, int64(len(want))):], got) {
			t.Errorf("%d bytes that were never put", len(got))
		}
	})
}
