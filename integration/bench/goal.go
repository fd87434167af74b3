package main

import "fmt"

// goal is a target that the report can check by itself. The zero value is none.
type goal struct {
	Speed float64 `json:"speed_min,omitempty"` // at least this share of the local file system's speed
	Value float64 `json:"value_max,omitempty"` // at most this, in the measure's unit
}

func (g goal) text(unit, disk string) string {
	switch {
	case g.Speed > 0:
		return fmt.Sprintf(">= %g x %s", g.Speed, disk)
	case g.Value > 0:
		return fmt.Sprintf("<= %g %s", g.Value, unit)
	}
	return ""
}

// holds judges one target. Without a base to compare with, a share is missed.
func (g goal) holds(f figures) bool {
	if g.Speed > 0 {
		return f.Speed >= g.Speed
	}
	return g.Value == 0 || f.Median <= g.Value
}

// verdict is what is known of a measure's goal.
type verdict string

const (
	noGoal verdict = ""
	held   verdict = "ok"
	missed verdict = "MISSED"
)

func verdictOf(ok bool) verdict {
	if ok {
		return held
	}
	return missed
}

// verdict judges all targets but the base: the goal is held where each node
// holds it.
func (b *book) verdict(name, base string) verdict {
	g := b.about[name].Goal
	if g == (goal{}) {
		return noGoal
	}
	judged := false
	for t := range b.values[name] {
		if t == base {
			continue
		}
		f, ok := b.figures(name, t, base)
		if !ok || !g.holds(f) {
			return missed
		}
		judged = true
	}
	return verdictOf(judged)
}
