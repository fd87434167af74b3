package cluster

import (
	"context"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft's log lines to slog. Raft calls many ordinary things
// warnings (an election, a peer that is away), so its levels are taken down
// one step; what the operator must act on this package says itself.
func raftLogger(l *slog.Logger) hclog.Logger {
	return hclog.FromStandardLogger(slog.NewLogLogger(quieter{l.Handler()}, slog.LevelInfo), &hclog.LoggerOptions{
		Name: "raft", Level: hclog.Info, DisableTime: true,
	})
}

// quieter reads the level from hclog's text, "[WARN]  raft: …".
type quieter struct{ slog.Handler }

// Enabled lets every line through to Handle, which knows the real level.
func (q quieter) Enabled(context.Context, slog.Level) bool { return true }

func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	text := strings.TrimSpace(r.Message)
	level := slog.LevelDebug
	switch {
	case strings.HasPrefix(text, "[ERROR]"):
		level = slog.LevelWarn
	case strings.HasPrefix(text, "[WARN]"):
		level = slog.LevelInfo
	}
	if !q.Handler.Enabled(ctx, level) {
		return nil
	}
	if _, rest, ok := strings.Cut(text, "]"); ok {
		text = strings.TrimSpace(rest)
	}
	return q.Handler.Handle(ctx, slog.NewRecord(r.Time, level, text, 0))
}
