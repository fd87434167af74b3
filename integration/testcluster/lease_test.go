package testcluster

import (
	"testing"
	"time"
)

func TestHeldNeedsAnswersAround(t *testing.T) {
	const ms = int64(time.Millisecond)
	at := func(t int64, held bool) leaseSample {
		return leaseSample{asked: t * ms, answered: (t + 1) * ms, held: held}
	}
	cases := []struct {
		name     string
		samples  []leaseSample
		from, to int64
		want     bool
	}{
		{"between two good answers", []leaseSample{at(0, true), at(20, true)}, 5, 10, true},
		{"nothing before", []leaseSample{at(0, true), at(20, true)}, 0, 10, false},
		{"nothing after", []leaseSample{at(0, true), at(20, true)}, 5, 21, false},
		{"none before", []leaseSample{at(0, false), at(20, true)}, 5, 10, false},
		{"none after", []leaseSample{at(0, true), at(20, false)}, 5, 10, false},
		{"lost during a long call", []leaseSample{at(0, true), at(20, false), at(40, true), at(60, true)}, 5, 50, false},
		{"held during a long call", []leaseSample{at(0, true), at(20, true), at(40, true), at(60, true)}, 5, 50, true},
		{"silence", []leaseSample{at(0, true), at(5000, true)}, 5, 10, false},
		{"earlier loss does not matter", []leaseSample{at(0, false), at(20, true), at(40, true)}, 25, 30, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := &LeaseWatch{samples: c.samples}
			if got := w.Held(c.from*ms, c.to*ms); got != c.want {
				t.Errorf("held from %d to %d: %v, want %v", c.from, c.to, got, c.want)
			}
		})
	}
}
