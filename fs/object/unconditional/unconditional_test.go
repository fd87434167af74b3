package unconditional_test

import (
	"context"
	"errors"
	"testing"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/unconditional"
)

// deaf ignores the conditions of puts, as some servers do.
type deaf struct{ *mem.Store }

func (d deaf) Put(ctx context.Context, key string, b []byte, _ object.PutOptions) error {
	return d.Store.Put(ctx, key, b, object.PutOptions{})
}

func TestConditionsOnADeafServer(t *testing.T) {
	if err := object.Probe(t.Context(), deaf{mem.New()}); !errors.Is(err, object.ErrNoConditions) {
		t.Fatalf("the server is found to be fit: %v", err)
	}
	st := unconditional.New(deaf{mem.New()})
	if err := object.Probe(t.Context(), st); err != nil {
		t.Fatalf("Probe: %v", err)
	}
	put := func(b string, o object.PutOptions) error { return st.Put(t.Context(), "k", []byte(b), o) }
	if err := put("x", object.PutOptions{IfMatch: "1"}); !errors.Is(err, object.Changed) {
		t.Errorf("change of an absent object: %v", err)
	}
	if err := put("1", object.PutOptions{IfAbsent: true}); err != nil {
		t.Errorf("first: %v", err)
	}
	if err := put("2", object.PutOptions{IfAbsent: true}); !errors.Is(err, object.Exists) {
		t.Errorf("second: %v", err)
	}
	info, err := st.Stat(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := put("3", object.PutOptions{IfMatch: info.Version}); err != nil {
		t.Errorf("change: %v", err)
	}
	if err := put("4", object.PutOptions{IfMatch: info.Version}); !errors.Is(err, object.Changed) {
		t.Errorf("late change: %v", err)
	}
	if err := put("5", object.PutOptions{}); err != nil {
		t.Errorf("plain put: %v", err)
	}
	if err := put("6", object.PutOptions{IfAbsent: true, IfMatch: "x"}); !errors.Is(err, object.Invalid) {
		t.Errorf("both conditions: %v", err)
	}
}
