package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	wfs "github.com/wpfs/wpfs/fs"
)

// limits of the configuration.
const (
	nodeIDMax   = 63
	replicasMax = 5
	peersMax    = 50

	cacheBytesMin = 16 << 20 // four of the largest chunks
	gcGraceMin    = Duration(2 * time.Second)
)

var nodeIDRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Validate checks every key against its rule. The error names each key that
// breaks one, the rule, and the value.
func (c *Config) Validate() error {
	var bad []error
	rule := func(ok bool, key, format string, a ...any) {
		if !ok {
			bad = append(bad, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, a...)))
		}
	}
	c.validateNode(rule)
	c.validateCluster(rule)
	rule(filepath.IsAbs(c.Cache.Dir), "cache.dir", "must be an absolute path, is %q", c.Cache.Dir)
	rule(c.Cache.MaxBytes == 0 || c.Cache.MaxBytes >= cacheBytesMin, "cache.max_bytes", "must be 0 (no bound) or at least %s, is %s", Bytes(cacheBytesMin), c.Cache.MaxBytes)
	rule(c.Cache.ReserveBytes >= 0, "cache.reserve_bytes", "must not be negative, is %d", c.Cache.ReserveBytes)
	rule(c.Cache.ScrubRate >= 0, "cache.scrub_rate", "must not be negative, is %d", c.Cache.ScrubRate)
	rule(c.Cache.PrefetchRate >= 0, "cache.prefetch_rate", "must not be negative, is %d", c.Cache.PrefetchRate)
	rule(c.Object.BacklogMaxBytes >= 0, "object.backlog_max_bytes", "must not be negative, is %d", c.Object.BacklogMaxBytes)
	rule(checkObjectURL(c.Object.URL) == nil, "object.url", "%v", checkObjectURL(c.Object.URL))
	rule(c.Object.EncryptionKeyFile == "" || c.Object.EncryptionKeyCommand == "", "object.encryption_key_command", "must be empty when object.encryption_key_file is set: the keys come from one of the two")
	rule(c.Object.DebugSnapshotEvery >= 0, "object.debug_snapshot_every", "must not be negative, is %v", c.Object.DebugSnapshotEvery)
	rule(c.Object.GCGrace >= gcGraceMin, "object.gc_grace", "must be a time of at least %v, such as 24h, is %v", gcGraceMin, c.Object.GCGrace)
	rule(c.Mount.Path == "" || filepath.IsAbs(c.Mount.Path), "mount.path", "must be an absolute path, is %q", c.Mount.Path)
	rule(c.Mount.InlineMax >= 1 && c.Mount.InlineMax <= wfs.InlineMax, "mount.inline_max_bytes", "must be 1 to %s, is %s", Bytes(wfs.InlineMax), c.Mount.InlineMax)
	rule(c.HTTP.Listen == "" || isHostPort(c.HTTP.Listen), "http.listen", "must be host:port or empty, is %q", c.HTTP.Listen)
	rule(!c.HTTP.Pprof || c.HTTP.Listen != "", "http.pprof", "needs http.listen")
	c.validateWeb(rule)
	c.validateLB(rule)
	c.validateLog(rule)
	return errors.Join(bad...)
}

func (c *Config) validateLog(rule ruleFunc) {
	var level slog.Level
	rule(level.UnmarshalText([]byte(c.Log.Level)) == nil, "log.level", "must be debug, info, warn or error, is %q", c.Log.Level)
	rule(c.Log.Format == "text" || c.Log.Format == "json", "log.format", "must be text or json, is %q", c.Log.Format)
}

// ValidateLB checks what a balancer alone needs.
func (c *Config) ValidateLB() error {
	var bad []error
	rule := func(ok bool, key, format string, a ...any) {
		if !ok {
			bad = append(bad, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, a...)))
		}
	}
	rule(c.LB.enabled(), "lb.listen", "wpfs lb run needs it, or lb.listen_tls")
	rule(len(c.LB.Upstreams) > 0, "lb.upstreams", "wpfs lb run knows no cluster and needs the web servers listed here")
	rule(filepath.IsAbs(c.Node.Socket), "node.socket", "must be an absolute path, is %q", c.Node.Socket)
	rule(c.HTTP.Listen == "" || isHostPort(c.HTTP.Listen), "http.listen", "must be host:port or empty, is %q", c.HTTP.Listen)
	rule(len(c.LB.ACMENames) == 0 || c.LB.ACMEDir != "", "lb.acme_dir", "wpfs lb run needs it with lb.acme_names")
	c.validateLB(rule)
	c.validateLog(rule)
	return errors.Join(bad...)
}

type ruleFunc func(ok bool, key, format string, a ...any)

func (c *Config) validateNode(rule ruleFunc) {
	rule(nodeIDRule.MatchString(c.Node.ID) && len(c.Node.ID) <= nodeIDMax, "node.id",
		"must be 1 to %d letters, digits, dots, dashes or underscores, is %q", nodeIDMax, c.Node.ID)
	rule(filepath.IsAbs(c.Node.DataDir), "node.data_dir", "must be an absolute path, is %q", c.Node.DataDir)
	rule(filepath.IsAbs(c.Node.Socket), "node.socket", "must be an absolute path, is %q", c.Node.Socket)
	within := func(dir, below string) bool {
		return dir != "" && (below == dir || strings.HasPrefix(below, strings.TrimSuffix(dir, "/")+"/"))
	}
	m := c.Mount.Path
	rule(!within(m, c.Node.DataDir), "node.data_dir", "must not lie below mount.path %q: the file system cannot keep its own state", m)
	rule(!within(m, c.Cache.Dir), "cache.dir", "must not lie below mount.path %q", m)
	rule(!within(m, c.Node.Socket), "node.socket", "must not lie below mount.path %q", m)
}

func (c *Config) validateCluster(rule ruleFunc) {
	cl := &c.Cluster
	rule(cl.Name != "", "cluster.name", "must not be empty")
	rule(isHostPort(cl.Bind) && portAbove(cl.Bind) != "", "cluster.bind", "must be host:port with a port from 1 to 65534, is %q", cl.Bind)
	host, _, _ := net.SplitHostPort(cl.Advertise)
	ip := net.ParseIP(host)
	rule(isHostPort(cl.Advertise) && host != "" && (ip == nil || !ip.IsUnspecified()), "cluster.advertise",
		"must be a host:port that other nodes can reach, is %q", cl.Advertise)
	rule(cl.Replicas >= 1 && cl.Replicas <= replicasMax, "cluster.replicas", "must be 1 to %d, is %d", replicasMax, cl.Replicas)
	rule(cl.Durability == durabilityQuorum || cl.Durability == durabilityS3, "cluster.durability", "must be quorum or s3, is %q", cl.Durability)
	rule(cl.OnLeaseLost == leaseLostStale || cl.OnLeaseLost == leaseLostFail, "cluster.on_lease_lost", "must be stale or fail, is %q", cl.OnLeaseLost)
	_, known := profiles()[cl.Profile]
	rule(known, "cluster.profile", "must be one_machine, lan or slow_links, is %q", cl.Profile)
	rule(len(cl.Peers) == 0 || len(cl.Join) == 0, "cluster.join", "excludes cluster.peers: a node either starts a new cluster with its peers or joins one that exists")
	for _, a := range cl.Join {
		rule(isHostPort(a), "cluster.join", "each must be host:port, one is %q", a)
	}
	c.validatePeers(rule)
}

func (c *Config) validatePeers(rule ruleFunc) {
	cl := &c.Cluster
	rule(len(cl.Peers) <= peersMax, "cluster.peers", "has %d nodes, more than %d", len(cl.Peers), peersMax)
	ids, addrs := map[string]bool{}, map[string]bool{}
	for _, p := range cl.Peers {
		rule(nodeIDRule.MatchString(p.ID) && len(p.ID) <= nodeIDMax, "cluster.peers", "the id %q breaks the rule of node.id", p.ID)
		rule(isHostPort(p.Addr), "cluster.peers", "the addr of %q must be host:port, is %q", p.ID, p.Addr)
		rule(!ids[p.ID], "cluster.peers", "lists the id %q twice", p.ID)
		rule(!addrs[p.Addr], "cluster.peers", "lists the addr %q twice", p.Addr)
		ids[p.ID], addrs[p.Addr] = true, true
		rule(p.ID != c.Node.ID || p.Addr == cl.Advertise, "cluster.peers", "says %q for this node, but cluster.advertise says %q", p.Addr, cl.Advertise)
	}
	rule(len(cl.Peers) == 0 || ids[c.Node.ID], "cluster.peers", "must contain this node, %q", c.Node.ID)
}

// isHostPort wants a port from 1 to 65535; the host may be empty (all addresses).
func isHostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	return err == nil && perr == nil && n >= 1 && n <= 65535
}

// portAbove is addr with the next port; "" if addr is no host:port.
func portAbove(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 1 || n > 65534 {
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1))
}
