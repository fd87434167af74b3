package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	wfs "github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/lb"
)

// Limits of an agent's end. systemd's default is 90 s.
const (
	noticeWait = 2500 * time.Millisecond // balancers ask /healthz every second and stop sending work
	drainMax   = 20 * time.Second        // publish what is dirty, unmount
	leaveMax   = 5 * time.Second         // release the lease, hand leadership over
	closeMax   = 8 * time.Second         // close everything
)

// stack is the joined parts of a node (node.go) as the agent runs them.
type stack interface {
	source
	// Run does the node's work until ctx ends or a part fails; it owns every
	// long-lived goroutine of the parts and closes them before it returns.
	Run(ctx context.Context) error
	// WebNotes are the ids of all members, and what the nodes that seem alive say
	// about their web servers (webNote).
	WebNotes() (members []string, notes map[wfs.NodeID][]byte)
	// Store is the cluster's settings, for the balancer.
	Store() lb.Store
	// Ready is closed once the node serves: it has a lease, and its mount is there.
	Ready() <-chan struct{}
	// Scrub begins to read the whole cache again, at so many bytes per second, 0
	// for no bound.
	Scrub(bytesPerSecond int64)
	// Scrubbed tells how far that, or the scrub that is always going on, has come.
	Scrubbed() ScrubStatus
	// Drain ends the mount: no new call is taken, dirty content is published,
	// the kernel's mount goes away. It may be called again.
	Drain(ctx context.Context) error
	// Leave gives leadership and lease back, so that nobody waits for this node.
	Leave(ctx context.Context) error
	// Collect makes the leader collect garbage and returns its report.
	Collect(ctx context.Context, dryRun bool) (json.RawMessage, error)
	// Abandon takes the mount away at once, whatever is lost with it.
	Abandon()
}

// agent runs one node: its HTTP interfaces, its signals, its end.
type agent struct {
	cfg      Config
	log      *slog.Logger
	stack    stack
	lb       *balancerRole // nil without the role
	draining atomic.Bool
	started  time.Time
}

// runAgent opens the node and runs it until a signal or a fault. open is
// openNode, but for tests.
func runAgent(ctx context.Context, cfg Config, log *slog.Logger, signals <-chan os.Signal,
	open func(Config, *slog.Logger, prometheus.Registerer) (stack, error), reload func() (Config, error)) (err error) {
	if err := preflight(&cfg); err != nil {
		return err
	}
	a := &agent{cfg: cfg, log: log, started: time.Now()}
	reg := newRegistry()
	// The ports come before the data: nothing on disk is touched when another
	// agent has them.
	admin, web, err := a.listen()
	if err != nil {
		return err
	}
	defer admin.Close()
	if web != nil {
		defer web.Close()
	}
	members, store := newMemberSource(), &lateStore{}
	if cfg.LB.enabled() {
		if a.lb, err = openBalancer(cfg, members, store, log, reg, reload); err != nil {
			return err
		}
		defer a.lb.Close()
	}
	if a.stack, err = open(cfg, log, reg); err != nil {
		return asProblem(err)
	}
	members.look, store.Store = a.stack.WebNotes, a.stack.Store()
	defer os.Remove(cfg.Node.Socket)
	reg.MustRegister(newStatusMetrics(a))
	return asProblem(a.run(ctx, admin, web, reg, signals, members))
}

func (a *agent) listen() (admin *net.UnixListener, web net.Listener, err error) {
	if admin, err = listenUnix(a.cfg.Node.Socket); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, problem(CodePort, err, "another agent answers on node.socket", "Stop it (wpfs status --socket "+a.cfg.Node.Socket+" shows which), or give this one its own node.socket")
		}
		return nil, nil, problem(CodeOther, err, "node.socket cannot be made", "Choose a place for it that this user may write")
	}
	if a.cfg.HTTP.Listen == "" {
		return admin, nil, nil
	}
	if web, err = net.Listen("tcp", a.cfg.HTTP.Listen); err != nil {
		closeUnix(admin, a.cfg.Node.Socket)
		return nil, nil, problem(codeOf(err), err, "http.listen cannot be opened", "Stop the program that has the port (ss -ltnp), or set another http.listen")
	}
	return admin, web, nil
}

// run serves until a signal, then stops in good order. The contexts differ
// because the HTTP interfaces and the node must live while the node drains.
func (a *agent) run(ctx context.Context, admin, web net.Listener, reg *prometheus.Registry, signals <-chan os.Signal, members *memberSource) error {
	life, kill := context.WithCancel(context.Background())
	defer kill()
	g, life := errgroup.WithContext(life)
	g.Go(func() error { return serveHTTP(life, admin, a.adminAPI()) })
	if web != nil {
		h, err := httpHandler(a, reg, a.cfg.HTTP.Pprof)
		if err != nil {
			return err
		}
		g.Go(func() error { return serveHTTP(life, web, h) })
	}
	g.Go(func() error {
		err := a.stack.Run(life)
		if err == nil && life.Err() == nil {
			err = errors.New("the node ended by itself")
		}
		return err
	})
	stopLB := a.runBalancer(g, life, members)
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }() // ends with life, which kill ends below
	go a.announce(life)
	for {
		select {
		case err := <-ended:
			a.stack.Abandon()
			return fault(err)
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.hangup()
				continue
			}
			a.log.Info("stopping", "signal", s.String())
		case <-ctx.Done():
			a.log.Info("stopping", "reason", context.Cause(ctx))
		}
		return a.stop(kill, stopLB, ended, signals)
	}
}

// runBalancer runs the balancer, if there is one, as a part of g. The returned
// function ends it and waits until its requests in flight are done.
func (a *agent) runBalancer(g *errgroup.Group, life context.Context, members *memberSource) (stop func(context.Context) error) {
	if a.lb == nil {
		return func(context.Context) error { return nil }
	}
	ctx, cancel := context.WithCancel(life)
	done := make(chan struct{})
	g.Go(func() error { return members.Run(life) })
	g.Go(func() error {
		defer close(done)
		return a.lb.Run(ctx)
	})
	return func(wait context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-wait.Done():
			return wait.Err()
		}
	}
}

// hangup is SIGHUP: the balancer's configuration is read again.
func (a *agent) hangup() {
	if a.lb == nil {
		a.log.Info("SIGHUP: nothing to do; this agent has no balancer")
		return
	}
	if err := a.lb.reload(); err != nil {
		a.log.Error("the new configuration is not used; the former one stays in force", "err", err)
	}
}

// announce says that the node serves, when it does.
func (a *agent) announce(ctx context.Context) {
	select {
	case <-a.stack.Ready():
		a.log.Info("serving", "node", a.cfg.Node.ID, "mount", a.cfg.Mount.Path, "http", a.cfg.HTTP.Listen)
		if err := notify(notifyReady); err != nil {
			a.log.Warn("systemd could not be told that the agent is ready", "err", err)
		}
	case <-ctx.Done():
	}
}

// stop ends the node. The order, and why:
//
//  1. /healthz says 503, so balancers send no more work; our own takes no more
//     and lets what is in flight end; others get the time to notice;
//  2. the mount is drained: what programs have written is published while the
//     node still has its lease and may propose, then the kernel's mount goes;
//  3. lease and leadership are given back: with no mount nothing here needs
//     them, and the others need not wait for them to run out (rule R16);
//  4. everything is closed, the log last.
//
// Each step has a limit; one that fails does not keep the next from running. A
// second signal ends all of it at once, as a crash would.
func (a *agent) stop(kill context.CancelFunc, stopLB func(context.Context) error, ended <-chan error, signals <-chan os.Signal) error {
	a.draining.Store(true)
	if err := notify(notifyStopping); err != nil {
		a.log.Warn("systemd could not be told that the agent stops", "err", err)
	}
	result := make(chan error, 1)
	go func() { result <- a.stopInOrder(kill, stopLB, ended) }() // bounded by the limits of its steps
	for {
		select {
		case err := <-result:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue
			}
			a.log.Warn("a second signal: ending at once", "signal", s.String())
			a.stack.Abandon()
			kill()
			return exitStatus(128 + int(s.(syscall.Signal)))
		}
	}
}

func (a *agent) stopInOrder(kill context.CancelFunc, stopLB func(context.Context) error, ended <-chan error) error {
	step := func(name string, limit time.Duration, f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		result := make(chan error, 1)
		go func() { result <- f(ctx) }() // a step may be stuck where it cannot look at ctx; the process ends all the same
		select {
		case err := <-result:
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s: not done within %v: %w", name, limit, ctx.Err())
		}
	}
	noticed := time.After(0)
	if a.cfg.Web.Addr != "" && a.cfg.Mount.Path != "" {
		noticed = time.After(noticeWait)
	}
	if err := step("let the balancer's requests end", a.cfg.LB.DrainTimeout+time.Second, stopLB); err != nil {
		a.log.Warn("requests were cut off", "err", err)
	}
	<-noticed
	drained := step("drain the mount", drainMax, a.stack.Drain)
	if drained != nil {
		a.log.Error("not everything could be published", "err", drained)
		a.stack.Abandon()
	}
	if err := step("leave", leaveMax, a.stack.Leave); err != nil {
		a.log.Warn("leaving was not clean; the others wait for this node's lease to run out", "err", err)
	}
	kill()
	select {
	case err := <-ended:
		if drained == nil && !errors.Is(err, context.Canceled) {
			drained = err
		}
	case <-time.After(closeMax):
		a.log.Error("closing takes too long; ending all the same", "limit", closeMax)
	}
	if drained != nil {
		return problem(CodeUnhealthy, drained, "the agent stopped, but not in good order", "What was not published is lost; the log of the agent names it")
	}
	a.log.Info("stopped")
	return nil
}

// fault is the end of a node that nobody asked for.
func fault(err error) error {
	if p := asProblem(err); codeOf(p) != CodeOther {
		return p
	}
	return problem(CodeUnhealthy, err, "the agent cannot go on", "Its log says what happened before; start it again")
}

// adminAPI is the admin socket's interface: what can be seen, draining, and the scrub.
func (a *agent) adminAPI() http.Handler {
	m := http.NewServeMux()
	m.Handle("/", adminHandler(a))
	if a.lb != nil {
		a.lb.addTo(m)
	} else {
		noBalancer(m)
	}
	m.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		a.draining.Store(true)
		ctx, cancel := context.WithTimeout(r.Context(), drainMax)
		defer cancel()
		if err := a.stack.Drain(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		answerJSON(w, a.Status())
	})
	m.HandleFunc("POST /v1/scrub", func(w http.ResponseWriter, r *http.Request) {
		var q scrubRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, adminBodyMax)).Decode(&q); err != nil || q.BytesPerSecond < 0 {
			http.Error(w, "want {\"bytes_per_second\": N}, N at least 0", http.StatusBadRequest)
			return
		}
		a.stack.Scrub(q.BytesPerSecond)
		answerJSON(w, a.stack.Scrubbed())
	})
	m.HandleFunc("GET /v1/scrub", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, a.stack.Scrubbed()) })
	m.HandleFunc("POST /v1/gc", a.serveGC)
	return m
}

// serveGC answers POST /v1/gc: a round of garbage collection on the leader.
func (a *agent) serveGC(w http.ResponseWriter, r *http.Request) {
	report, err := a.stack.Collect(r.Context(), r.URL.Query().Get("dry_run") == "1")
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answerJSON(w, report)
}

// Status is the stack's, with what only the agent knows.
func (a *agent) Status() Status {
	st := a.stack.Status()
	st.Version, st.PID, st.StartedAt = buildVersion(), os.Getpid(), a.started.UTC()
	st.UptimeS = time.Since(a.started).Seconds()
	st.Draining = a.draining.Load()
	st.judge()
	st.warn()
	return st
}

// Members are the stack's.
func (a *agent) Members() []Member { return a.stack.Members() }
