package cache

import (
	"sort"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// agesMax bounds the samples of ages.
const agesMax = 1024

// ages estimates how long chunks have existed, in memory that does not grow with
// their number: a chunk's generation is an index of the log, so one sample "at
// this time the newest was N" dates every chunk up to N.
type ages struct {
	samples []ageSample // both fields ascend
}

type ageSample struct {
	newest fs.Index
	at     time.Time
}

// add records that now chunks exist whose generations go from oldest to newest.
func (a *ages) add(oldest, newest fs.Index, now time.Time) {
	for len(a.samples) > 0 && a.samples[0].newest < oldest {
		a.samples = a.samples[1:] // what it dated is gone
	}
	if n := len(a.samples); n > 0 && a.samples[n-1].newest >= newest {
		return
	}
	a.samples = append(a.samples, ageSample{newest, now})
	if len(a.samples) > agesMax {
		a.thin()
	}
}

// thin drops every second sample of the older half. Chunks that one of them
// dated look younger from then on, by at most the distance to the next.
func (a *ages) thin() {
	half := len(a.samples) / 2
	kept := a.samples[:0:0]
	for i, s := range a.samples {
		if i >= half || i%2 == 0 {
			kept = append(kept, s)
		}
	}
	a.samples = kept
}

// of is how long ago the chunk of that generation was first seen: 0 for one
// that no sample has covered yet.
func (a *ages) of(gen fs.Index, now time.Time) time.Duration {
	i := sort.Search(len(a.samples), func(i int) bool { return a.samples[i].newest >= gen })
	if i == len(a.samples) {
		return 0
	}
	return now.Sub(a.samples[i].at)
}
