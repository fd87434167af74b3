package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/cache"
	"github.com/wpfs/wpfs/fs/vfs"
)

// partStats is one reading of all parts of a node.
type partStats struct {
	vfs    vfs.Stats
	tier   cache.TierStats
	disk   cache.DiskStats
	upload cache.UploadStatus
}

// partMetrics shows the numbers of the parts.
type partMetrics struct {
	n        *node
	numbers  []partNumber
	requests *prometheus.Desc
}

type partNumber struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(partStats) float64
}

func newPartMetrics(n *node) *partMetrics {
	m := &partMetrics{n: n, requests: prometheus.NewDesc("wpfs_fuse_requests_total", "Requests of the kernel.", []string{"op"}, nil)}
	add := func(kind prometheus.ValueType, name, help string, value func(partStats) float64) {
		m.numbers = append(m.numbers, partNumber{prometheus.NewDesc("wpfs_"+name, help, nil, nil), kind, value})
	}
	const total, now = prometheus.CounterValue, prometheus.GaugeValue
	add(total, "read_bytes_total", "Content handed to readers of the mount.", func(s partStats) float64 { return float64(s.vfs.ReadBytes) })
	add(total, "written_bytes_total", "Content taken from writers of the mount.", func(s partStats) float64 { return float64(s.vfs.WrittenBytes) })
	add(total, "published_bytes_total", "Content made visible to all nodes.", func(s partStats) float64 { return float64(s.vfs.PublishedBytes) })
	add(total, "publications_total", "Operations that brought content.", func(s partStats) float64 { return float64(s.vfs.Publications) })
	add(total, "publications_failed_total", "Publications that failed; they are tried again.", func(s partStats) float64 { return float64(s.vfs.PublicationsFailed) })
	add(now, "handles", "Open files and directories.", func(s partStats) float64 { return float64(s.vfs.Handles) })
	add(now, "dirty_bytes", "Content that is written but not published.", func(s partStats) float64 { return float64(s.vfs.DirtyBytes) })
	add(total, "chunk_reads_inline_total", "Reads of content that the metadata carries.", func(s partStats) float64 { return float64(s.tier.ReadsInline) })
	add(total, "chunk_reads_disk_total", "Reads of content on this node's disk.", func(s partStats) float64 { return float64(s.tier.ReadsDisk) })
	add(total, "chunk_fills_peer_total", "Chunks fetched from another node.", func(s partStats) float64 { return float64(s.tier.FillsPeer) })
	add(total, "chunk_fills_store_total", "Chunks fetched from the object store.", func(s partStats) float64 { return float64(s.tier.FillsStore) })
	add(total, "chunk_fills_failed_total", "Chunks that could not be had from anywhere.", func(s partStats) float64 { return float64(s.tier.FillsFailed) })
	add(total, "chunk_wrong_bytes_total", "Answers of nodes or the store that did not match their hash.", func(s partStats) float64 { return float64(s.tier.WrongBytes) })
	add(total, "chunk_puts_under_replicated_total", "New chunks that found fewer nodes than cluster.replicas.", func(s partStats) float64 { return float64(s.tier.UnderReplicated) })
	add(total, "cache_corrupt_total", "Chunk files on this node's disk that failed their hash.", func(s partStats) float64 { return float64(s.disk.Corrupt) })
	add(now, "cache_free_bytes", "Free space on the disk of cache.dir.", func(s partStats) float64 { return float64(s.disk.Free) })
	add(total, "uploaded_bytes_total", "Content this node has put into the object store.", func(s partStats) float64 { return float64(s.upload.UploadedBytes) })
	return m
}

// Describe lists the metrics.
func (m *partMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- m.requests
	for _, p := range m.numbers {
		c <- p.desc
	}
}

// Collect reads each part once.
func (m *partMetrics) Collect(c chan<- prometheus.Metric) {
	s := partStats{m.n.vfs.Stats(), m.n.tier.Stats(), m.n.disk.Stats(), m.n.uploader.Status()}
	for _, p := range m.numbers {
		c <- prometheus.MustNewConstMetric(p.desc, p.kind, p.value(s))
	}
	m.n.mu.Lock()
	srv := m.n.server
	m.n.mu.Unlock()
	if srv == nil {
		return
	}
	for op, n := range srv.Stats().Requests {
		c <- prometheus.MustNewConstMetric(m.requests, prometheus.CounterValue, float64(n), op)
	}
}
