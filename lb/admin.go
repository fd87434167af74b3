package lb

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// adminPool is one upstream for all of administration: uploads and updates do
// their heavy work there, and see at once what they have changed. When it fails
// the next in rank takes over at once; back it goes slowly, so that an upstream
// that comes and goes does not carry the administration to and fro.
type adminPool struct {
	mu      sync.Mutex
	current string // id; "" before the first request
}

var adminKey = xxhash.Sum64String("admin")

// rank orders the upstreams: the preferred first, then by rendezvous with the
// word admin, which all balancers do alike.
func rank(all []*upstream, prefer []string) []*upstream {
	place := func(u *upstream) int {
		if i := slices.Index(prefer, u.id); i >= 0 {
			return i
		}
		return len(prefer)
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b *upstream) int {
		if c := cmp.Compare(place(a), place(b)); c != 0 {
			return c
		}
		return cmp.Compare(rendezvous(adminKey, b.hash, b.weight()), rendezvous(adminKey, a.hash, a.weight()))
	})
	return out
}

// pick is the current upstream, or the next one that was not tried. nil if all
// have been tried or drain.
func (a *adminPool) pick(all, tried []*upstream, c *Config, now time.Time) *upstream {
	ranked := rank(all, c.Admin)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.elect(ranked, c, now)
	var best *upstream
	bestTier := tierNever
	for _, u := range ranked {
		t, _ := u.standing(&c.Health, now)
		if t == tierReturning {
			t = tierGood // what Hold is for, FailBack does here
		}
		if t == tierNever || slices.Contains(tried, u) {
			continue
		}
		if u.id == a.current && t == tierGood {
			return u
		}
		if t < bestTier {
			best, bestTier = u, t
		}
	}
	return best
}

// elect changes the current upstream if it is not good any more, or if a better
// one has been up for long enough and nothing is being written on the current.
func (a *adminPool) elect(ranked []*upstream, c *Config, now time.Time) {
	var first, current *upstream
	for _, u := range ranked {
		t, _ := u.standing(&c.Health, now)
		if t > tierReturning {
			continue
		}
		if first == nil {
			first = u
		}
		if u.id == a.current {
			current = u
		}
	}
	switch {
	case first == nil: // nobody is good: stay, pick tries all
	case current == nil:
		a.current = first.id
	case first != current && first.upFor(now) >= c.Health.FailBack && current.writes.Load() == 0:
		a.current = first.id
	}
}

// now is the current upstream's id, without a choice being made.
func (a *adminPool) now() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current
}
