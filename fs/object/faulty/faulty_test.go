package faulty_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/objecttest"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return faulty.New(mem.New()) })
}

func TestActions(t *testing.T) {
	const key = "c/ab/k"
	for _, row := range []struct {
		name  string
		fault faulty.Fault
		kind  object.Kind // of Put; Unknown: it succeeds
		there string      // what the bucket holds afterwards; "-": nothing
	}{
		{"none", faulty.Fault{Op: object.OpGet}, object.Unknown, "content"},
		{"fail", faulty.Fault{Op: object.OpPut, Do: faulty.Fail}, object.Busy, "-"},
		{"fail as told", faulty.Fault{Key: key, Do: faulty.Fail, Kind: object.Credentials}, object.Credentials, "-"},
		{"other key", faulty.Fault{Key: "c/ac/*", Do: faulty.Fail}, object.Unknown, "content"},
		{"key prefix", faulty.Fault{Key: "c/ab/*", Do: faulty.Fail}, object.Busy, "-"},
		{"lost answer", faulty.Fault{Op: object.OpPut, Do: faulty.LoseAnswer}, object.Unreachable, "content"},
		{"short body", faulty.Fault{Op: object.OpPut, Do: faulty.ShortBody}, object.Unknown, "conten"},
		{"flipped bit", faulty.Fault{Op: object.OpPut, Do: faulty.FlipBit}, object.Unknown, "conuent"},
		{"skipped", faulty.Fault{Op: object.OpPut, Skip: 1}, object.Unknown, "content"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bucket := mem.New()
			st := faulty.New(bucket)
			st.Inject(row.fault)
			err := st.Put(t.Context(), key, []byte("content"), object.PutOptions{})
			if (err != nil) != (row.kind != object.Unknown) || err != nil && !errors.Is(err, row.kind) {
				t.Errorf("Put: %v, want %v", err, row.kind)
			}
			there := "-"
			if b, err := bucket.Get(t.Context(), key, 0, -1); err == nil {
				there = string(b)
			}
			if there != row.there {
				t.Errorf("the bucket holds %q, want %q", there, row.there)
			}
		})
	}
}

func TestTimesAndHeal(t *testing.T) {
	st := faulty.New(mem.New())
	st.Inject(faulty.Fault{Op: object.OpStat, Skip: 1, Times: 2, Kind: object.NoBucket})
	st.Inject(faulty.Fault{Op: object.OpDelete})
	var got []object.Kind
	for range 4 {
		_, err := st.Stat(t.Context(), "k")
		got = append(got, object.KindOf(err))
	}
	want := [4]object.Kind{object.NotExist, object.NoBucket, object.NoBucket, object.NotExist}
	if [4]object.Kind(got) != want {
		t.Errorf("kinds %v, want %v", got, want)
	}
	if err := st.Delete(t.Context(), "k"); !errors.Is(err, object.Busy) {
		t.Errorf("Delete: %v", err)
	}
	st.Heal()
	if err := st.Delete(t.Context(), "k"); err != nil {
		t.Errorf("Delete after Heal: %v", err)
	}
	st.Inject(faulty.Fault{Every: 3, Times: 2})
	var failed []int
	for i := range 9 {
		if st.Delete(t.Context(), "k") != nil {
			failed = append(failed, i)
		}
	}
	if !slices.Equal(failed, []int{0, 3}) {
		t.Errorf("every third call, twice: failed %v", failed)
	}
	if n := len(st.Calls()); n != 15 {
		t.Errorf("%d calls recorded, want 15", n)
	}
}

func TestHangEndsWithContext(t *testing.T) {
	st := faulty.New(mem.New())
	st.Inject(faulty.Fault{Do: faulty.Hang})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- st.Put(ctx, "k", nil, object.PutOptions{}) }()
	for st.Hanging() == 0 {
		select {
		case err := <-done:
			t.Fatalf("Put did not hang: %v", err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, object.Interrupted) {
		t.Errorf("Put: %v", err)
	}
}

func TestListFaults(t *testing.T) {
	for _, row := range []struct {
		name string
		do   faulty.Action
		seen int
	}{{"fail", faulty.Fail, 0}, {"lost answer", faulty.LoseAnswer, 1}} {
		t.Run(row.name, func(t *testing.T) {
			bucket := mem.New()
			for _, key := range []string{"a", "b"} {
				if err := bucket.Put(t.Context(), key, nil, object.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			st := faulty.New(bucket)
			st.Inject(faulty.Fault{Op: object.OpList, Do: row.do})
			seen, failed := 0, 0
			for _, err := range st.List(t.Context(), "", "") {
				if err != nil {
					failed++
				} else {
					seen++
				}
			}
			if seen != row.seen || failed != 1 {
				t.Errorf("saw %d keys and %d errors", seen, failed)
			}
		})
	}
}
