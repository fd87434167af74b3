package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newDevCmd(std stdio) *cobra.Command {
	var o devOptions
	c := &cobra.Command{
		Use:   "dev --dir DIR [flags] [-- CMD [ARG…]]",
		Short: "Run a whole cluster on this machine",
		Long: `Runs a cluster of several agents, each a process of its own on 127.0.0.N, mounted at
DIR/nodeN/mnt (N from 1). Once all are ready DIR/dev.json says where everything is:

  {"nodes": [{"id", "mount", "socket", "pid", "http"}], "object": {"url"}}

With --lb also "lb": {"http", "https", "socket", "pid"}, and for each node "web", the address
where the balancer expects the node's web server (wpfs runs none). Its certificate is its own.

With -- CMD it runs CMD with WPFS_DEV_JSON naming that file, takes everything down and
exits with CMD's code (128+N if signal N ended it). Without, it stays until Ctrl-C or
SIGTERM. Either way no process and no mount stays behind.

Below DIR: nodeN/data (raft log, metadata, content), nodeN/agent.log, objects (the embedded
object store, unless --s3 names a real one), plan.json (the nodes and their ports, the same
at every start). A second start on DIR goes on with the same data; with more --nodes the new
ones join with an empty disk. An agent that dies is not restarted: see wpfs dev-node.`,
		Example: `  wpfs dev --dir /tmp/wpfs
  wpfs dev --dir /tmp/wpfs -- sh -c 'date > /tmp/wpfs/node1/mnt/now; cat /tmp/wpfs/node2/mnt/now'
  wpfs dev --dir /tmp/wpfs --set cluster.on_lease_lost=fail
  wpfs dev --dir /tmp/wpfs --lb --set lb.health_path=/
  wpfs dev --dir /tmp/wpfs --s3 's3://bucket/prefix?endpoint=http://127.0.0.1:7070&region=us-east-1&path_style=true'`,
		GroupID: "run",
		Args: func(c *cobra.Command, args []string) error {
			if at := c.ArgsLenAtDash(); len(args) > 0 && at != 0 {
				return usagef("wpfs dev takes a command only behind --: wpfs dev --dir DIR -- %s …", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Cmd = args
			if c.Flags().Changed("nodes") && o.Nodes < 1 {
				return usagef("--nodes must be 1 to %d, is %d", devNodesMax, o.Nodes)
			}
			if o.S3 != "" {
				if err := checkObjectURL(o.S3); err != nil {
					return usagef("--s3 %v", err)
				}
			}
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(signals)
			return runDev(c.Context(), o, std, signals)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory of the cluster; made when absent")
	f.IntVar(&o.Nodes, "nodes", 0, "how many nodes (default 3, or as many as DIR has)")
	f.StringVar(&o.S3, "s3", "", "a real object store instead of the embedded one: an object.url (see docs/CONFIGURATION.md)")
	f.StringArrayVar(&o.Set, "set", nil, "KEY=VALUE for all agents, a key of docs/CONFIGURATION.md that dev does not decide itself; repeatable; for this run only")
	f.BoolVar(&o.LB, "lb", false, "run a balancer too, as one more member of the cluster; later starts on DIR run it without being told")
	return c
}
