package cluster

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

// LostPolicy is what a node does that has lost its lease (rule R18).
type LostPolicy string

// The policies.
const (
	// LostStale: reads are answered from the last state, changes are refused
	// with EROFS, and the node reports unhealthy.
	LostStale LostPolicy = "stale"
	// LostFail: reads and changes fail with EIO.
	LostFail LostPolicy = "fail"
)

// Options of a Node. The zero value is not usable; Validate says what is missing.
type Options struct {
	ID        fs.NodeID
	Cluster   string // the configured name; nodes of different names refuse each other
	DataDir   string // must exist
	Bind      string // host:port for raft and RPC
	Advertise string // host:port that other nodes reach Bind at; "" is Bind
	// Gossip is host:port; "" is the port after Bind's. Seeds of gossip are the
	// members' hosts with the port after their advertised one.
	Gossip    string
	GossipKey []byte // 16, 24 or 32 bytes; nil: in the clear
	// Peers are the first voters of a new cluster, the same on each of them;
	// they count only while DataDir is empty. Join are addresses of members of
	// a cluster that is there already. Exactly one of the two is needed to
	// start with an empty DataDir.
	Peers []Peer
	Join  []string
	TLS   *tls.Config // nil: plain TCP
	Note  []byte      // what this node tells the others by gossip, as it is; see Node.Notes
	// Witness: this node shows nothing to anybody (it has no mount). It votes
	// and keeps the metadata, but takes no lease, so no writer waits for it.
	Witness bool
	// Heartbeat is raft's heartbeat and election timeout; its leader lease is
	// half of it. Not to be confused with Protocol.Lease.
	Heartbeat time.Duration
	Protocol  protocol.Config
	OnLost    LostPolicy
	Logger    *slog.Logger
	// OnFatal is called, once, from any goroutine, when the node must not go on
	// (a failed fsync, a damaged log): the process must end soon.
	OnFatal func(error)
}

// DefaultHeartbeat is meant for one network: after a failure of the leader the
// others elect one within about two of these.
const DefaultHeartbeat = 500 * time.Millisecond

// Validate names the field and the rule it breaks.
func (o *Options) Validate() error {
	for _, f := range []struct{ name, value string }{
		{"ID", string(o.ID)}, {"Cluster", o.Cluster}, {"DataDir", o.DataDir}, {"Bind", o.Bind},
	} {
		if f.value == "" {
			return fmt.Errorf("cluster options: %s is empty", f.name)
		}
	}
	if len(o.ID) > 63 {
		return fmt.Errorf("cluster options: ID %q is longer than 63 bytes", o.ID)
	}
	if o.Advertise == "" {
		o.Advertise = o.Bind
	}
	if o.Gossip == "" {
		g, err := gossipAddr(o.Bind)
		if err != nil {
			return fmt.Errorf("cluster options: Bind: %w", err)
		}
		o.Gossip = g
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.Heartbeat < 100*time.Millisecond {
		return fmt.Errorf("cluster options: Heartbeat %v is below 100ms; a busy machine would never keep a leader", o.Heartbeat)
	}
	if o.OnLost == "" {
		o.OnLost = LostStale
	}
	if o.OnLost != LostStale && o.OnLost != LostFail {
		return fmt.Errorf("cluster options: OnLost is %q, must be %q or %q", o.OnLost, LostStale, LostFail)
	}
	if o.Logger == nil || o.OnFatal == nil {
		return fmt.Errorf("cluster options: Logger and OnFatal must be set")
	}
	return o.Protocol.Validate()
}

// gossipAddr is where the node at addr gossips unless told otherwise.
func gossipAddr(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	p, err := strconv.Atoi(port)
	if err != nil || p < 1 || p > 65534 {
		return "", fmt.Errorf("port %q is not between 1 and 65534", port)
	}
	return net.JoinHostPort(host, strconv.Itoa(p+1)), nil
}

func (o *Options) path(name string) string { return filepath.Join(o.DataDir, name) }
