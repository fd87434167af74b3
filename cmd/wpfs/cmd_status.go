package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// agentOptions are the flags of every command that talks to an agent.
type agentOptions struct {
	Socket string
	Output string
}

// AddFlags adds --socket and --output.
func (o *agentOptions) AddFlags(c *cobra.Command) {
	def := defaultConfig().Node.Socket
	if s := os.Getenv("WPFS_NODE_SOCKET"); s != "" {
		def = s
	}
	c.Flags().StringVar(&o.Socket, "socket", def, "admin socket of the agent (node.socket of its configuration)")
	outputFlag(c, &o.Output)
}

// get asks the agent and decodes its answer.
func (o *agentOptions) get(ctx context.Context, path string, into any) error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, adminCallTimeout)
	defer cancel()
	return adminClient{o.Socket}.call(ctx, http.MethodGet, path, nil, into)
}

func newStatusCmd(std stdio) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show the agent of this machine: health, lease, mount, content",
		GroupID: "see",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runStatus(c.Context(), o, std) },
	}
	o.AddFlags(c)
	return c
}

func runStatus(ctx context.Context, o agentOptions, std stdio) error {
	var st Status
	if err := o.get(ctx, "/v1/status", &st); err != nil {
		return err
	}
	if o.Output == outputJSON {
		return writeJSON(std.Out, st)
	}
	health := "healthy"
	if !st.Healthy {
		health = "NOT HEALTHY"
	}
	rows := [][]string{
		{"node", st.Node},
		{"health", health},
	}
	for _, r := range st.Reasons {
		rows = append(rows, []string{"", r})
	}
	for i, w := range st.Warnings {
		title := ""
		if i == 0 {
			title = "warning"
		}
		rows = append(rows, []string{title, w})
	}
	lease := "none"
	if st.Cluster.LeaseValid {
		lease = fmt.Sprintf("%.0f ms left", st.Cluster.LeaseLeftMS)
	}
	mount := "no mount role"
	if st.Mount.Path != "" {
		mount = st.Mount.Path
	}
	rows = append(rows,
		[]string{"cluster", fmt.Sprintf("%s, %d members", st.Cluster.Name, st.Cluster.Members)},
		[]string{"role", st.Cluster.Role},
		[]string{"leader", orNone(st.Cluster.Leader)},
		[]string{"applied", strconv.FormatUint(st.Cluster.Applied, 10)},
		[]string{"stable", strconv.FormatUint(st.Cluster.Stable, 10)},
		[]string{"lease", lease},
		[]string{"mount", mount},
		[]string{"cache", fmt.Sprintf("%s in %d chunks", humanBytes(st.Content.CacheBytes), st.Content.CacheChunks)},
		[]string{"to upload", uploadText(st.Content)},
		[]string{"object store", st.Content.Object},
		[]string{"metadata copy", st.Archive.text()},
		[]string{"version", st.Version},
		[]string{"up", humanDuration(st.UptimeS)},
	)
	if st.Content.ObjectError != "" {
		rows = append(rows, []string{"object error", st.Content.ObjectError})
	}
	if st.Archive.Fenced != "" {
		rows = append(rows, []string{"ALARM", st.Archive.Fenced + "; nothing is put into the bucket any more"})
	}
	if st.Archive.Error != "" {
		rows = append(rows, []string{"copy error", st.Archive.Error})
	}
	rows = append(rows, riskRows(st.Content.AtRisk)...)
	if st.Garbage.Last != nil {
		rows = append(rows, []string{"garbage", garbageText(st.Garbage)})
	}
	return columns(std.Out, rows)
}

// text is one line about the copy of the metadata in the bucket.
func (a ArchiveStatus) text() string {
	switch {
	case a.Shipped == 0:
		return "none yet"
	case a.Shipping:
		return fmt.Sprintf("up to %d, %.1f s behind", a.Shipped, a.LagS)
	}
	return fmt.Sprintf("up to %d some seconds ago", a.Shipped)
}

func uploadText(c ContentStatus) string {
	s := fmt.Sprintf("%s in %d chunks", humanBytes(c.UploadBytes), c.UploadChunks)
	if c.UploadChunks > 0 {
		s += ", the oldest for " + humanDuration(c.UploadAgeS)
	}
	return s
}

// riskShown bounds the files that are named to people; --output json has more.
const riskShown = 10

func riskRows(r RiskStatus) (rows [][]string) {
	if r.Chunks == 0 {
		return nil
	}
	what := fmt.Sprintf("%d chunks are not in the object store yet and on too few live nodes", r.Chunks)
	if len(r.Away) > 0 {
		what += "; bring back " + strings.Join(r.Away, ", ")
	}
	rows = append(rows, []string{"AT RISK", what})
	for _, f := range r.Files[:min(len(r.Files), riskShown)] {
		rows = append(rows, []string{"", fmt.Sprintf("%s (%s)", f.Path, humanBytes(f.Bytes))})
	}
	if more := len(r.Files) - riskShown; more > 0 {
		rows = append(rows, []string{"", fmt.Sprintf("and %d more: wpfs status --output json", more)})
	}
	return rows
}

func garbageText(g GarbageStatus) string {
	s := fmt.Sprintf("%d objects deleted, %d chunks condemned, %d moved; last round %s ago", g.Deleted, g.Condemned, g.Moved,
		humanDuration(time.Since(g.Last.Began).Seconds()))
	if g.Last.Error != "" {
		s += ", which ended early: " + g.Last.Error
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
