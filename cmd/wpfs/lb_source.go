package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wpfs/wpfs/cluster"
	wfs "github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/lb"
)

// webNote is what a node tells the others of its web server, by gossip. Fields
// may be added; what a node does not know it passes over.
type webNote struct {
	Addr   string `json:"web"`
	Zone   string `json:"zone,omitempty"`
	Weight int    `json:"weight,omitempty"`
	HTTP   string `json:"http,omitempty"` // host:port of /healthz
}

// note is this node's; nil if it has no web server.
func (c *Config) note() []byte {
	n := webNote{Addr: c.reachable(c.Web.Addr), Zone: c.Web.Zone, Weight: c.Web.Weight, HTTP: c.reachable(c.HTTP.Listen)}
	if n.Addr == "" {
		return nil
	}
	b, err := json.Marshal(n)
	if err != nil { // strings and a number: cannot be
		return nil
	}
	return b
}

// backend is what a balancer makes of it.
func (n webNote) backend(id string) lb.Backend {
	b := lb.Backend{ID: id, Addr: n.Addr, Zone: n.Zone, Weight: float64(n.Weight)}
	if n.HTTP != "" {
		b.Health = "http://" + n.HTTP + "/healthz"
	}
	return b
}

// sourcePeriod is how often the members are looked at.
const sourcePeriod = time.Second

// memberSource is the cluster's members as a balancer's Source. A member that
// gossip has lost stays: whether it answers, the balancer's checks find out.
type memberSource struct {
	look func() (members []string, notes map[wfs.NodeID][]byte)

	mu      sync.Mutex // guards what follows
	notes   map[string]webNote
	list    []lb.Backend
	changed chan struct{}
}

var _ lb.Source = (*memberSource)(nil)

func newMemberSource() *memberSource {
	return &memberSource{notes: map[string]webNote{}, changed: make(chan struct{})}
}

// Backends implements lb.Source.
func (s *memberSource) Backends() []lb.Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// Changed implements lb.Source.
func (s *memberSource) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Run looks again and again, until ctx ends.
func (s *memberSource) Run(ctx context.Context) error {
	t := time.NewTicker(sourcePeriod)
	defer t.Stop()
	for {
		s.refresh(s.look())
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *memberSource) refresh(members []string, notes map[wfs.NodeID][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []lb.Backend
	for _, id := range members {
		if b, alive := notes[wfs.NodeID(id)]; alive {
			var n webNote
			if len(b) > 0 && json.Unmarshal(b, &n) != nil {
				continue // of a version that says it in another way
			}
			s.notes[id] = n
		}
		if n := s.notes[id]; n.Addr != "" {
			list = append(list, n.backend(id))
		}
	}
	if slices.Equal(list, s.list) {
		return
	}
	s.list = list
	close(s.changed)
	s.changed = make(chan struct{})
}

// clusterStore is the cluster's settings as a balancer's Store.
type clusterStore struct{ n *cluster.Node }

var _ lb.Store = clusterStore{}

// settingPrefix keeps the balancer's settings apart from others.
const settingPrefix = "lb/"

// Get implements lb.Store.
func (s clusterStore) Get(_ context.Context, key string) ([]byte, error) {
	return s.n.Setting(settingPrefix + key)
}

// Keys implements lb.Store.
func (s clusterStore) Keys(_ context.Context, prefix string) ([]string, error) {
	keys, err := s.n.Settings(settingPrefix + prefix)
	for i := range keys {
		keys[i] = strings.TrimPrefix(keys[i], settingPrefix)
	}
	return keys, err
}

// Swap implements lb.Store.
func (s clusterStore) Swap(ctx context.Context, key string, old, now []byte) (bool, error) {
	return s.n.SwapSetting(ctx, settingPrefix+key, old, now)
}

// lateStore is a Store that is there before the cluster is; nobody uses it until
// then.
type lateStore struct{ lb.Store }
