package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// The control interface of a running wpfs dev, on DIR/dev.sock:
//
//	GET  /v1/nodes              the nodes, with state
//	POST /v1/nodes              add one with an empty disk and start it
//	POST /v1/nodes/{node}/{do}  start, stop, kill, pause or resume it
//
// node is a number from 1 or an id. It is for tests and for trying things out.

// devNodeState is one line of dev-node list.
type devNodeState struct {
	devJSONNode
	State string `json:"state"`
	Ended string `json:"ended,omitempty"` // how the last process ended
}

func (d *devCluster) controlHandler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/nodes", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, d.list()) })
	m.HandleFunc("POST /v1/nodes", func(w http.ResponseWriter, r *http.Request) {
		a, err := d.add(r.Context())
		d.answer(w, a, err)
	})
	m.HandleFunc("POST /v1/nodes/{node}/{do}", func(w http.ResponseWriter, r *http.Request) {
		a, err := d.agent(r.PathValue("node"))
		if err == nil {
			err = d.do(r.Context(), a, r.PathValue("do"))
		}
		d.answer(w, a, err)
	})
	return m
}

// answer rewrites dev.json (a process came or went) and tells the node's state.
func (d *devCluster) answer(w http.ResponseWriter, a *devAgent, err error) {
	d.mu.Lock()
	if werr := d.writeJSON(); err == nil {
		err = werr
	}
	d.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	answerJSON(w, a.condition())
}

func (d *devCluster) list() []devNodeState {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []devNodeState{}
	for _, a := range d.agents {
		out = append(out, a.condition())
	}
	return out
}

func (a *devAgent) condition() devNodeState {
	s := devNodeState{devJSONNode: a.describe()}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.State, s.Ended = a.state, a.how
	return s
}

// agent finds a node by number or id.
func (d *devCluster) agent(name string) (*devAgent, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(d.agents) {
		return d.agents[n-1], nil
	}
	for _, a := range d.agents {
		if a.plan.ID == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("there is no node %q; there are %d, numbered from 1", name, len(d.agents))
}

// devActions are what may be done to a node.
var devActions = [...]string{"start", "stop", "kill", "pause", "resume"}

func (d *devCluster) do(ctx context.Context, a *devAgent, what string) error {
	switch what {
	case "start":
		d.mu.Lock()
		conf, err := d.plan.config(d.dir, a.plan)
		d.mu.Unlock()
		if err != nil {
			return err
		}
		return a.start(ctx, conf)
	case "stop":
		a.stop()
	case "kill":
		a.kill()
	case "pause":
		return a.freeze(true)
	case "resume":
		return a.freeze(false)
	default:
		return fmt.Errorf("there is no action %q; there are %s", what, strings.Join(devActions[:], ", "))
	}
	return nil
}

// add extends the plan by a node that joins, and starts it.
func (d *devCluster) add(ctx context.Context) (*devAgent, error) {
	d.mu.Lock()
	err := d.plan.fit(d.dir, len(d.plan.Nodes)+1, "")
	if err == nil {
		err = d.plan.save(d.dir)
	}
	if err != nil {
		d.mu.Unlock()
		return nil, err
	}
	a := newDevAgent(d.plan.Nodes[len(d.plan.Nodes)-1], d.dir, d.spawn, d.log, d.rewrite)
	d.agents = append(d.agents, a)
	d.mu.Unlock()
	return a, d.do(ctx, a, "start")
}
