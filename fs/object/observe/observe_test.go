package observe_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/observe"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store {
		var c observe.Counters
		return observe.New(mem.New(), c.Observe)
	})
}

func TestCounters(t *testing.T) {
	var c observe.Counters
	faults := faulty.New(mem.New())
	st := observe.New(faults, c.Observe)
	ctx := t.Context()
	b := make([]byte, 100)
	for range 3 {
		if err := st.Put(ctx, "k", b, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_ = st.Put(ctx, "k", b, object.PutOptions{IfAbsent: true})
	_, _ = st.Get(ctx, "k", 90, 100)
	_, _ = st.Get(ctx, "absent", 0, -1)
	_, _ = st.Stat(ctx, "k")
	for range st.List(ctx, "", "") {
		break
	}
	faults.Inject(faulty.Fault{Op: object.OpList, Kind: object.NoBucket})
	for range st.List(ctx, "", "") {
		continue
	}
	_ = st.Delete(ctx, "k")

	got := c.Snapshot()
	for _, row := range []struct {
		op     object.Op
		calls  uint64
		bytes  uint64
		kind   object.Kind
		errors uint64
	}{
		{object.OpPut, 4, 300, object.Exists, 1},
		{object.OpGet, 2, 10, object.NotExist, 1},
		{object.OpStat, 1, 0, object.NotExist, 0},
		{object.OpList, 2, 0, object.NoBucket, 1},
		{object.OpDelete, 1, 0, object.NotExist, 0},
	} {
		s := got[row.op]
		if s.Calls != row.calls || s.Bytes != row.bytes || s.Errors[row.kind] != row.errors {
			t.Errorf("%s: %+v, want %+v", row.op, s, row)
		}
		var latencies uint64
		for _, n := range s.Latency {
			latencies += n
		}
		if latencies != s.Calls {
			t.Errorf("%s: %d latencies of %d calls", row.op, latencies, s.Calls)
		}
	}
	got[object.OpPut].Errors[object.Exists] = 99
	if n := c.Snapshot()[object.OpPut].Errors[object.Exists]; n != 1 {
		t.Errorf("a snapshot shares its map with the counters: %d", n)
	}
}

func TestLatencyBuckets(t *testing.T) {
	var c observe.Counters
	for _, took := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, time.Minute} {
		c.Observe(observe.Event{Op: object.OpGet, Took: took})
	}
	s := c.Snapshot()[object.OpGet]
	if s.Latency[0] != 2 || s.Latency[1] != 1 || s.Latency[len(s.Latency)-1] != 1 {
		t.Errorf("buckets %v", s.Latency)
	}
}

func TestEventTellsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got observe.Event
		st := observe.New(slow{mem.New()}, func(e observe.Event) { got = e })
		if err := st.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		if got.Took != time.Second || got.Op != object.OpDelete || got.Key != "k" {
			t.Errorf("event %+v", got)
		}
	})
}
