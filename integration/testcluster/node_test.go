package testcluster

import (
	"os"
	"testing"
	"time"
)

func TestCPUTime(t *testing.T) {
	cases := []struct {
		name, stat string
		want       time.Duration
		fails      bool
	}{
		{"plain", "7 (wpfs) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 6 7 20 0 9 0 1", 1750 * time.Millisecond, false},
		{"a name like fields", "7 (a) S (b) R 1 7 7 0 -1 4194560 1 2 3 4 1 2 6 7 20 0 9 0 1", 30 * time.Millisecond, false},
		{"no process", "", 0, true},
		{"cut short", "7 (wpfs) S 1 7 7 0", 0, true},
		{"no number", "7 (wpfs) S 1 7 7 0 -1 4194560 1 2 3 4 x 25 6 7", 0, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := cpuTime(c.stat)
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("cpuTime(%q) = %v, %v, want %v, an error: %v", c.stat, got, err, c.want, c.fails)
			}
		})
	}
	if _, err := (&Node{PID: os.Getpid()}).CPUTime(); err != nil {
		t.Errorf("of this process: %v", err)
	}
	if _, err := (&Node{}).CPUTime(); err == nil {
		t.Error("no error for a node that does not run")
	}
}
