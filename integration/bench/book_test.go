package main

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	cases := []struct {
		name string
		vs   []float64
		q    float64
		want float64
	}{
		{"median of odd", []float64{3, 1, 2}, 0.5, 2},
		{"median of even is the lower", []float64{4, 1, 2, 3}, 0.5, 2},
		{"p99 of few is the worst", []float64{5, 9, 1}, 0.99, 9},
		{"lowest", []float64{5, 9, 1}, 0.01, 1},
		{"one value", []float64{7}, 0.99, 7},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := quantile(c.vs, c.q); got != c.want {
				t.Errorf("quantile(%v, %v) = %v, want %v", c.vs, c.q, got, c.want)
			}
		})
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("a quantile of nothing is a number")
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	b := newBook()
	times, rate := measure{Name: "times"}, measure{Name: "rate", Rate: true}
	// The second round was three times as slow for everybody.
	b.add(times, "local", 1, 10)
	b.add(times, "node", 1, 20)
	b.add(times, "local", 2, 30)
	b.add(times, "node", 2, 60)
	b.add(rate, "local", 1, 100)
	b.add(rate, "node", 1, 25)
	for name, want := range map[string]float64{"times": 2, "rate": 4} {
		f, ok := b.figures(name, "node", "local")
		if !ok || f.Slower != want {
			t.Errorf("%s: %v times slower, want %v", name, f.Slower, want)
		}
	}
	if _, ok := b.figures("times", "nobody", "local"); ok {
		t.Error("figures of a target without values")
	}
}
