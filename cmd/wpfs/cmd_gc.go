package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/wpfs/wpfs/cache"
)

// gcTimeout bounds one round: a bucket of millions of objects takes a while.
const gcTimeout = time.Hour

// gcOptions are the flags of wpfs gc.
type gcOptions struct {
	agentOptions
	DryRun bool
}

func newGCCmd(std stdio) *cobra.Command {
	var o gcOptions
	c := &cobra.Command{
		Use:   "gc --dry-run | now",
		Short: "Collect garbage in the object store, or show what there is",
		Long: "The leader collects garbage by itself, every 10 minutes. wpfs gc --dry-run shows what it would\n" +
			"find; wpfs gc now makes it do a round at once. What no file needs any more is deleted only\n" +
			"after object.gc_grace; nothing makes that time shorter.",
		GroupID: "run",
		Args:    gcArgs(&o),
		RunE:    func(c *cobra.Command, _ []string) error { return runGC(c.Context(), o, std) },
	}
	o.AddFlags(c)
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "change nothing, only look")
	return c
}

// gcArgs wants exactly one of --dry-run and now.
func gcArgs(o *gcOptions) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		now := len(args) == 1 && args[0] == "now"
		if len(args) > 0 && !now {
			return usagef("wpfs gc takes now, not %q", args)
		}
		if now == o.DryRun {
			return usagef("say either wpfs gc --dry-run or wpfs gc now")
		}
		return nil
	}
}

func runGC(ctx context.Context, o gcOptions, std stdio) error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()
	path := "/v1/gc"
	if o.DryRun {
		path += "?dry_run=1"
	}
	var r cache.Report
	if err := (adminClient{o.Socket}).call(ctx, http.MethodPost, path, nil, &r); err != nil {
		return err
	}
	if o.Output == outputJSON {
		return writeJSON(std.Out, r)
	}
	return columns(std.Out, gcRows(r))
}

func gcRows(r cache.Report) [][]string {
	amount := func(what string, a cache.Amount) string {
		return fmt.Sprintf("%d %s, %s", a.Count, what, humanBytes(int64(a.Bytes)))
	}
	did := func(done, would string) string {
		if r.DryRun {
			return would
		}
		return done
	}
	rows := [][]string{
		{"chunks", fmt.Sprint(r.Chunks)},
		{"packs", amount("packs", r.Packs) + ", " + humanBytes(int64(r.LiveBytes)) + " of it live"},
		{"dead", amount("chunks", r.Dead) + did(", condemned now", ", to be condemned")},
		{"condemned", amount("chunks", r.Condemned)},
		{"waiting", amount("objects", r.Waiting) + ": their time has not come"},
		{"deletable", amount("objects", r.Deletable) + did(", deleted now", "")},
		{"orphaned", amount("objects", r.Orphaned) + did(", condemned now", ", to be condemned")},
		{"compactable", amount("packs", r.Compactable) + " would become free"},
	}
	if !r.DryRun {
		rows = append(rows, []string{"moved", amount("chunks", r.Moved)})
	}
	return append(rows, []string{"took", fmt.Sprintf("%.1f s", r.TookS)})
}
