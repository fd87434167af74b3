package main

import (
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/wpfs/wpfs/fs/fuse"
)

const askerName = "asker"

// askerCommand starts this program again, whichever file it is in by now.
func askerCommand() *exec.Cmd { return exec.Command("/proc/self/exe", askerName) }

// newAskerCmd is started by the agent, which has the other end of its socket.
func newAskerCmd() *cobra.Command {
	return &cobra.Command{
		Use:    askerName,
		Short:  "Ask the kernel on behalf of an agent, which starts it",
		Hidden: true,
		Args:   noArgs,
		RunE:   func(*cobra.Command, []string) error { return fuse.Ask() },
	}
}
