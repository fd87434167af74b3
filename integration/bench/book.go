package main

import (
	"maps"
	"math"
	"slices"
	"time"
)

// measure is one line of the report.
type measure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	Rate bool   `json:"rate"` // more is better; otherwise less is
	How  string `json:"how"`  // how one value was obtained
	// Target is the design's figure, in words; empty where it has none.
	Target string `json:"target,omitempty"`
	// Goal is a figure that the report checks, in place of words.
	Goal goal `json:"goal,omitzero"`
}

// book keeps all values, by measure, target and round, and what the kernel asked.
type book struct {
	order    []string
	about    map[string]measure
	values   map[string]map[string]map[int][]float64
	requests []*caused // in the order of their first round
}

func newBook() *book {
	return &book{about: map[string]measure{}, values: map[string]map[string]map[int][]float64{}}
}

// add books values of one round.
func (b *book) add(m measure, target string, round int, vs ...float64) {
	if _, ok := b.about[m.Name]; !ok {
		b.about[m.Name] = m
		b.order = append(b.order, m.Name)
		b.values[m.Name] = map[string]map[int][]float64{}
	}
	t := b.values[m.Name]
	if t[target] == nil {
		t[target] = map[int][]float64{}
	}
	t[target][round] = append(t[target][round], vs...)
}

// addTimes books durations as microseconds.
func (b *book) addTimes(m measure, target string, round int, ds []time.Duration) {
	vs := make([]float64, len(ds))
	for i, d := range ds {
		vs[i] = float64(d) / float64(time.Microsecond)
	}
	b.add(m, target, round, vs...)
}

// figures are what the report says of one target.
type figures struct {
	Median float64 `json:"median"` // of the rounds' medians
	P99    float64 `json:"p99"`    // of all values; the worst one if there are fewer than a hundred
	Slower float64 `json:"slower"` // median over rounds of the ratio to the base target in the same round; > 1 is slower
	Speed  float64 `json:"speed"`  // the same the other way round: the share of the base target's speed
	Rounds int     `json:"rounds"`
	Values int     `json:"values"`
}

// figures compares target with base; 0 in Slower and Speed means that there is no base.
func (b *book) figures(name, target, base string) (figures, bool) {
	rounds := b.values[name][target]
	if len(rounds) == 0 {
		return figures{}, false
	}
	var meds, ratios, all []float64
	for _, r := range slices.Sorted(maps.Keys(rounds)) {
		vs := rounds[r]
		all = append(all, vs...)
		meds = append(meds, quantile(vs, 0.5))
		if bs := b.values[name][base][r]; len(bs) > 0 {
			ratio := quantile(vs, 0.5) / quantile(bs, 0.5)
			if b.about[name].Rate {
				ratio = 1 / ratio
			}
			ratios = append(ratios, ratio)
		}
	}
	q := 0.99
	if b.about[name].Rate {
		q = 0.01
	}
	f := figures{Median: quantile(meds, 0.5), P99: quantile(all, q), Rounds: len(meds), Values: len(all)}
	if len(ratios) > 0 {
		f.Slower = quantile(ratios, 0.5)
		f.Speed = 1 / f.Slower
	}
	return f, true
}

// quantile is the value below which the share q of vs lies, by the nearest rank.
func quantile(vs []float64, q float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(vs))
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}
