package vfs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// TestFailure: an error of another operation gets ours in front and keeps its
// kind; a missing name that is described already stays as it is.
func TestFailure(t *testing.T) {
	full := &fs.Error{Op: "lookup", Ino: 7, Name: "x", Kind: fs.ErrNotFound}
	for what, row := range map[string]struct {
		err  error
		same bool
	}{
		"nothing":              {nil, true},
		"a missing name":       {full, true},
		"of another name":      {&fs.Error{Op: "lookup", Ino: 7, Name: "y", Kind: fs.ErrNotFound}, false},
		"of another directory": {&fs.Error{Op: "lookup", Ino: 8, Name: "x", Kind: fs.ErrNotFound}, false},
		"of another operation": {&fs.Error{Op: "open", Ino: 7, Name: "x", Kind: fs.ErrNotFound}, false},
		"another kind":         {&fs.Error{Op: "lookup", Ino: 7, Name: "x", Kind: fs.ErrStale}, false},
		"wrapped":              {fmt.Errorf("here: %w", full), false},
		"a bare kind":          {fs.ErrNotFound, false},
		"without a kind":       {errors.ErrUnsupported, false},
	} {
		got := failure("lookup", 7, "x", row.err)
		if (got == row.err) != row.same { //nolint:errorlint // the very same
			t.Errorf("%s: %v of %v", what, got, row.err)
		}
		if fs.KindOf(got) != fs.KindOf(row.err) || !errors.Is(got, row.err) {
			t.Errorf("%s: %v became %v", what, fs.KindOf(row.err), fs.KindOf(got))
		}
	}
	if n := testing.AllocsPerRun(10, func() { _ = failure("lookup", 7, "x", full) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
