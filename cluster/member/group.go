// Package member finds the other nodes and hints at failures, by gossip
// (hashicorp/memberlist). It decides nothing: membership is raft's, and whether
// a node may serve is a matter of its lease. What it gives is early, cheap and
// sometimes wrong.
//
// The noun it adds is the [Group]: the nodes that gossip together. It is read
// by level, not by edge: Members tells how it is now.
package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Options of a Group.
type Options struct {
	Name   string          // of this node, unique in the group
	Bind   string          // host:port, UDP and TCP
	Key    []byte          // 16, 24 or 32 bytes: AES; nil: in the clear
	Seeds  func() []string // gossip addresses worth trying, asked again and again
	Note   []byte          // what the others are told about this node, as it is; at most NoteMax
	Logger *slog.Logger
}

// Figures of the gossip. A crash is noticed within a few seconds, about when the
// dead node's lease runs out; until then nobody waits for it more than once
// (suspects in package cache). Five times as fast would be as many messages more
// between nodes that have nothing to do.
const (
	probeInterval  = time.Second
	probeTimeout   = 200 * time.Millisecond
	suspicionMult  = 3
	gossipInterval = 500 * time.Millisecond
	rejoinEvery    = 3 * time.Second
	leaveTimeout   = 500 * time.Millisecond
	tcpTimeout     = 2 * time.Second // for a seed that is down
)

// NoteMax is what memberlist carries with a node.
const NoteMax = memberlist.MetaMaxSize

// Group is this node's view of who is there.
type Group struct {
	o    Options
	ml   *memberlist.Memberlist
	roll *roll
}

// Open binds the port and begins to answer gossip; memberlist cannot be made
// without. The caller runs Run, which also closes it.
func Open(o Options) (*Group, error) {
	host, port, err := net.SplitHostPort(o.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", o.Bind, err)
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: the port is no number", o.Bind)
	}
	if len(o.Note) > NoteMax {
		return nil, fmt.Errorf("the note of %s has %d bytes, more than %d", o.Name, len(o.Note), NoteMax)
	}
	c := memberlist.DefaultLANConfig()
	r := &roll{nodes: map[string]seen{}}
	c.Delegate, c.Events = note(o.Note), r
	c.Name = o.Name
	c.BindAddr, c.BindPort, c.AdvertisePort = host, p, p
	c.TCPTimeout = tcpTimeout
	c.SecretKey = o.Key
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.GossipInterval = suspicionMult, gossipInterval
	c.LogOutput = nil
	c.Logger = log.New(lines{o.Logger}, "", 0)
	ml, err := memberlist.Create(c)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for gossip: %w", o.Bind, err)
	}
	return &Group{o: o, ml: ml, roll: r}, nil
}

// Run keeps looking for members that are not in the group yet, until ctx ends;
// then it tells the others that this node leaves, and closes.
func (g *Group) Run(ctx context.Context) error {
	t := time.NewTicker(rejoinEvery)
	defer t.Stop()
	for {
		if missing := g.missing(); len(missing) > 0 {
			_, _ = g.ml.Join(missing) // whoever is down now is tried again
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			_ = g.ml.Leave(leaveTimeout) // nobody left to tell is no failure
			return errors.Join(ctx.Err(), g.ml.Shutdown())
		}
	}
}

// Close ends a Group that is not run, without telling anybody.
func (g *Group) Close() error { return g.ml.Shutdown() }

func (g *Group) missing() []string {
	known := map[string]bool{}
	for _, n := range g.roll.all() {
		known[n.addr] = true
	}
	return slices.DeleteFunc(g.o.Seeds(), func(a string) bool { return known[a] })
}

// Members lists the names of the nodes that seem alive, this one included.
func (g *Group) Members() []string {
	var names []string
	for name := range g.roll.all() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Notes are what the nodes that seem alive say about themselves, by name.
func (g *Group) Notes() map[string][]byte {
	notes := map[string][]byte{}
	for name, n := range g.roll.all() {
		notes[name] = n.note
	}
	return notes
}

// roll is who is there, by memberlist's events. Its own list has pointers to
// nodes that it goes on changing.
type roll struct {
	mu    sync.Mutex // guards nodes, never what is in them
	nodes map[string]seen
}

// seen is a node as it was; it is replaced, never changed.
type seen struct {
	addr string
	note []byte
}

var _ memberlist.EventDelegate = (*roll)(nil)

func (r *roll) all() map[string]seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.nodes)
}

// NotifyJoin implements memberlist.EventDelegate; n is at rest while it is called.
func (r *roll) NotifyJoin(n *memberlist.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[n.Name] = seen{n.Address(), slices.Clone(n.Meta)}
}

// NotifyUpdate implements memberlist.EventDelegate.
func (r *roll) NotifyUpdate(n *memberlist.Node) { r.NotifyJoin(n) }

// NotifyLeave implements memberlist.EventDelegate, for the dead too.
func (r *roll) NotifyLeave(n *memberlist.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.nodes, n.Name)
}

// note is memberlist's Delegate with nothing to say but that.
type note []byte

var _ memberlist.Delegate = note(nil)

func (n note) NodeMeta(int) []byte           { return n }
func (note) NotifyMsg([]byte)                {}
func (note) GetBroadcasts(int, int) [][]byte { return nil }
func (note) LocalState(bool) []byte          { return nil }
func (note) MergeRemoteState([]byte, bool)   {}

// lines makes slog records of memberlist's log, which only concerns those who
// look for the cause of something: Debug.
type lines struct{ log *slog.Logger }

var _ io.Writer = lines{}

func (l lines) Write(b []byte) (int, error) {
	l.log.Debug(strings.TrimSpace(string(b)), "from", "memberlist")
	return len(b), nil
}
