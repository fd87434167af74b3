package cache

import (
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

func TestAges(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(sec int) time.Time { return start.Add(time.Duration(sec) * time.Second) }
	var a ages
	if age := a.of(5, at(0)); age != 0 {
		t.Errorf("without samples: %v", age)
	}
	a.add(10, 20, at(0))
	a.add(10, 20, at(1)) // nothing new
	a.add(10, 30, at(2))
	for _, row := range []struct {
		gen  fs.Index
		want time.Duration
	}{{10, 5 * time.Second}, {20, 5 * time.Second}, {21, 3 * time.Second}, {30, 3 * time.Second}, {31, 0}} {
		if age := a.of(row.gen, at(5)); age != row.want {
			t.Errorf("generation %d is %v old, want %v", row.gen, age, row.want)
		}
	}
	a.add(25, 40, at(6)) // all up to 24 is gone
	if len(a.samples) != 2 {
		t.Errorf("%d samples, want 2", len(a.samples))
	}
	if age := a.of(25, at(7)); age != 5*time.Second {
		t.Errorf("generation 25 is %v old", age)
	}
}

// TestAgesAreBounded: an outage of days takes no more memory than one of
// minutes, the oldest chunk keeps its age, and no chunk gets older than it is.
func TestAgesAreBounded(t *testing.T) {
	start := time.Unix(1000, 0)
	var a ages
	const n = 100_000
	for i := range n {
		a.add(1, fs.Index(i+1), start.Add(time.Duration(i)*time.Second))
	}
	if len(a.samples) > agesMax {
		t.Errorf("%d samples", len(a.samples))
	}
	now := start.Add(n * time.Second)
	if age := a.of(1, now); age != n*time.Second {
		t.Errorf("the oldest is %v old", age)
	}
	for gen := fs.Index(1); gen <= n; gen += 997 {
		if age, real := a.of(gen, now), time.Duration(n-int(gen)+1)*time.Second; age > real {
			t.Errorf("generation %d looks %v old and is %v", gen, age, real)
		}
	}
	if age := a.of(n-10, now); age != 11*time.Second {
		t.Errorf("a recent one is %v old, want exactly 11 s", age)
	}
}
