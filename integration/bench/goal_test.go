package main

import "testing"

func TestVerdicts(t *testing.T) {
	speed, value := goal{Speed: 0.75}, goal{Value: 300}
	cases := []struct {
		name                    string
		goal                    goal
		rate                    bool
		local, leader, follower float64 // 0: not measured
		want                    verdict
	}{
		{"as fast as asked", speed, false, 3, 4, 4, held},
		{"one node is too slow", speed, false, 3, 4, 4.1, missed},
		{"a rate", speed, true, 100, 80, 75, held},
		{"a rate too low", speed, true, 100, 80, 74, missed},
		{"nothing to compare with", speed, false, 0, 4, 4, missed},
		{"nodes not measured", speed, false, 3, 0, 0, missed},
		{"at most", value, false, 1, 300, 10, held},
		{"more than that", value, false, 1, 301, 10, missed},
		{"the local file system is not judged", value, false, 400, 10, 10, held},
		{"no goal", goal{}, false, 1, 1000, 1000, noGoal},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBook()
			m := measure{Name: "m", Rate: c.rate, Goal: c.goal}
			for target, v := range map[string]float64{"local": c.local, "leader": c.leader, "follower": c.follower} {
				if v > 0 {
					b.add(m, target, 0, v)
				}
			}
			if got := b.verdict("m", "local"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestSpeedIsTheMedianOfRounds(t *testing.T) {
	b := newBook()
	m := measure{Name: "m"}
	for round, v := range []float64{20, 40, 1000} { // a neighbour was busy in the last one
		b.add(m, "local", round, 10)
		b.add(m, "node", round, v)
	}
	if f, _ := b.figures("m", "node", "local"); f.Speed != 0.25 {
		t.Errorf("%v of the local speed, want 0.25", f.Speed)
	}
}

func TestGoalTexts(t *testing.T) {
	for want, g := range map[string]goal{">= 0.12 x ext4": {Speed: 0.12}, "<= 300 us/file": {Value: 300}, "": {}} {
		if got := g.text("us/file", "ext4"); got != want {
			t.Errorf("%+v is %q, want %q", g, got, want)
		}
	}
}
