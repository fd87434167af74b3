package sim

import "testing"

// regressions are runs that once broke the protocol or its driver, or come as
// close to that as can be found now: under them the mutant that brings the fault
// back is caught. The whole protocol must pass them for ever.
var regressions = []struct {
	seed  uint64
	focus string
	what  string
}{
	{seed: 9, what: "a lease granted after the state was read covered the read"},
	{seed: 18, focus: "clean", what: "a young daemon left the mark of a clean exit while its predecessor's mount answered"},
	{seed: 38, what: "a restarted node showed the unstable end of its state"},
	{seed: 58, what: "a late Released struck a newer lease"},
	{seed: 208, what: "the oldest support of a majority was taken for all of it"},
}

func TestRegressions(t *testing.T) {
	for _, c := range regressions {
		t.Run(c.what, func(t *testing.T) {
			o := Options{Seed: c.seed, focus: c.focus}
			if r := Run(o); r.Violation != "" {
				report(t, o, r.Violation)
			}
		})
	}
}
