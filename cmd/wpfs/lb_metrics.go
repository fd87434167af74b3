package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/lb"
)

// lbMetrics shows a balancer's numbers. They are read once per scrape.
type lbMetrics struct {
	b                                                *lb.Balancer
	answers, latency, up, inflight, requests, failed *prometheus.Desc
	upAnswers, upLatency, retried, ejected           *prometheus.Desc
	numbers                                          []lbNumber
}

type lbNumber struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(lb.Stats, lb.Status) float64
}

func newLBMetrics(b *lb.Balancer) *lbMetrics {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("wpfs_lb_"+name, help, labels, nil)
	}
	m := &lbMetrics{b: b,
		answers:   d("answers_total", "Answers to clients, by class of status.", "class"),
		latency:   d("seconds", "From a request's arrival to the end of its answer."),
		up:        d("upstream_up", "1 if the upstream takes requests of clients.", "upstream", "state"),
		inflight:  d("upstream_in_flight", "Requests in flight to the upstream.", "upstream"),
		requests:  d("upstream_requests_total", "Requests sent to the upstream, repeated ones too.", "upstream"),
		failed:    d("upstream_failures_total", "Of these, those that did not reach it, broke off or came back as 502, 503 or 504.", "upstream"),
		upAnswers: d("upstream_answers_total", "Its answers, by class of status.", "upstream", "class"),
		upLatency: d("upstream_seconds", "From sending a request to the beginning of its answer.", "upstream", "pool"),
		retried:   d("upstream_repeated_total", "Requests that it got because another upstream failed.", "upstream"),
		ejected:   d("upstream_ejections_total", "Times it was taken out because requests failed.", "upstream"),
	}
	add := func(kind prometheus.ValueType, name, help string, value func(lb.Stats, lb.Status) float64) {
		m.numbers = append(m.numbers, lbNumber{d(name, help), kind, value})
	}
	const total, now = prometheus.CounterValue, prometheus.GaugeValue
	add(total, "repeated_total", "Requests that were sent to another upstream.", func(s lb.Stats, _ lb.Status) float64 { return float64(s.Retries) })
	add(total, "refused_total", "Requests that no upstream should see: ambiguous or malformed.", func(s lb.Stats, _ lb.Status) float64 { return float64(s.Refused) })
	add(total, "limited_total", "Requests over a rate limit (429).", func(s lb.Stats, _ lb.Status) float64 { return float64(s.Limited) })
	add(total, "nobody_total", "Requests that no upstream answered (503).", func(s lb.Stats, _ lb.Status) float64 { return float64(s.Nobody) })
	add(total, "queue_full_total", "Requests that found no place at their upstream in time (503).", func(s lb.Stats, _ lb.Status) float64 { return float64(s.NoSlots) })
	add(total, "maintenance_total", "Requests that got the maintenance page because it is on.", func(s lb.Stats, _ lb.Status) float64 { return float64(s.Maintenance) })
	add(total, "connections_refused_total", "Connections over a limit.", func(s lb.Stats, _ lb.Status) float64 { return float64(s.ConnsRefused) })
	add(total, "handshakes_failed_total", "TLS handshakes that failed.", func(s lb.Stats, _ lb.Status) float64 { return float64(s.HandshakesFailed) })
	add(now, "read_ahead_bytes", "Answers taken from upstreams that clients have not read.", func(s lb.Stats, _ lb.Status) float64 { return float64(s.ReadAheadBytes) })
	add(now, "connections", "Connections of clients.", func(_ lb.Stats, s lb.Status) float64 { return float64(s.Connections) })
	add(now, "in_flight", "Requests in flight.", func(_ lb.Stats, s lb.Status) float64 { return float64(s.InFlight) })
	add(now, "maintenance", "1 in maintenance mode.", func(_ lb.Stats, s lb.Status) float64 { return b2f(s.Maintenance) })
	return m
}

// Describe lists the metrics.
func (m *lbMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.answers, m.latency, m.up, m.inflight, m.requests, m.failed, m.upAnswers, m.upLatency, m.retried, m.ejected} {
		c <- d
	}
	for _, n := range m.numbers {
		c <- n.desc
	}
}

// Collect reads the balancer once.
func (m *lbMetrics) Collect(c chan<- prometheus.Metric) {
	s, st := m.b.Stats(), m.b.Status()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for class, n := range s.Answers {
		count(m.answers, n, class)
	}
	c <- prometheus.MustNewConstHistogram(m.latency, s.Latency.Count, s.Latency.SumS, s.Latency.Counts)
	for _, n := range m.numbers {
		c <- prometheus.MustNewConstMetric(n.desc, n.kind, n.value(s, st))
	}
	for _, u := range st.Upstreams {
		c <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, b2f(u.State == "up"), u.ID, u.State)
		c <- prometheus.MustNewConstMetric(m.inflight, prometheus.GaugeValue, float64(u.InFlight), u.ID)
	}
	for id, u := range s.Upstreams {
		count(m.requests, u.Requests, id)
		count(m.failed, u.Failures, id)
		count(m.retried, u.Retried, id)
		count(m.ejected, u.Ejections, id)
		for class, n := range u.Answers {
			count(m.upAnswers, n, id, class)
		}
		for pool, l := range u.Latency {
			c <- prometheus.MustNewConstHistogram(m.upLatency, l.Count, l.SumS, l.Counts, id, string(pool))
		}
	}
}
