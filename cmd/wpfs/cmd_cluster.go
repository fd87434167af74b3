package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
)

func newClusterCmd(std stdio) *cobra.Command {
	c := &cobra.Command{
		Use:     "cluster",
		Short:   "Show the cluster",
		GroupID: "see",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newClusterStatusCmd(std), newClusterMembersCmd(std))
	return c
}

func newClusterStatusCmd(std stdio) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Show leader, term, indexes and how many members there are",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runClusterStatus(c.Context(), o, std) },
	}
	o.AddFlags(c)
	return c
}

func runClusterStatus(ctx context.Context, o agentOptions, std stdio) error {
	var st Status
	if err := o.get(ctx, "/v1/status", &st); err != nil {
		return err
	}
	if o.Output == outputJSON {
		return writeJSON(std.Out, st.Cluster)
	}
	return columns(std.Out, [][]string{
		{"cluster", st.Cluster.Name},
		{"uuid", st.Cluster.UUID},
		{"leader", orNone(st.Cluster.Leader)},
		{"term", strconv.FormatUint(st.Cluster.Term, 10)},
		{"members", strconv.Itoa(st.Cluster.Members)},
		{"applied here", strconv.FormatUint(st.Cluster.Applied, 10)},
		{"stable", strconv.FormatUint(st.Cluster.Stable, 10)},
	})
}

func newClusterMembersCmd(std stdio) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "members",
		Short: "List the members: role, lease, address",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runClusterMembers(c.Context(), o, std) },
	}
	o.AddFlags(c)
	return c
}

func runClusterMembers(ctx context.Context, o agentOptions, std stdio) error {
	members := []Member{}
	if err := o.get(ctx, "/v1/members", &members); err != nil {
		return err
	}
	if o.Output == outputJSON {
		return writeJSON(std.Out, members)
	}
	rows := [][]string{{"NODE", "ROLE", "LEASE", "ALIVE", "ADDRESS"}}
	for _, m := range members {
		id := m.ID
		if m.Local {
			id += " (this)"
		}
		rows = append(rows, []string{id, m.Role, m.Lease, yesNo(m.Alive), m.Addr})
	}
	return columns(std.Out, rows)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
