package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/wpfs/wpfs/lb"
)

func newLBRunCmd(std stdio) *cobra.Command {
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run a balancer alone, without a node of the cluster",
		Long: `Runs a balancer over the web servers in lb.upstreams. It reads the same configuration file
as the agent and uses its sections lb, log, http (/healthz, /metrics, /status) and the key
node.socket. SIGTERM or SIGINT ends it when requests in flight are done (lb.drain_timeout), a
second one at once; SIGHUP reads the configuration again. Under systemd: Type=notify.

` + codeHelp(),
		Example: "  wpfs lb run --config /etc/wpfs/lb.yaml\n  wpfs lb run --lb-listen :80 --lb-upstreams web1=10.0.0.1:8080,web2=10.0.0.2:8080",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			load := func() (Config, error) { return loadConfigFor(c.Flags(), nil, (*Config).ValidateLB) }
			cfg, err := load()
			if err != nil {
				return err
			}
			signals := make(chan os.Signal, 2)
			signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(signals)
			return runLB(c.Context(), cfg, newLogger(std.Err, cfg.Log), signals, load)
		},
	}
	configFlags(c.Flags())
	return c
}

// loneBalancer is wpfs lb run: a balancer with the HTTP interfaces of an agent.
type loneBalancer struct {
	*balancerRole
	cfg     Config
	started time.Time
	signals <-chan os.Signal
}

// runLB runs a balancer alone until a signal.
func runLB(ctx context.Context, cfg Config, log *slog.Logger, signals <-chan os.Signal, load func() (Config, error)) error {
	if os.Getenv("GOGC") == "" {
		// The heap is a few megabytes; collecting it less often saves a part of
		// each request's time and costs a few more.
		debug.SetGCPercent(400)
	}
	reg := newRegistry()
	admin, web, err := (&agent{cfg: cfg}).listen()
	if err != nil {
		return err
	}
	defer closeUnix(admin, cfg.Node.Socket)
	if web != nil {
		defer web.Close()
	}
	var store lb.Store // stays nil without a directory
	if cfg.LB.ACMEDir != "" {
		if store, err = lb.OpenDirStore(cfg.LB.ACMEDir); err != nil {
			return problem(CodeConfig, err, "lb.acme_dir cannot be used", "Choose a place that this user may write")
		}
	}
	role, err := openBalancer(cfg, lb.NoSource{}, store, log, reg, load)
	if err != nil {
		return err
	}
	defer role.Close()
	l := &loneBalancer{balancerRole: role, cfg: cfg, started: time.Now(), signals: signals}
	life, kill := context.WithCancel(context.Background())
	defer kill()
	g, life := errgroup.WithContext(life)
	g.Go(func() error { return serveHTTP(life, admin, l.adminAPI()) })
	if web != nil {
		g.Go(func() error { return serveHTTP(life, web, l.publicAPI(reg)) })
	}
	serve, stop := context.WithCancel(life)
	defer stop()
	g.Go(func() error {
		defer kill()
		return l.Run(serve)
	})
	go l.await(ctx, life, stop, kill)
	log.Info("serving", "lb", cfg.LB.Listen, "lb_tls", cfg.LB.ListenTLS, "http", cfg.HTTP.Listen)
	if err := notify(notifyReady); err != nil {
		log.Warn("systemd could not be told that the balancer is ready", "err", err)
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fault(err)
	}
	log.Info("stopped")
	return nil
}

// await ends the balancer at the first signal, at once at the second. It ends
// with life.
func (l *loneBalancer) await(ctx, life context.Context, stop, kill context.CancelFunc) {
	stopping := false
	done := ctx.Done()
	for {
		select {
		case s := <-l.signals:
			switch {
			case s == syscall.SIGHUP:
				if err := l.reload(); err != nil {
					l.log.Error("the new configuration is not used; the former one stays in force", "err", err)
				}
				continue
			case stopping:
				l.log.Warn("a second signal: ending at once", "signal", s.String())
				l.Abandon()
				kill()
				return
			}
			l.log.Info("stopping", "signal", s.String())
		case <-done:
			done = nil
		case <-life.Done():
			return
		}
		stopping = true
		if err := notify(notifyStopping); err != nil {
			l.log.Warn("systemd could not be told that the balancer stops", "err", err)
		}
		stop()
	}
}

// Status is an agent's, as far as there is one.
func (l *loneBalancer) Status() Status {
	return Status{Version: buildVersion(), Node: l.cfg.Node.ID, PID: os.Getpid(), StartedAt: l.started.UTC(),
		UptimeS: time.Since(l.started).Seconds(), Healthy: true, Reasons: []string{}}
}

func (l *loneBalancer) adminAPI() http.Handler {
	m := http.NewServeMux()
	l.addTo(m)
	m.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, l.Status()) })
	return m
}

// publicAPI is what http.listen serves. /healthz is for whoever moves a floating
// address: 503 when no upstream is up.
func (l *loneBalancer) publicAPI(reg *prometheus.Registry) http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	m.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, l.Balancer.Status()) })
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		st := l.Status()
		st.Healthy = false
		for _, u := range l.Balancer.Status().Upstreams {
			st.Healthy = st.Healthy || u.State == "up" || u.State == "returning"
		}
		st.Reasons = append(st.Reasons, "no upstream is up")
		answerHealth(w, st)
	})
	return m
}
