// Command wpfs is a file system shared by the nodes of a WordPress cluster.
//
// It is one binary with several commands: the agent is the daemon that every
// node runs, dev runs a whole cluster on one machine, and the others talk to a
// running agent through its admin socket. The nouns it adds are the Config
// (file, environment and flags in one typed value), the Problem (an error that
// tells an operator what to do next and has an exit code), the node (all
// packages joined, in node.go only) and the plan (what wpfs dev keeps between
// two starts).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(int(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})))
}

// stdio is what a command reads and writes.
type stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// run executes one command line and returns its exit code. It blocks for as
// long as the command runs. It is the only place where errors become codes.
func run(ctx context.Context, args []string, std stdio) Code {
	root := newRootCmd(std)
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	err := root.ExecuteContext(ctx)
	var status exitStatus
	if err != nil && !errors.As(err, &status) {
		fmt.Fprintf(std.Err, "wpfs: %v\n", err)
		if codeOf(err) == CodeUsage {
			fmt.Fprintln(std.Err, "Run 'wpfs --help', or 'wpfs COMMAND --help'.")
		}
	}
	return codeOf(err)
}
