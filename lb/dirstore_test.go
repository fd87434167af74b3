package lb

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// TestStores: the directory does what the model in memory does.
func TestStores(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	d, err := OpenDirStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Store{"memory": newMemStore(), "directory": d} {
		t.Run(name, func(t *testing.T) { testStore(t, s) })
	}
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func testStore(t *testing.T, s Store) {
	ctx := t.Context()
	swap := func(key, old, now string, want bool) {
		t.Helper()
		value := func(s string) []byte {
			if s == "" {
				return nil
			}
			return []byte(s)
		}
		if got, err := s.Swap(ctx, key, value(old), value(now)); err != nil || got != want {
			t.Errorf("%s from %q to %q: %v, %v", key, old, now, got, err)
		}
	}
	swap("a/../b", "x", "y", false)
	swap("a/../b", "", "y", true)
	swap("a/../b", "", "z", false)
	swap("a/../b", "y", "z", true)
	swap("a/c", "", "1", true)
	swap("b", "", "1", true)
	swap("gone", "", "1", true)
	swap("gone", "1", "", true)
	swap("gone", "", "", true)
	if keys, err := s.Keys(ctx, "a/"); err != nil || !slices.Equal(keys, []string{"a/../b", "a/c"}) {
		t.Errorf("%q, %v", keys, err)
	}
	if b, err := s.Get(ctx, "a/../b"); err != nil || string(b) != "z" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := s.Get(ctx, "gone"); err != nil || b != nil {
		t.Errorf("%q, %v", b, err)
	}
	var wg sync.WaitGroup
	var won atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			if ok, err := s.Swap(ctx, "race", nil, fmt.Append(nil, i)); err != nil {
				t.Error(err)
			} else if ok {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have won", won.Load())
	}
}
