package main

import (
	"context"
	"net/http"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
)

func newDevNodeCmd(std stdio) *cobra.Command {
	c := &cobra.Command{
		Use:   "dev-node",
		Short: "Start, stop, kill, pause or add nodes of a running wpfs dev",
		Long: `Acts on one node of a running wpfs dev; NODE is a number from 1, or an id such as node2.
Each command returns when it is done: start and add when the node is healthy, stop and kill
when the process is gone. dev.json is up to date afterwards.`,
		GroupID: "run",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	short := map[string]string{
		"start":  "Start a node that is stopped or was killed",
		"stop":   "Stop a node in good order, as SIGTERM does",
		"kill":   "Kill a node at once, as kill -9 does",
		"pause":  "Freeze a node (SIGSTOP)",
		"resume": "Let a frozen node go on (SIGCONT)",
	}
	for _, do := range devActions {
		c.AddCommand(newDevNodeAction(std, do+" NODE", short[do], 1, func(args []string) string {
			return "/v1/nodes/" + args[0] + "/" + do
		}))
	}
	c.AddCommand(
		newDevNodeAction(std, "add", "Add a node with an empty disk and start it", 0, func([]string) string { return "/v1/nodes" }),
		newDevNodeList(std),
	)
	return c
}

// devNodeOptions are the flags of all of them.
type devNodeOptions struct{ Dir, Output string }

// AddFlags adds --dir and --output.
func (o *devNodeOptions) AddFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.Dir, "dir", "", "directory of the running wpfs dev")
	outputFlag(c, &o.Output)
}

// call talks to the wpfs dev that runs on --dir.
func (o *devNodeOptions) call(ctx context.Context, method, path string, into any) error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	if o.Dir == "" {
		return usagef("--dir DIR is missing: the directory of the running wpfs dev")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	return adminClient{filepath.Join(dir, devSocketFile)}.call(ctx, method, path, nil, into)
}

func newDevNodeAction(std stdio, use, short string, nargs int, path func(args []string) string) *cobra.Command {
	var o devNodeOptions
	c := &cobra.Command{
		Use: use, Short: short, Args: exactly(nargs),
		RunE: func(c *cobra.Command, args []string) error {
			var st devNodeState
			if err := o.call(c.Context(), http.MethodPost, path(args), &st); err != nil {
				return err
			}
			return printDevNodes(std, o.Output, []devNodeState{st}, st)
		},
	}
	o.AddFlags(c)
	return c
}

func newDevNodeList(std stdio) *cobra.Command {
	var o devNodeOptions
	c := &cobra.Command{
		Use: "list", Short: "List the nodes with state and process", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var all []devNodeState
			if err := o.call(c.Context(), http.MethodGet, "/v1/nodes", &all); err != nil {
				return err
			}
			return printDevNodes(std, o.Output, all, all)
		},
	}
	o.AddFlags(c)
	return c
}

func printDevNodes(std stdio, output string, nodes []devNodeState, asJSON any) error {
	if output == outputJSON {
		return writeJSON(std.Out, asJSON)
	}
	rows := [][]string{{"NODE", "STATE", "PID", "MOUNT", "HTTP", "LAST END"}}
	for _, n := range nodes {
		rows = append(rows, []string{n.ID, n.State, strconv.Itoa(n.PID), n.Mount, n.HTTP, n.Ended})
	}
	return columns(std.Out, rows)
}
