package lb

import (
	"math"
	"slices"
	"time"
)

// pick chooses the upstream for a key by weighted rendezvous hashing (Thaler and
// Ravishankar 1998; weights as in draft-ietf-bess-weighted-hrw): each upstream
// draws a number from key and id, the best wins. If one goes, only its clients
// move; if one comes, only clients move that it wins.
//
// Of the best tier that anybody has only. Own zone first. An upstream that has
// more than its share of the load (bounded load, Mirrokni and others 2018) is
// passed over. nil if all have been tried or drain.
func pick(key uint64, all, tried []*upstream, c *Config, now time.Time) *upstream {
	s := survey(all, tried, c, now)
	var best, freest *upstream
	bestScore, freestScore := math.Inf(-1), math.Inf(-1)
	for _, u := range all {
		t, part := u.standing(&c.Health, now)
		if t != s.tier || t == tierNever || slices.Contains(tried, u) || s.zone && u.backend.Load().Zone != c.Zone {
			continue
		}
		w := u.weight() * part
		score := rendezvous(key, u.hash, w)
		if score > bestScore {
			best, bestScore = u, score
		}
		if score > freestScore && float64(u.inflight.Load()) < s.allowed(w) {
			freest, freestScore = u, score
		}
	}
	if freest != nil {
		return freest
	}
	return best
}

// surveyed is what pick must know before it compares.
type surveyed struct {
	tier           tier // the best that anybody has
	zone           bool // somebody of the own zone has it
	inflight, size float64
}

func survey(all, tried []*upstream, c *Config, now time.Time) surveyed {
	s := surveyed{tier: tierNever}
	for _, u := range all {
		t, part := u.standing(&c.Health, now)
		if slices.Contains(tried, u) || t > s.tier {
			continue
		}
		if t < s.tier {
			s = surveyed{tier: t}
		}
		s.zone = s.zone || c.Zone != "" && u.backend.Load().Zone == c.Zone
		s.inflight += float64(u.inflight.Load())
		s.size += u.weight() * part
	}
	return s
}

// allowed is how many requests an upstream of weight w may have in flight before
// others take its next ones.
func (s surveyed) allowed(w float64) float64 {
	return math.Max(loadFloor, math.Ceil(loadFactor*(s.inflight+1)*w/s.size))
}

// rendezvous draws a number u, 0 < u < 1, from both hashes, and scores it by weight.
func rendezvous(key, id uint64, weight float64) float64 {
	u := (float64(mix(key^mix(id))>>12) + 0.5) / (1 << 52)
	return -weight / math.Log(u)
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of x
// changes half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
