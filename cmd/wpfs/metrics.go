package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// newRegistry makes the agent's own metrics registry. It holds the Go runtime
// and the process; the parts of the node add theirs.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// statusMetrics shows a Status as metrics. It is read once per scrape, so the
// gauges of one scrape belong to one moment.
type statusMetrics struct {
	s      source
	gauges []statusGauge
	build  *prometheus.Desc
}

type statusGauge struct {
	desc  *prometheus.Desc
	value func(Status) float64
}

func newStatusMetrics(s source) *statusMetrics {
	g := func(name, help string, value func(Status) float64) statusGauge {
		return statusGauge{prometheus.NewDesc("wpfs_"+name, help, nil, nil), value}
	}
	return &statusMetrics{s: s,
		build: prometheus.NewDesc("wpfs_build_info", "Always 1; the version is a label.", []string{"version", "node", "cluster"}, nil),
		gauges: []statusGauge{
			g("healthy", "1 if /healthz answers 200.", func(s Status) float64 { return b2f(s.Healthy) }),
			g("draining", "1 while the agent is stopping.", func(s Status) float64 { return b2f(s.Draining) }),
			g("mount_live", "1 if the mount is served; 0 without the mount role.", func(s Status) float64 { return b2f(s.Mount.Live) }),
			g("leader", "1 on the leader.", func(s Status) float64 { return b2f(s.Cluster.Role == "leader") }),
			g("lease_valid", "1 while this node may answer from its own state.", func(s Status) float64 { return b2f(s.Cluster.LeaseValid) }),
			g("lease_left_ms", "What is left of the lease.", func(s Status) float64 { return s.Cluster.LeaseLeftMS }),
			g("raft_term", "Raft's term.", func(s Status) float64 { return float64(s.Cluster.Term) }),
			g("applied_index", "Last log entry applied here.", func(s Status) float64 { return float64(s.Cluster.Applied) }),
			g("stable_index", "Last log entry known to be applied by every lease holder.", func(s Status) float64 { return float64(s.Cluster.Stable) }),
			g("members", "Nodes in the raft configuration.", func(s Status) float64 { return float64(s.Cluster.Members) }),
			g("cache_bytes", "Content on this node's disk.", func(s Status) float64 { return float64(s.Content.CacheBytes) }),
			g("cache_chunks", "Chunks on this node's disk.", func(s Status) float64 { return float64(s.Content.CacheChunks) }),
			g("upload_chunks", "Chunks of the whole cluster that wait to be put into the object store.", func(s Status) float64 { return float64(s.Content.UploadChunks) }),
			g("upload_age_seconds", "Age of the oldest chunk that waits.", func(s Status) float64 { return s.Content.UploadAgeS }),
			g("upload_alarm", "1 while content waits for the object store for more than 60 s, or more than 1 GiB of it.", func(s Status) float64 { return b2f(s.Content.uploadAlarm()) }),
			g("object_suspended", "1 while the object store is only probed, because it failed again and again.", func(s Status) float64 { return b2f(s.Content.ObjectSuspended) }),
			g("writes_slowed", "1 while writers are slowed down because much content waits for the object store.", func(s Status) float64 { return b2f(s.Content.WritesSlowed) }),
			g("writes_refused", "1 while writers get ENOSPC on this node.", func(s Status) float64 { return b2f(s.Content.WritesRefused != "") }),
			g("cache_pressure", "Part of the room for content that may not be dropped.", func(s Status) float64 { return s.Content.CachePressure }),
			g("object_failing", "1 while the object store fails.", func(s Status) float64 { return b2f(s.Content.ObjectError != "") }),
			g("archive_shipped_index", "The bucket has the log up to this entry.", func(s Status) float64 { return float64(s.Archive.Shipped) }),
			g("archive_oldest_index", "No state before this entry can be restored from the bucket.", func(s Status) float64 { return float64(s.Archive.Oldest) }),
			g("archive_lag_seconds", "What was visible so long ago is in the bucket, metadata and small files; 0 on all nodes but the one that ships.", func(s Status) float64 { return s.Archive.LagS }),
			g("archive_shipping", "1 on the node that puts the log into the bucket.", func(s Status) float64 { return b2f(s.Archive.Shipping) }),
			g("archive_failing", "1 while the log cannot be put into the bucket.", func(s Status) float64 { return b2f(s.Archive.Error != "") }),
			g("bucket_fenced", "1 if another cluster has taken the bucket over: nothing is put into it any more.", func(s Status) float64 { return b2f(s.Archive.Fenced != "") }),
			g("at_risk_chunks", "Chunks that are not in the object store yet and on fewer live nodes than cluster.replicas.", func(s Status) float64 { return float64(s.Content.AtRisk.Chunks) }),
			g("upload_bytes", "Their bytes.", func(s Status) float64 { return float64(s.Content.UploadBytes) }),
		}}
}

// Describe lists the metrics.
func (m *statusMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- m.build
	for _, g := range m.gauges {
		c <- g.desc
	}
}

// Collect reads the status once.
func (m *statusMetrics) Collect(c chan<- prometheus.Metric) {
	st := m.s.Status()
	c <- prometheus.MustNewConstMetric(m.build, prometheus.GaugeValue, 1, st.Version, st.Node, st.Cluster.Name)
	for _, g := range m.gauges {
		c <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(st))
	}
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
