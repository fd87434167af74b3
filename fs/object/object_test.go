package object_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
)

func TestErrorsAreKinds(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("outer: %w", &object.Error{Op: object.OpGet, Key: "k", Store: "s3://b", Kind: object.Busy, Err: cause})
	if !errors.Is(err, object.Busy) || errors.Is(err, object.NotExist) || !errors.Is(err, cause) {
		t.Errorf("%v: errors.Is is wrong", err)
	}
	if got := err.Error(); got != "outer: get k at s3://b: store is busy: cause" {
		t.Errorf("text %q", got)
	}
	for _, row := range []struct {
		name  string
		err   error
		kind  object.Kind
		class object.Class
	}{
		{"wrapped", err, object.Busy, object.Again},
		{"bare kind", object.NotExist, object.NotExist, object.Gone},
		{"cancelled", context.Canceled, object.Interrupted, object.Never},
		{"unclassified", cause, object.Unknown, object.Again},
		{"credentials", object.Credentials, object.Credentials, object.Never},
	} {
		t.Run(row.name, func(t *testing.T) {
			if kind, class := object.KindOf(row.err), object.ClassOf(row.err); kind != row.kind || class != row.class {
				t.Errorf("kind %v, class %v", kind, class)
			}
		})
	}
}

func TestAdviceSaysWhatToDo(t *testing.T) {
	for _, row := range []struct {
		kind object.Kind
		want string
	}{
		{object.Unreachable, "check the address"},
		{object.Credentials, "access key"},
		{object.NoBucket, "create it"},
		{object.WrongRegion, "region"},
		{object.Untrusted, "certificate authority"},
		{object.ClockSkew, "clock"},
		{object.NoSpace, "free space"},
		{object.Unsupported, "another server"},
		{object.Damaged, "who else writes"},
	} {
		err := fmt.Errorf("start: %w", &object.Error{Op: object.OpPut, Store: "s3://b (http://h:1)", Kind: row.kind, Err: errors.New("cause")})
		got := object.Advice(err)
		for _, part := range []string{"s3://b (http://h:1)", row.kind.Error(), row.want, "cause"} {
			if !strings.Contains(got, part) {
				t.Errorf("advice for %v lacks %q: %s", row.kind, part, got)
			}
		}
	}
	if got := object.Advice(&object.Error{Kind: object.NoBucket, Hint: "mount it"}); !strings.Contains(got, "; mount it.") {
		t.Errorf("a driver's own hint is lost: %s", got)
	}
	if got := object.Advice(errors.New("odd")); !strings.Contains(got, "odd") {
		t.Errorf("an error of another type is lost: %s", got)
	}
}

// weak is a bucket that ignores conditions.
type weakSwap struct{ *mem.Store }

func (w weakSwap) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	o.IfMatch = ""
	return w.Store.Put(ctx, key, b, o)
}

type versionless struct{ *mem.Store }

func (v versionless) Stat(ctx context.Context, key string) (object.Info, error) {
	info, err := v.Store.Stat(ctx, key)
	info.Version = ""
	return info, err
}

type weak struct{ object.Store }

func (w weak) Put(ctx context.Context, key string, b []byte, _ object.PutOptions) error {
	return w.Store.Put(ctx, key, b, object.PutOptions{})
}

// TestProbeFindsFaults: each step that Probe makes can fail, and each failure is
// reported as what it is.
func TestProbeFindsFaults(t *testing.T) {
	for _, row := range []struct {
		name string
		st   func() object.Store
		kind object.Kind
	}{
		{"no conditional put", func() object.Store { return weak{mem.New()} }, object.Unsupported},
		{"no conditional change", func() object.Store { return weakSwap{mem.New()} }, object.Unsupported},
		{"no versions", func() object.Store { return versionless{mem.New()} }, object.Unsupported},
		{"change fails", faults(faulty.Fault{Op: object.OpPut, Skip: 2, Kind: object.Busy}), object.Busy},
		{"put denied", faults(faulty.Fault{Op: object.OpPut, Kind: object.Credentials}), object.Credentials},
		{"second put unreachable", faults(faulty.Fault{Op: object.OpPut, Skip: 1, Kind: object.Unreachable}), object.Unreachable},
		{"get fails", faults(faulty.Fault{Op: object.OpGet, Kind: object.Broken}), object.Broken},
		{"get is short", faults(faulty.Fault{Op: object.OpGet, Do: faulty.ShortBody}), object.Unsupported},
		{"get is wrong", faults(faulty.Fault{Op: object.OpGet, Do: faulty.FlipBit}), object.Unsupported},
		{"list fails", faults(faulty.Fault{Op: object.OpList, Kind: object.Busy}), object.Busy},
		{"absent key denied", faults(faulty.Fault{Op: object.OpGet, Skip: 1, Kind: object.Credentials}), object.Credentials},
		{"absent key fails", faults(faulty.Fault{Op: object.OpGet, Skip: 1, Kind: object.Busy}), object.Busy},
		{"delete fails", faults(faulty.Fault{Op: object.OpDelete, Kind: object.NoBucket}), object.NoBucket},
		{"stat fails", faults(faulty.Fault{Op: object.OpStat, Kind: object.Unreachable}), object.Unreachable},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := object.Probe(t.Context(), row.st()); !errors.Is(err, row.kind) {
				t.Errorf("Probe: %v, want %v", err, row.kind)
			}
		})
	}
}

func TestProbeExplainsListPermission(t *testing.T) {
	err := object.Probe(t.Context(), faults(faulty.Fault{Op: object.OpGet, Skip: 1, Kind: object.Credentials})())
	if got := object.Advice(err); !strings.Contains(got, "s3:ListBucket") {
		t.Errorf("advice: %s", got)
	}
}

func faults(f faulty.Fault) func() object.Store {
	return func() object.Store {
		st := faulty.New(mem.New())
		st.Inject(f)
		return st
	}
}
