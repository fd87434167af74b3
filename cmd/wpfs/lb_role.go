package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/lb"
)

// balancerRole is the balancer with its files and its part of the admin socket,
// in an agent or alone.
type balancerRole struct {
	*lb.Balancer
	log    *slog.Logger
	access *lb.AccessLog
	first  LBConfig               // what it began with
	state  string                 // file; "": none
	load   func() (Config, error) // the configuration anew

	mu sync.Mutex // one change at a time
}

// lbState is the state file.
type lbState struct {
	Maintenance bool     `json:"maintenance"`
	Drained     []string `json:"drained"`
}

// openBalancer makes the balancer and opens its ports. The caller runs Run, or
// calls Close.
func openBalancer(cfg Config, src lb.Source, store lb.Store, log *slog.Logger, reg prometheus.Registerer, load func() (Config, error)) (*balancerRole, error) {
	r := &balancerRole{log: log, first: cfg.LB, state: cfg.LB.StateFile, load: load}
	o, err := cfg.LB.options()
	if err != nil {
		return nil, problem(CodeConfig, err, "the balancer's configuration is wrong", "")
	}
	if cfg.LB.AccessLog != "" {
		if r.access, err = lb.OpenAccessLog(cfg.LB.AccessLog); err != nil {
			return nil, problem(CodeConfig, err, "lb.access_log cannot be opened", "Make its directory, or name another file")
		}
	}
	r.Balancer, err = lb.New(lb.Options{Config: o, Source: src, Store: store, Access: r.access, Logger: log, Drain: cfg.LB.DrainTimeout})
	if err != nil {
		return nil, errors.Join(problem(CodeConfig, err, "the balancer's configuration is wrong", ""), r.closeLog())
	}
	if err := r.restore(); err != nil {
		return nil, errors.Join(err, r.closeLog())
	}
	if err := r.Listen(); err != nil {
		return nil, errors.Join(problem(codeOf(err), err, "a port of the balancer cannot be opened", "Stop the program that has it (ss -ltnp), or set lb.listen and lb.listen_tls to other ports"), r.closeLog())
	}
	reg.MustRegister(newLBMetrics(r.Balancer))
	return r, nil
}

func (r *balancerRole) closeLog() error {
	if r.access == nil {
		return nil
	}
	return r.access.Close()
}

// Run serves until ctx ends and requests in flight are done.
func (r *balancerRole) Run(ctx context.Context) error {
	err := r.Balancer.Run(ctx)
	if cerr := r.closeLog(); cerr != nil {
		r.log.Error("lines of the access log are lost", "err", cerr)
	}
	return err
}

// restore takes over what was drained before a restart.
func (r *balancerRole) restore() error {
	if r.state == "" {
		return nil
	}
	b, err := os.ReadFile(r.state)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var st lbState
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return problem(CodeConfig, err, "lb.state_file "+r.state+" cannot be read", "Remove it; then nothing is drained and maintenance mode is off")
	}
	r.Restore(st.Maintenance, st.Drained)
	return nil
}

// keep writes the state file; r.mu is held.
func (r *balancerRole) keep() error {
	if r.state == "" {
		return nil
	}
	now := r.Balancer.Status()
	b, err := json.MarshalIndent(lbState{Maintenance: now.Maintenance, Drained: now.Drained}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.state), 0o755); err != nil {
		return err
	}
	return writeFileAtomic(r.state, append(b, '\n'))
}

// lbChange is the body of the calls that change something.
type lbChange struct {
	Upstream string `json:"upstream,omitempty"`
	On       bool   `json:"on"`
}

// addTo adds the balancer's calls to the admin socket's.
func (r *balancerRole) addTo(m *http.ServeMux) {
	m.HandleFunc("GET /v1/lb/status", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, r.Balancer.Status()) })
	m.HandleFunc("POST /v1/lb/drain", r.changing(func(c lbChange) error { return r.Drain(c.Upstream, c.On) }))
	m.HandleFunc("POST /v1/lb/maintenance", r.changing(func(c lbChange) error { r.Maintenance(c.On); return nil }))
	m.HandleFunc("POST /v1/lb/reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := r.reload(); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		answerJSON(w, r.Balancer.Status())
	})
}

func (r *balancerRole) changing(change func(lbChange) error) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		var c lbChange
		if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, adminBodyMax)).Decode(&c); err != nil {
			http.Error(w, "the request is not JSON: "+err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if err := change(c); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if err := r.keep(); err != nil {
			http.Error(w, "it is done, but a restart will not know of it: "+err.Error(), http.StatusInternalServerError)
			return
		}
		answerJSON(w, r.Balancer.Status())
	}
}

// reload takes over the section lb of the configuration as it is now, and opens
// the access log anew. On an error the former one stays in force.
func (r *balancerRole) reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.access != nil {
		if err := r.access.Reopen(); err != nil {
			return fmt.Errorf("lb.access_log: %w", err)
		}
	}
	cfg, err := r.load()
	if err != nil {
		return err
	}
	if err := r.fixed(cfg.LB); err != nil {
		return err
	}
	o, err := cfg.LB.options()
	if err != nil {
		return err
	}
	if err := r.Balancer.Reload(o); err != nil {
		return fmt.Errorf("lb.%w", err)
	}
	r.log.Info("the balancer has a new configuration")
	return nil
}

// fixed refuses a new configuration that changes what only a start reads.
func (r *balancerRole) fixed(c LBConfig) error {
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"access_log", c.AccessLog == r.first.AccessLog}, {"state_file", c.StateFile == r.first.StateFile},
		{"drain_timeout", c.DrainTimeout == r.first.DrainTimeout}, {"acme_dir", c.ACMEDir == r.first.ACMEDir},
	} {
		if !k.same {
			return fmt.Errorf("lb.%s: cannot change in a running balancer; restart it", k.key)
		}
	}
	return nil
}

// noBalancer answers the same calls where there is none.
func noBalancer(m *http.ServeMux) {
	m.HandleFunc("/v1/lb/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "this agent has no balancer: set lb.listen or lb.listen_tls in its configuration", http.StatusNotFound)
	})
}
