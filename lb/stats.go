package lb

import (
	"context"
	"log"
	"sync/atomic"
	"time"
)

// latencyBounds are the upper bounds of the histograms' buckets, in seconds. A
// page of WordPress takes some 20 ms, an update minutes.
var latencyBounds = [...]float64{0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}

// histogram counts without a lock.
type histogram struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	sumNS   atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i, s := 0, d.Seconds()
	for i < len(latencyBounds) && s > latencyBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sumNS.Add(int64(d))
}

// Latency is a histogram as it was at one moment.
type Latency struct {
	Count  uint64
	SumS   float64
	Counts map[float64]uint64 // by upper bound in seconds, cumulative
}

func (h *histogram) read() Latency {
	l := Latency{Counts: map[float64]uint64{}, SumS: float64(h.sumNS.Load()) / 1e9}
	for i := range h.buckets {
		l.Count += h.buckets[i].Load()
		if i < len(latencyBounds) {
			l.Counts[latencyBounds[i]] = l.Count
		}
	}
	return l
}

// stats are the balancer's numbers.
type stats struct {
	classes      [6]atomic.Uint64 // answers by the first digit of their status; 0: of others
	latency      histogram
	inflight     atomic.Int64
	retries      atomic.Uint64
	refused      atomic.Int64
	limited      atomic.Uint64
	maintenance  atomic.Uint64
	nobody       atomic.Uint64
	noSlots      atomic.Uint64
	connsRefused atomic.Uint64
	handshakes   atomic.Uint64
	readAhead    atomic.Int64
}

func (s *stats) observe(status int, d time.Duration) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	s.classes[class].Add(1)
	s.latency.observe(d)
}

// awaitIdle waits until no request is in flight.
func (s *stats) awaitIdle(ctx context.Context) {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for s.inflight.Load() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// upstreamStats are one upstream's.
type upstreamStats struct {
	requests, failures, retried, ejections atomic.Uint64
	classes                                [6]atomic.Uint64
	any, admin                             histogram
}

func (s *upstreamStats) observe(p Pool, status int, d time.Duration) {
	s.classes[min(max(status/100, 0), 5)].Add(1)
	if p == PoolAdmin {
		s.admin.observe(d)
		return
	}
	s.any.observe(d)
}

// Status is a balancer at one moment.
type Status struct {
	Maintenance bool       `json:"maintenance"`
	Admin       string     `json:"admin"` // the upstream of the admin pool; "" before its first request
	InFlight    int64      `json:"in_flight"`
	Connections int        `json:"connections"`
	Upstreams   []Upstream `json:"upstreams"`
	Drained     []string   `json:"drained"` // ids, also of upstreams that are not there at the moment
}

// Upstream is one upstream at one moment.
type Upstream struct {
	ID       string  `json:"id"`
	Addr     string  `json:"addr"`
	Zone     string  `json:"zone,omitempty"`
	State    string  `json:"state"` // up, returning, ejected, down or draining
	Weight   float64 `json:"weight"`
	Share    float64 `json:"share"` // of its weight, while it starts slowly; else 1
	InFlight int64   `json:"in_flight"`
	Requests uint64  `json:"requests"`
	Failures uint64  `json:"failures"`
	Why      string  `json:"why,omitempty"` // the last failure, while it is not up
}

var stateNames = map[tier]string{tierGood: "up", tierReturning: "returning", tierEjected: "ejected", tierDown: "down", tierNever: "draining"}

// Status tells how it stands.
func (b *Balancer) Status() Status {
	s, now := b.settings(), time.Now()
	st := Status{Maintenance: b.maint.Load(), Admin: b.admin.now(), InFlight: b.stats.inflight.Load(), Connections: b.conns.count(),
		Upstreams: []Upstream{}, Drained: append([]string{}, b.pool.drainedIDs()...)}
	for _, u := range b.pool.all() {
		t, part := u.standing(&s.Health, now)
		back := u.backend.Load()
		up := Upstream{ID: u.id, Addr: back.Addr, Zone: back.Zone, State: stateNames[t], Weight: u.weight(), Share: part,
			InFlight: u.inflight.Load(), Requests: u.stats.requests.Load(), Failures: u.stats.failures.Load()}
		if t == tierEjected || t == tierDown {
			u.mu.Lock()
			up.Why = u.why
			u.mu.Unlock()
		}
		st.Upstreams = append(st.Upstreams, up)
	}
	return st
}

// Stats are the numbers since the start, for metrics.
type Stats struct {
	Answers                                 map[string]uint64 // by class: 1xx … 5xx, other
	Latency                                 Latency
	Retries, Limited, Maintenance, Nobody   uint64
	NoSlots, ConnsRefused, HandshakesFailed uint64
	Refused, ReadAheadBytes                 int64
	Upstreams                               map[string]UpstreamStats
}

// UpstreamStats are one upstream's numbers.
type UpstreamStats struct {
	Requests, Failures, Retried, Ejections uint64
	Answers                                map[string]uint64
	Latency                                map[Pool]Latency
}

var classNames = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func readClasses(c *[6]atomic.Uint64) map[string]uint64 {
	m := map[string]uint64{}
	for i := range c {
		m[classNames[i]] = c[i].Load()
	}
	return m
}

// Stats reads the numbers.
func (b *Balancer) Stats() Stats {
	s := &b.stats
	out := Stats{
		Answers: readClasses(&s.classes), Latency: s.latency.read(),
		Retries: s.retries.Load(), Limited: s.limited.Load(), Maintenance: s.maintenance.Load(), Nobody: s.nobody.Load(),
		NoSlots: s.noSlots.Load(), ConnsRefused: s.connsRefused.Load(), HandshakesFailed: s.handshakes.Load(),
		Refused: s.refused.Load(), ReadAheadBytes: s.readAhead.Load(), Upstreams: map[string]UpstreamStats{},
	}
	for _, u := range b.pool.all() {
		out.Upstreams[u.id] = UpstreamStats{
			Requests: u.stats.requests.Load(), Failures: u.stats.failures.Load(), Retried: u.stats.retried.Load(), Ejections: u.stats.ejections.Load(),
			Answers: readClasses(&u.stats.classes), Latency: map[Pool]Latency{PoolAny: u.stats.any.read(), PoolAdmin: u.stats.admin.read()},
		}
	}
	return out
}

func newServerLog(b *Balancer) *log.Logger { return log.New(serverLog{b}, "", 0) }
