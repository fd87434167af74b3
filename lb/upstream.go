package lb

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// tier is how willingly an upstream is used: the lowest that anyone has.
type tier int

const (
	tierGood      tier = iota // up, and clients may go to it
	tierReturning             // up, but not for long enough
	tierEjected               // requests failed on it
	tierDown                  // checks say so; tried when there is no other, before a client is told that nobody is there
	tierNever                 // draining
)

// upstream is a backend and what this balancer knows of it.
type upstream struct {
	id   string
	hash uint64

	backend  atomic.Pointer[Backend]
	drained  atomic.Bool  // by the operator
	inflight atomic.Int64 // requests
	writes   atomic.Int64 // of these, other than GET and HEAD
	slots    atomic.Pointer[chan struct{}]
	stats    upstreamStats

	mu      sync.Mutex // guards what follows
	up      bool
	checked bool      // at least one check has ended
	first   bool      // up since the first check: nobody was sent away, nobody needs to come back slowly
	since   time.Time // of up
	streak  int       // checks in a row that contradict up
	why     string    // the last check's or request's failure
	fails   int       // of requests, in a row
	ejected time.Time // until then
	eject   int       // how often in a row
}

func newUpstream(b Backend) *upstream {
	u := &upstream{id: b.ID, hash: xxhash.Sum64String(b.ID), up: true, first: true, since: time.Now()}
	u.backend.Store(&b)
	return u
}

func (u *upstream) weight() float64 {
	if w := u.backend.Load().Weight; w > 0 {
		return w
	}
	return 1
}

// standing is the upstream's tier, and the part of its weight that it has so far.
func (u *upstream) standing(h *Health, now time.Time) (tier, float64) {
	if u.drained.Load() || u.backend.Load().Draining {
		return tierNever, 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch age := now.Sub(u.since); {
	case !u.up:
		return tierDown, 1
	case now.Before(u.ejected):
		return tierEjected, 1
	case u.first:
		return tierGood, 1
	case age < h.Hold:
		return tierReturning, 1
	case age < h.Hold+h.SlowFor:
		return tierGood, max(0.1, float64(age-h.Hold)/float64(h.SlowFor))
	}
	return tierGood, 1
}

// upFor is how long the upstream has been up; for ever if it never was down.
func (u *upstream) upFor(now time.Time) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case !u.up || now.Before(u.ejected):
		return 0
	case u.first:
		return 1<<63 - 1
	}
	return now.Sub(u.since)
}

// checkedNow takes over the result of a check; err is nil for a good one. It
// reports whether the upstream went up or down by it.
func (u *upstream) checkedNow(h *Health, err error) (turned bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	first := !u.checked
	u.checked = true
	if err != nil {
		u.why = err.Error()
	}
	if (err == nil) == u.up {
		u.streak = 0
		return false
	}
	u.streak++
	need := h.Rise
	if u.up {
		need = h.Fall
	}
	var no saidNo
	if u.streak < need && !first && !errors.As(err, &no) {
		return false
	}
	u.up, u.first, u.streak, u.since = err == nil, false, 0, time.Now()
	if u.up {
		u.fails, u.eject, u.ejected, u.why = 0, 0, time.Time{}, ""
	}
	return true
}

// succeeded is for a request that the upstream answered as it should.
func (u *upstream) succeeded() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails = 0
	if u.eject > 0 && time.Now().After(u.ejected) {
		u.eject = 0
	}
}

// failed is for a request that did not reach the upstream or came back as 502,
// 503 or 504. It reports whether the upstream should be ejected now.
func (u *upstream) failed(h *Health, why string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails++
	u.why = why
	return u.fails >= h.FailMax && !time.Now().Before(u.ejected)
}

func (u *upstream) ejectNow(h *Health) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ejected = time.Now().Add(h.EjectFor << min(u.eject, 3))
	u.eject++
	u.fails = 0
	u.stats.ejections.Add(1)
}
