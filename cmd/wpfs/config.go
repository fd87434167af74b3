package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wpfs/wpfs/fs/vfs"
)

// Config is everything an operator can set, one section per part of the
// program. The key tag is the name in the file; with WPFS_ before it, in
// capitals and with underscores it is the environment variable, with dashes it
// is the flag. The doc tag becomes docs/CONFIGURATION.md and the flag's help.
type Config struct {
	Node    NodeConfig    `key:"node"`
	Cluster ClusterConfig `key:"cluster"`
	Cache   CacheConfig   `key:"cache"`
	Object  ObjectConfig  `key:"object"`
	Mount   MountConfig   `key:"mount"`
	HTTP    HTTPConfig    `key:"http"`
	Web     WebConfig     `key:"web"`
	LB      LBConfig      `key:"lb"`
	Log     LogConfig     `key:"log"`
}

// NodeConfig is who this node is and where it keeps its state.
type NodeConfig struct {
	ID      string `key:"id" doc:"Name of this node in the cluster; never changes while the data directory lives. Letters, digits, dot, dash, underscore. Default: the host name."`
	DataDir string `key:"data_dir" doc:"Directory of this node's raft log and metadata. It must exist: wpfs does not make it, so that a disk that is not mounted is noticed."`
	Socket  string `key:"socket" doc:"Unix socket of the admin interface, mode 0600; wpfs status and wpfs cluster talk to it."`
}

// ClusterConfig is how this node finds and talks to the others.
type ClusterConfig struct {
	Name        string   `key:"name" doc:"Name of the cluster, the same on all nodes."`
	Bind        string   `key:"bind" doc:"host:port for raft and the calls between nodes, one TCP port; the port above it is for gossip, TCP and UDP. Traffic is not encrypted: use a private network."`
	Advertise   string   `key:"advertise" doc:"host:port under which the other nodes reach this one. Default: cluster.bind."`
	Peers       []Peer   `key:"peers" doc:"The nodes a new cluster starts with, this one included, the same list on all of them: id and addr each (as text: id=host:port,…). Used only while the data directory is empty."`
	Join        []string `key:"join" doc:"host:port of any members of an existing cluster, for a node that is added to it. Used only while the data directory is empty."`
	Replicas    int      `key:"replicas" doc:"Nodes that have new content on disk before a close() returns. Fewer are used while the cluster is smaller."`
	Durability  string   `key:"durability" doc:"When close() and fsync() return: quorum (the content is on cluster.replicas nodes, or in the log), or s3 (the object store has it as well; a close takes longer by an upload, and fails with EIO after a minute without one). The names of files are in the object store about a second later either way: a restore from it alone may lack the last of them."`
	OnLeaseLost string   `key:"on_lease_lost" doc:"What readers get on a node that lost its lease: stale (its last state, read-only) or fail (an I/O error)."`
	Profile     string   `key:"profile" doc:"Timings: one_machine, lan or slow_links."`
}

// CacheConfig is where content is kept on this node.
type CacheConfig struct {
	Dir          string `key:"dir" doc:"Directory for file content; made when absent. Default: cache below node.data_dir."`
	MaxBytes     Bytes  `key:"max_bytes" doc:"Most that cache.dir may hold. What is read least is dropped for new content, never what the object store does not have yet. 0: only cache.reserve_bytes is a bound."`
	ReserveBytes Bytes  `key:"reserve_bytes" doc:"Free space to leave on the disk of cache.dir. Content that nobody needs here is dropped to keep it; when nothing is left to drop, new content goes to other nodes, and when no node has room, it is refused with ENOSPC."`
	ScrubRate    Bytes  `key:"scrub_rate" doc:"Bytes per second at which the content in cache.dir is read again and compared with its checksums. 0: what makes one pass in seven days. wpfs scrub makes one at once."`
	PrefetchRate Bytes  `key:"prefetch_rate" doc:"Bytes per second that may be spent on fetching small files (up to 1 MiB) that other nodes have just written, before anybody here reads them. 0: no bound."`
}

// ObjectConfig is where content is kept for good.
type ObjectConfig struct {
	URL                   string `key:"url" doc:"Object store: file:///DIR (a directory that all nodes reach under this path) or s3://BUCKET/PREFIX?endpoint=URL&region=R (also checksum=auto|on|off, path_style=false). S3 credentials come from the environment, the shared files or the machine's role, never from here."`
	EncryptionKeyFile     string `key:"encryption_key_file" doc:"File, mode 0600, with the keys that everything in the bucket is encrypted with (AES-256-GCM), one per line, 64 hex digits each: the first is used for new objects, all of them for reading. The same on all nodes. Without these keys the bucket is worth nothing: keep a copy elsewhere. Empty: no encryption."`
	EncryptionKeyCommand  string `key:"encryption_key_command" doc:"Shell command that prints what encryption_key_file would hold, for keys that a KMS has wrapped, such as: aws kms decrypt --ciphertext-blob fileb:///etc/wpfs/key.enc --query Plaintext --output text. Run once at each start."`
	EncryptionAcceptPlain bool   `key:"encryption_accept_plain" doc:"Read objects that are not encrypted as well, for a bucket from before encryption. Otherwise they are refused, because somebody else may have put them there."`

	BacklogMaxBytes           Bytes    `key:"backlog_max_bytes" doc:"Most content that may wait for the object store, in the whole cluster. From half of it on, writers are slowed down (by at most 250 ms for 128 KiB); at the limit they get ENOSPC until it has drained. 0: no limit but the nodes' disks."`
	UnsafeNoConditionalWrites bool     `key:"unsafe_no_conditional_writes" doc:"Use an object store that ignores If-None-Match and If-Match. wpfs then looks before it writes, so two clusters on one bucket are kept apart less surely: two that start at the same moment may damage each other's content."`
	GCGrace                   Duration `key:"gc_grace" doc:"How long content that no file needs any more stays in the object store: 24h, 90m. Also how long a reader that is behind may still find it."`

	DebugSnapshotEvery Duration `key:"debug_snapshot_every" doc:"For tests: how often a snapshot of the metadata is put into the bucket. 0: every 10 minutes."`
}

// MountConfig is the mount role.
type MountConfig struct {
	Path         string `key:"path" doc:"Where the file system is mounted: an existing, empty directory. Empty: this node has no mount (a voter only)."`
	InlineMax    Bytes  `key:"inline_max_bytes" doc:"Content up to this size travels in the log, to all nodes at once; larger content goes to cluster.replicas of them, and the others fetch it. At most 256KiB."`
	DebugNoEpoch bool   `key:"debug_no_epoch" doc:"For tests: do without the kernel's FUSE_NOTIFY_INC_EPOCH (Linux 6.16) even where it exists."`
}

// HTTPConfig is the page, the metrics and the health check.
type HTTPConfig struct {
	Listen string `key:"listen" doc:"host:port for /healthz, /metrics, /status and the status page. Empty: none."`
	Pprof  bool   `key:"pprof" doc:"Serve /debug/pprof on http.listen as well."`
}

// LogConfig is what is logged, to standard error.
type LogConfig struct {
	Level  string `key:"level" doc:"debug, info, warn or error."`
	Format string `key:"format" doc:"text or json."`
}

// Peer is one of the nodes that a cluster starts with.
type Peer struct {
	ID   string `key:"id"`
	Addr string `key:"addr"`
}

// UnmarshalText reads the form that the environment and flags use: id=host:port.
func (p *Peer) UnmarshalText(b []byte) error {
	id, addr, ok := strings.Cut(strings.TrimSpace(string(b)), "=")
	if !ok {
		return fmt.Errorf("%q is not id=host:port", b)
	}
	p.ID, p.Addr = id, addr
	return nil
}

func (p Peer) String() string { return p.ID + "=" + p.Addr }

// Bytes is a size. As text it is a number with an optional unit: 512MiB, 2GiB.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// UnmarshalText reads 123, 512MiB, 2GiB.
func (b *Bytes) UnmarshalText(t []byte) error {
	s, unit := strings.TrimSpace(string(t)), int64(1)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(n), u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size such as 512MiB or 2GiB", t)
	}
	*b = Bytes(n * unit)
	return nil
}

func (b Bytes) String() string {
	for i := len(byteUnits) - 2; i >= 0; i-- {
		if u := byteUnits[i]; b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// The words that keys accept.
const (
	leaseLostStale = "stale"
	leaseLostFail  = "fail"

	durabilityQuorum = "quorum"
	durabilityS3     = "s3"

	profileOneMachine = "one_machine"
	profileLAN        = "lan"
	profileSlowLinks  = "slow_links"
)

// defaultConfig has the value of every key that nobody sets.
func defaultConfig() Config {
	return Config{
		Node:    NodeConfig{DataDir: "/var/lib/wpfs", Socket: "/run/wpfs/wpfs.sock"},
		Cluster: ClusterConfig{Name: "wpfs", Bind: "127.0.0.1:7480", Replicas: 2, Durability: durabilityQuorum, OnLeaseLost: leaseLostStale, Profile: profileLAN},
		Cache:   CacheConfig{ReserveBytes: 2 << 30, PrefetchRate: 64 << 20},
		Object:  ObjectConfig{BacklogMaxBytes: 10 << 30, GCGrace: Duration(24 * time.Hour)},
		Mount:   MountConfig{InlineMax: vfs.InlineDefault},
		HTTP:    HTTPConfig{Listen: "127.0.0.1:7482"},
		Web:     WebConfig{Weight: 1},
		LB:      defaultLBConfig(),
		Log:     LogConfig{Level: "info", Format: "text"},
	}
}

// complete fills the keys whose default depends on others or on the machine.
func (c *Config) complete() {
	if c.Node.ID == "" {
		c.Node.ID, _ = os.Hostname() // empty then fails Validate, which names the key
	}
	if c.Cluster.Advertise == "" {
		c.Cluster.Advertise = c.Cluster.Bind
	}
	if c.Cache.Dir == "" && c.Node.DataDir != "" {
		c.Cache.Dir = c.Node.DataDir + "/cache"
	}
	if c.LB.StateFile == "" && c.LB.enabled() && c.Object.URL != "" { // an agent's; a balancer alone has no data directory
		c.LB.StateFile = c.Node.DataDir + "/lb.json"
	}
}

// Profile is a set of timings that fit together (DESIGN 3; rule R10 and the raft
// measurements say why a lease is long against an election).
type Profile struct {
	Heartbeat time.Duration // raft's heartbeat and election timeout; its leader lease is half of it
	Lease     time.Duration // how long a node may answer without hearing from the leader
	Renew     time.Duration // a holder asks again so long after its last granted request
}

// profiles are the timings by name. After a leader's death writers wait for its
// lease, 3.3 s from its last word, and an election that ends within that time costs
// them nothing. So the heartbeat may be a good part of it: even a second round of
// votes is over in time, stalls of a disk or the collector elect nobody, and an
// idle cluster has little to say (raft sends ten heartbeats in one such time).
func profiles() map[string]Profile {
	return map[string]Profile{
		profileOneMachine: {Heartbeat: 750 * time.Millisecond, Lease: 3 * time.Second, Renew: 750 * time.Millisecond},
		profileLAN:        {Heartbeat: 750 * time.Millisecond, Lease: 3 * time.Second, Renew: 750 * time.Millisecond},
		profileSlowLinks:  {Heartbeat: 1500 * time.Millisecond, Lease: 6 * time.Second, Renew: 1500 * time.Millisecond},
	}
}
