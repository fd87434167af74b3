package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// output formats of commands that a script may read.
const (
	outputText = "text"
	outputJSON = "json"
)

func newRootCmd(std stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "wpfs",
		Short: "A file system shared by the nodes of a WordPress cluster",
		Long: "wpfs keeps one directory tree the same on all nodes of a cluster: what one node has\n" +
			"written is what the very next call on any other node sees.\n\n" +
			"To try it on one machine:  wpfs dev --dir /tmp/wpfs\n\n" + codeHelp(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &Problem{Code: CodeUsage, What: err.Error()}
	})
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "see", Title: "See:"}, &cobra.Group{ID: "move", Title: "Move in and out:"})
	root.AddCommand(
		newAgentCmd(std), newMountCmd(std), newDevCmd(std), newDevNodeCmd(std),
		newLBCmd(std), newRestoreCmd(std), newStatusCmd(std), newScrubCmd(std), newClusterCmd(std), newGCCmd(std), newVersionCmd(std),
		newImportCmd(std), newExportCmd(std), newAskerCmd(),
	)
	return root
}

// noArgs and the like are cobra's checks with our exit code.
func noArgs(c *cobra.Command, args []string) error { return exactly(0)(c, args) }

func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		if n == 0 && !c.HasParent() {
			return usagef("there is no command %q%s", args[0], suggestion(args[0], commandNames(c)))
		}
		if n == 0 && c.HasSubCommands() {
			return usagef("%s has no command %q%s", c.CommandPath(), args[0], suggestion(args[0], commandNames(c)))
		}
		return usagef("%s takes %d argument(s), not %d: %s", c.CommandPath(), n, len(args), c.UseLine())
	}
}

func commandNames(c *cobra.Command) []string {
	var names []string
	for _, s := range c.Commands() {
		if s.IsAvailableCommand() {
			names = append(names, s.Name())
		}
	}
	return names
}

// suggestion is `: did you mean "x"?` or nothing.
func suggestion(got string, valid []string) string {
	if n := nearest(got, valid); n != "" {
		return fmt.Sprintf(": did you mean %q?", n)
	}
	return ""
}

// outputFlag adds --output to c.
func outputFlag(c *cobra.Command, into *string) {
	c.Flags().StringVarP(into, "output", "o", outputText, "text or json")
}

func checkOutput(o string) error {
	if o != outputText && o != outputJSON {
		return usagef("--output is text or json, not %q", o)
	}
	return nil
}

// writeJSON prints v for a script.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// columns prints rows of text under a heading, each column as wide as it must be.
func columns(w io.Writer, rows [][]string) error {
	var width []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(cell))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			fmt.Fprintf(&b, "%-*s  ", width[i], cell)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}
