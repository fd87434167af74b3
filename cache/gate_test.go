package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// TestGate: nobody waits up to half of the limit; then more and more; at the
// limit writes are refused, and taken again when the backlog has drained.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 << 30
		var backlog uint64
		pressure, full := 0.0, error(nil)
		g := NewGate(GateOptions{Backlog: func() uint64 { return backlog }, BacklogMax: limit,
			Pressure: func() float64 { return pressure }, Full: func() error { return full }})
		write := func(n int) (time.Duration, error) {
			time.Sleep(gateFresh)
			start := time.Now()
			err := g.Admit(t.Context(), n)
			return time.Since(start), err
		}
		last := time.Duration(-1)
		for _, row := range []struct {
			fill  float64
			waits bool
		}{{0, false}, {0.5, false}, {0.6, true}, {0.8, true}, {0.99, true}} {
			backlog = uint64(row.fill * limit)
			took, err := write(1 << 20)
			if err != nil || (took > 0) != row.waits || took > gateSleep || row.waits && took <= last {
				t.Errorf("at %v: %v after %v", row.fill, err, took)
			}
			last = took
		}
		if took, _ := write(100); took == 0 || took > last/10 {
			t.Errorf("a short line waits %v, a long one %v", took, last)
		}
		backlog = limit
		_, err := write(1)
		wantKind(t, "at the limit", err, fs.ErrNoSpace)
		backlog = 0
		if took, err := write(1); err != nil || took != 0 {
			t.Errorf("drained: %v after %v", err, took)
		}
		pressure = 1
		if took, err := write(1 << 20); err != nil || took != gateSleep {
			t.Errorf("a full cache: %v after %v", err, took)
		}
		full = fs.ErrNoSpace
		if _, err := write(1); !errors.Is(err, fs.ErrNoSpace) {
			t.Errorf("full: %v", err)
		}
		if s := g.Stats(); s.Refused != 2 || s.Slowed != 5 || s.Full == nil {
			t.Errorf("%+v", s)
		}
		full = nil
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(gateFresh)
		start := time.Now()
		if err := g.Admit(ctx, 1<<20); err != nil || time.Since(start) != 0 {
			t.Errorf("an interrupted write: %v after %v", err, time.Since(start))
		}
	})
}
