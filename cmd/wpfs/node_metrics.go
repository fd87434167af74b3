package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/cache"
	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs/fuse/kcache"
	"github.com/wpfs/wpfs/fs/vfs"
)

// partStats is one reading of all parts of a node.
type partStats struct {
	vfs    vfs.Stats
	tier   cache.TierStats
	disk   cache.DiskStats
	upload cache.UploadStatus
	ship   archive.Status
	totals cache.Totals
	round  cache.Report // the last one here
}

// partMetrics shows the numbers of the parts.
type partMetrics struct {
	n        *node
	numbers  []partNumber
	requests *prometheus.Desc
	notified *prometheus.Desc
	kernel   []kernelNumber
}

type partNumber struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(partStats) float64
}

func newPartMetrics(n *node) *partMetrics {
	m := &partMetrics{n: n, kernel: kernelNumbers(),
		requests: prometheus.NewDesc("wpfs_fuse_requests_total", "Requests of the kernel.", []string{"op"}, nil),
		notified: prometheus.NewDesc("wpfs_kernel_notify_seconds", "How long the kernel took to drop something.", []string{"kind"}, nil),
	}
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
	add(total, "chunk_prefetched_total", "Chunks fetched before anybody here asked for them.", func(s partStats) float64 { return float64(s.tier.Prefetched) })
	add(total, "chunk_wrong_bytes_total", "Answers of nodes or the store that did not match their hash.", func(s partStats) float64 { return float64(s.tier.WrongBytes) })
	add(total, "chunk_puts_under_replicated_total", "New chunks that found fewer nodes than cluster.replicas.", func(s partStats) float64 { return float64(s.tier.UnderReplicated) })
	add(total, "cache_discarded_total", "Chunks removed from this node's disk because no file needs them any more.", func(s partStats) float64 { return float64(s.tier.Discarded) })
	add(total, "cache_corrupt_total", "Chunk files on this node's disk that failed their hash.", func(s partStats) float64 { return float64(s.disk.Corrupt) })
	add(total, "cache_evicted_total", "Chunks dropped from this node's disk to make room.", func(s partStats) float64 { return float64(s.disk.Evicted) })
	add(total, "cache_evicted_bytes_total", "Their bytes.", func(s partStats) float64 { return float64(s.disk.EvictedBytes) })
	add(total, "cache_refused_total", "Chunks that found no room on this node's disk.", func(s partStats) float64 { return float64(s.disk.Refused) })
	add(total, "chunk_puts_elsewhere_total", "New chunks that found no room here, and enough on other nodes.", func(s partStats) float64 { return float64(s.tier.Elsewhere) })
	add(now, "cache_free_bytes", "Free space on the disk of cache.dir.", func(s partStats) float64 { return float64(s.disk.Free) })
	add(total, "uploaded_bytes_total", "Content this node has put into the object store.", func(s partStats) float64 { return float64(s.upload.UploadedBytes) })
	add(total, "archive_segments_total", "Pieces of the log that this node has put into the bucket.", func(s partStats) float64 { return float64(s.ship.Segments) })
	add(total, "archive_segment_bytes_total", "Their bytes.", func(s partStats) float64 { return float64(s.ship.SegmentBytes) })
	add(total, "archive_snapshots_total", "Snapshots of the metadata that this node has put into the bucket.", func(s partStats) float64 { return float64(s.ship.Snapshots) })
	add(total, "archive_snapshot_bytes_total", "Their bytes.", func(s partStats) float64 { return float64(s.ship.SnapshotBytes) })
	add(total, "uploaded_packs_total", "Packs this node has put into the object store.", func(s partStats) float64 { return float64(s.upload.Packs) })
	add(total, "uploaded_pack_bytes_total", "Bytes of these, compressed.", func(s partStats) float64 { return float64(s.upload.PackBytes) })
	add(total, "upload_unreadable_total", "Attempts to upload a chunk whose content could not be had.", func(s partStats) float64 { return float64(s.upload.Unreadable) })
	addGarbage(add)
	return m
}

// addGarbage is about garbage in the object store. Only the leader collects it, so
// what the last round found is 0 elsewhere.
func addGarbage(add func(kind prometheus.ValueType, name, help string, value func(partStats) float64)) {
	const total, now = prometheus.CounterValue, prometheus.GaugeValue
	add(total, "gc_condemned_chunks_total", "Chunks that this node has condemned.", func(s partStats) float64 { return float64(s.totals.Condemned) })
	add(total, "gc_deleted_objects_total", "Objects that this node has deleted.", func(s partStats) float64 { return float64(s.totals.Deleted) })
	add(total, "gc_deleted_bytes_total", "Bytes of these.", func(s partStats) float64 { return float64(s.totals.DeletedBytes) })
	add(total, "gc_moved_chunks_total", "Chunks that this node has moved out of packs that were mostly dead.", func(s partStats) float64 { return float64(s.totals.Moved) })
	add(total, "gc_failed_rounds_total", "Rounds of garbage collection that ended early.", func(s partStats) float64 { return float64(s.totals.Failed) })
	add(now, "gc_packs", "Packs in the object store, as the last round found them.", func(s partStats) float64 { return float64(s.round.Packs.Count) })
	add(now, "gc_pack_bytes", "Bytes of these.", func(s partStats) float64 { return float64(s.round.Packs.Bytes) })
	add(now, "gc_live_bytes", "Bytes in them that files need.", func(s partStats) float64 { return float64(s.round.LiveBytes) })
	add(now, "gc_waiting_bytes", "Bytes of condemned objects whose time has not come.", func(s partStats) float64 { return float64(s.round.Waiting.Bytes) })
}

// Describe lists the metrics.
func (m *partMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- m.requests
	c <- m.notified
	for _, k := range m.kernel {
		c <- k.desc
	}
	for _, p := range m.numbers {
		c <- p.desc
	}
}

// Collect reads each part once.
func (m *partMetrics) Collect(c chan<- prometheus.Metric) {
	s := partStats{m.n.vfs.Stats(), m.n.tier.Stats(), m.n.disk.Stats(), m.n.uploader.Status(), m.n.shipper.Status(), m.n.garbage.Totals(), m.n.garbage.Last()}
	for _, p := range m.numbers {
		c <- prometheus.MustNewConstMetric(p.desc, p.kind, p.value(s))
	}
	m.n.mu.Lock()
	srv := m.n.server
	m.n.mu.Unlock()
	if srv == nil {
		return
	}
	st := srv.Stats()
	for op, n := range st.Requests {
		c <- prometheus.MustNewConstMetric(m.requests, prometheus.CounterValue, float64(n), op)
	}
	for kind, l := range st.Kernel.Latency {
		c <- prometheus.MustNewConstHistogram(m.notified, l.Count, l.SumS, l.Counts, kind)
	}
	for _, k := range m.kernel {
		c <- prometheus.MustNewConstMetric(k.desc, k.kind, k.value(st.Kernel))
	}
}

type kernelNumber struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(kcache.Stats) float64
}

// kernelNumbers are about what the kernel may answer by itself.
func kernelNumbers() (list []kernelNumber) {
	add := func(kind prometheus.ValueType, name, help string, value func(kcache.Stats) float64) {
		list = append(list, kernelNumber{prometheus.NewDesc("wpfs_kernel_"+name, help, nil, nil), kind, value})
	}
	const total, now = prometheus.CounterValue, prometheus.GaugeValue
	add(now, "inodes", "Inodes that the kernel may remember.", func(s kcache.Stats) float64 { return float64(s.Inodes) })
	add(now, "known_names", "Names, absent ones too, that the kernel may answer about by itself.", func(s kcache.Stats) float64 { return float64(s.KnownNames) })
	add(now, "hot_directories", "Directories whose names the kernel is not let keep, because dropping one had to wait for a lock.", func(s kcache.Stats) float64 { return float64(s.HotDirs) })
	add(now, "names_waiting", "Names that wait for their directory's lock to be dropped.", func(s kcache.Stats) float64 { return float64(s.Waiting) })
	add(total, "epochs_total", "Times that all names had to be asked for again, because another node changed one in a locked directory.", func(s kcache.Stats) float64 { return float64(s.Epochs) })
	add(total, "own_epochs_total", "Times that all names had to be asked for again, because a program here changed one that the kernel kept.", func(s kcache.Stats) float64 { return float64(s.OwnEpochs) })
	add(total, "conflicts_total", "Changes of names whose directory was locked.", func(s kcache.Stats) float64 { return float64(s.Conflicts) })
	add(total, "relaxed_total", "Changes acknowledged although a name could not be dropped in time; only on kernels before 6.16.", func(s kcache.Stats) float64 { return float64(s.Relaxed) })
	add(total, "late_replies_total", "Replies that were written too late to be kept.", func(s kcache.Stats) float64 { return float64(s.Late) })
	add(total, "unsettled_total", "Calls that went on with attributes that the kernel may not have taken anew: a read of these may end at an old length.", func(s kcache.Stats) float64 { return float64(s.Unsettled) })
	add(total, "drops_total", "Times that everything was dropped, for a new leader or a snapshot.", func(s kcache.Stats) float64 { return float64(s.Drops) })
	return list
}
