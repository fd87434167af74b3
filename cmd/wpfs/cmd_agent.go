package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newAgentCmd(std stdio) *cobra.Command {
	c := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Run this machine's node in the foreground",
		Long: `Runs the daemon of this machine: its part of the cluster, its mount (mount.path), and its
status page (http.listen). SIGTERM or SIGINT stops it in good order: what programs have
written is published, the mount goes away, leadership is handed over. A second signal ends
it at once. With a balancer (lb.listen) SIGHUP reads its configuration again. Under systemd (Type=notify) it reports when it serves.

Every key of the configuration is also a flag and an environment variable; see
docs/CONFIGURATION.md.

` + codeHelp(),
		Example: "  wpfs agent --config /etc/wpfs/wpfs.yaml\n  wpfs agent --config /etc/wpfs/wpfs.yaml --log-level debug",
		GroupID: "run",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return startAgent(c, nil, std) },
	}
	configFlags(c.Flags())
	return c
}

// startAgent loads the configuration and runs the node until a signal.
func startAgent(c *cobra.Command, extra map[string]string, std stdio) error {
	cfg, err := loadConfig(c.Flags(), extra)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if cfg.LB.enabled() {
		signal.Notify(signals, syscall.SIGHUP) // reads the balancer's configuration again
	}
	defer signal.Stop(signals)
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	reload := func() (Config, error) { return loadConfig(c.Flags(), extra) }
	return runAgent(ctx, cfg, newLogger(std.Err, cfg.Log), signals, openNode, reload)
}

func newLogger(w io.Writer, c LogConfig) *slog.Logger {
	var o slog.HandlerOptions
	var level slog.Level
	if level.UnmarshalText([]byte(c.Level)) == nil { // Validate has seen it
		o.Level = level
	}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, &o))
	}
	return slog.New(slog.NewTextHandler(w, &o))
}
