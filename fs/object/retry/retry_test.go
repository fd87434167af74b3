package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/retry"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return retry.New(mem.New(), retry.Options{}) })
}

// TestStoreOverFlakyDriver: the suite passes although every third call of a
// kind fails or loses its answer. Faults are counted over all callers, so one of
// several at a time may be hit in a row; twenty attempts outlast that. Puts of
// the key OWNER are spared: there the suite asks for Exists where bytes are
// equal, which after a fault is a success on purpose.
func TestStoreOverFlakyDriver(t *testing.T) {
	o := retry.Options{Attempts: 20, BackoffMin: time.Microsecond, BackoffMax: time.Microsecond}
	objecttest.Run(t, func(*testing.T) object.Store {
		st := faulty.New(mem.New())
		for _, op := range []object.Op{object.OpGet, object.OpStat, object.OpDelete, object.OpList} {
			st.Inject(faulty.Fault{Op: op, Every: 3})
		}
		for _, prefix := range []string{"c/", "r", "m/", "d/", "s/", "hot", object.ProbePrefix} {
			st.Inject(faulty.Fault{Op: object.OpPut, Key: prefix + "*", Every: 3, Do: faulty.LoseAnswer})
		}
		return retry.New(st, o)
	})
}

// bubble runs f with an empty bucket whose faults f sets, on fake time.
func bubble(t *testing.T, f func(t *testing.T, bucket *mem.Store, faults *faulty.Store, st *retry.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bucket := mem.New()
		faults := faulty.New(bucket)
		f(t, bucket, faults, retry.New(faults, retry.Options{}))
	})
}

func TestClassesDecide(t *testing.T) {
	for _, row := range []struct {
		kind     object.Kind
		attempts int
	}{
		{object.Busy, 5}, {object.Unreachable, 5}, {object.Broken, 5}, {object.ClockSkew, 5},
		{object.Credentials, 1}, {object.NoBucket, 1}, {object.NotExist, 1}, {object.Invalid, 1},
		{object.NoSpace, 1}, {object.Untrusted, 1}, {object.WrongRegion, 1}, {object.Unsupported, 1},
	} {
		t.Run(row.kind.Error(), func(t *testing.T) {
			bubble(t, func(t *testing.T, _ *mem.Store, faults *faulty.Store, st *retry.Store) {
				faults.Inject(faulty.Fault{Kind: row.kind})
				_, gerr := st.Get(t.Context(), "k", 0, -1)
				_, serr := st.Stat(t.Context(), "k")
				var lerr error
				for _, err := range st.List(t.Context(), "k", "") {
					lerr = err
				}
				errs := []error{st.Put(t.Context(), "k", nil, object.PutOptions{}), gerr, serr, st.Delete(t.Context(), "k"), lerr}
				for i, err := range errs {
					if !errors.Is(err, row.kind) {
						t.Errorf("call %d: %v", i, err)
					}
				}
				if n := len(faults.Calls()); n != row.attempts*len(errs) {
					t.Errorf("%d attempts of %d calls, want %d of each", n, len(errs), row.attempts)
				}
			})
		})
	}
}

// TestConditionalPut: rule R39. What a lost answer leaves open is decided by
// the content, and only then.
func TestConditionalPut(t *testing.T) {
	lost := faulty.Fault{Op: object.OpPut, Times: 1, Do: faulty.LoseAnswer}
	busy := faulty.Fault{Op: object.OpPut, Times: 1, Do: faulty.Fail}
	for _, row := range []struct {
		name   string
		before string // the object before the call; "": none
		faults []faulty.Fault
		kind   object.Kind // Unknown: success
		after  string
	}{
		{"free", "", nil, object.Unknown, "mine"},
		{"taken", "theirs", nil, object.Exists, "theirs"},
		{"taken by equal bytes", "mine", nil, object.Exists, "mine"},
		{"own put whose answer was lost", "", []faulty.Fault{lost}, object.Unknown, "mine"},
		{"busy, then free", "", []faulty.Fault{busy}, object.Unknown, "mine"},
		{"busy, then taken", "theirs", []faulty.Fault{busy}, object.Exists, "theirs"},
		{"lost, and so is the comparison", "", []faulty.Fault{lost, {Op: object.OpGet, Times: 1}}, object.Unknown, "mine"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, bucket *mem.Store, faults *faulty.Store, st *retry.Store) {
				if row.before != "" {
					if err := bucket.Put(t.Context(), "OWNER", []byte(row.before), object.PutOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				for _, f := range row.faults {
					faults.Inject(f)
				}
				err := st.Put(t.Context(), "OWNER", []byte("mine"), object.PutOptions{IfAbsent: true})
				if (err != nil) != (row.kind != object.Unknown) || err != nil && !errors.Is(err, row.kind) {
					t.Errorf("Put: %v, want %v", err, row.kind)
				}
				if b, err := bucket.Get(t.Context(), "OWNER", 0, -1); err != nil || string(b) != row.after {
					t.Errorf("the object is %q, %v; want %q", b, err, row.after)
				}
			})
		})
	}
}

// TestConditionalChange: rule R39 for a put with IfMatch.
func TestConditionalChange(t *testing.T) {
	lost := faulty.Fault{Op: object.OpPut, Times: 1, Do: faulty.LoseAnswer}
	busy := faulty.Fault{Op: object.OpPut, Times: 1, Do: faulty.Fail}
	for _, row := range []struct {
		name   string
		stale  bool // somebody else has changed the object
		faults []faulty.Fault
		kind   object.Kind // Unknown: success
		after  string
	}{
		{"fresh", false, nil, object.Unknown, "mine"},
		{"stale", true, nil, object.Changed, "theirs"},
		{"own change whose answer was lost", false, []faulty.Fault{lost}, object.Unknown, "mine"},
		{"busy, then fresh", false, []faulty.Fault{busy}, object.Unknown, "mine"},
		{"busy, then stale", true, []faulty.Fault{busy}, object.Changed, "theirs"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, bucket *mem.Store, faults *faulty.Store, st *retry.Store) {
				put := func(b string) {
					if err := bucket.Put(t.Context(), "OWNER", []byte(b), object.PutOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				put("before")
				info, err := st.Stat(t.Context(), "OWNER")
				if err != nil {
					t.Fatal(err)
				}
				if row.stale {
					put("theirs")
				}
				for _, f := range row.faults {
					faults.Inject(f)
				}
				err = st.Put(t.Context(), "OWNER", []byte("mine"), object.PutOptions{IfMatch: info.Version})
				if (err != nil) != (row.kind != object.Unknown) || err != nil && !errors.Is(err, row.kind) {
					t.Errorf("Put: %v, want %v", err, row.kind)
				}
				if b, err := bucket.Get(t.Context(), "OWNER", 0, -1); err != nil || string(b) != row.after {
					t.Errorf("the object is %q, %v; want %q", b, err, row.after)
				}
			})
		})
	}
}

func TestListGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, bucket *mem.Store, faults *faulty.Store, st *retry.Store) {
		var want []string
		for i := range 20 {
			key := fmt.Sprintf("k%02d", i)
			want = append(want, key)
			if err := bucket.Put(t.Context(), key, nil, object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		// Breaks after each single key, far more often than there are attempts.
		faults.Inject(faulty.Fault{Op: object.OpList, Times: 19, Do: faulty.LoseAnswer})
		var got []string
		for info, err := range st.List(t.Context(), "k", "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("listed %q", got)
		}
	})
}

func TestWaitEndsWithContext(t *testing.T) {
	bubble(t, func(t *testing.T, _ *mem.Store, faults *faulty.Store, st *retry.Store) {
		faults.Inject(faulty.Fault{})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := st.Delete(ctx, "k"); object.KindOf(err) != object.Interrupted || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Delete: %v", err)
		}
		if took := time.Since(start); took != 10*time.Millisecond { // fake time is exact
			t.Errorf("took %v", took)
		}
	})
}

func TestBackoffIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := faulty.New(mem.New())
		faults.Inject(faulty.Fault{})
		var retries []int
		st := retry.New(faults, retry.Options{Attempts: 40, OnRetry: func(_ object.Op, _ string, attempt int, _ error) {
			retries = append(retries, attempt)
		}})
		start := time.Now()
		if err := st.Delete(t.Context(), "k"); !errors.Is(err, object.Busy) {
			t.Errorf("Delete: %v", err)
		}
		if len(retries) != 39 || retries[38] != 39 {
			t.Errorf("OnRetry heard of %v", retries)
		}
		// 100, 200, 400, 800, 1600 ms, then 34 times 2 s, each between half and all of it.
		if took, most := time.Since(start), 3100*time.Millisecond+34*2*time.Second; took > most || took < most/2 {
			t.Errorf("39 waits took %v, want %v to %v", took, most/2, most)
		}
	})
}
