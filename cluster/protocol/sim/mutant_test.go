package sim

import (
	"testing"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
)

// mutants names every broken rule, with a seed under which it is known to show,
// which saves the search. When the simulator changes, seeds mean other runs: the
// test then searches from 1 up to seedsMax and logs the seed to write down here.
var mutants = []struct {
	m     mutant.Mutant
	seed  uint64
	focus func(*params) // turns to the faults that the rule is about, where they are rare
}{
	// The thirteen of the model-checked list.
	{m: mutant.NoWait, seed: 1},
	{m: mutant.AckEarly, seed: 1},
	{m: mutant.LeaseFromReceipt, seed: 1},
	{m: mutant.NoRound, seed: 1},
	{m: mutant.StaleRound, seed: 1},
	{m: mutant.NoCatchUp, seed: 1},
	{m: mutant.Expose, seed: 1},
	{m: mutant.KernelUnbounded, seed: 1},
	{m: mutant.NoMargin, seed: 1},
	{m: mutant.StrikeEarly, seed: 1},
	{m: mutant.AnyGrant, seed: 1},
	{m: mutant.AdoptKeepsKernel, seed: 1},
	{m: mutant.LargestAge, seed: 1},
	// Ours.
	{m: mutant.NonVotersCount, seed: 1},
	{m: mutant.MergeIncarnations, seed: 1},
	{m: mutant.YoungAdopts, seed: 1},
	{m: mutant.AgeForgotten, seed: 1},
	{m: mutant.AnswerUnstable, seed: 1},
	{m: mutant.RestartForgets, seed: 1},
	{m: mutant.ReleasedAnyRequest, seed: 1},
	{m: mutant.LeaseAfterRead, seed: 1},
	{m: mutant.RemoveEarly, seed: 1, focus: focusRemove},
	{m: mutant.YoungCleanExit, seed: 1, focus: focusClean},
}

// seedsMax bounds the search for a seed that shows a broken rule.
const seedsMax = 2000

// focusClean has daemons die, return and stop in quick succession, and leaders
// that take over by Adopt.
func focusClean(p *params) {
	p.kernel, p.adopt, p.witness = true, true, false
	p.crash, p.stop, p.swap = p.lease, p.lease, p.lease/2
	p.loss, p.freeze, p.cut, p.campaign, p.power, p.slowLink = 0, 0, 0, 0, 0, 0
}

// focusRemove removes nodes while leaders take over by Adopt.
func focusRemove(p *params) {
	p.nodes, p.adopt, p.witness = 7, true, false
	p.reconf, p.swap = p.lease/4, p.lease/2
	p.loss, p.freeze, p.cut, p.campaign, p.power, p.slowLink = 0, 0, 0, 0, 0, 0
}

// TestMutantsAreCaught: each broken rule is seen by applications, without the
// help of internal invariants, and the whole protocol passes the same run.
func TestMutantsAreCaught(t *testing.T) {
	listed := map[mutant.Mutant]bool{}
	for _, c := range mutants {
		listed[c.m] = true
		t.Run(c.m.String(), func(t *testing.T) {
			t.Parallel()
			o := Options{Mutant: c.m, Seed: c.seed, Observe: true, adjust: c.focus}
			r := Run(o)
			for o.Seed = 1; r.Violation == "" && o.Seed <= seedsMax; o.Seed++ {
				r = Run(o)
			}
			if r.Violation == "" {
				t.Fatalf("not caught in %d seeds", seedsMax)
			}
			if r.Seed != c.seed {
				t.Logf("seed %d does not show it any more; write down seed %d", c.seed, r.Seed)
			}
			t.Logf("seed %d: %s", r.Seed, r.Violation)
			o.Seed, o.Mutant = r.Seed, mutant.None
			if r := Run(o); r.Violation != "" {
				report(t, o, r.Violation)
			}
		})
	}
	for m := mutant.None + 1; m < mutant.End; m++ {
		if !listed[m] {
			t.Errorf("mutant %s is in no list", m)
		}
	}
}

// TestFocusHolds runs the whole protocol under the focused faults.
func TestFocusHolds(t *testing.T) {
	for name, f := range map[string]func(*params){"clean": focusClean, "remove": focusRemove} {
		t.Run(name, func(t *testing.T) { many(t, 1, seeds(t)/20, Options{adjust: f}) })
	}
}
