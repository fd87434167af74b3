package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wpfs/wpfs/fs"
)

// restoreOptions are the flags of wpfs restore.
type restoreOptions struct {
	Config    string
	Bucket    string
	DataDir   string
	NodeID    string
	Cluster   string
	Advertise string
	At        string
	TakeOver  bool
	Output    string

	object  ObjectConfig // of the configuration and the flags for keys; URL is Bucket
	atIndex fs.Index
	atTime  time.Time
}

func newRestoreCmd(std stdio) *cobra.Command {
	var o restoreOptions
	c := &cobra.Command{
		Use:   "restore --from-bucket URL --data-dir DIR --advertise HOST:PORT [flags]",
		Short: "Make a new cluster from what is in a bucket, after all nodes were lost",
		Long: `Makes the data directory of the first node of a new cluster from the copy of the metadata that
the old cluster has put into its bucket: the newest snapshot that is whole, and the log behind
it. Content stays in the bucket; the new cluster fetches it from there. The bucket belongs to
the new cluster from then on: nodes of the old one, should any come back, put nothing into it
any more. Nothing is changed in the bucket or in DIR until everything has been read and checked.

It refuses while the old cluster seems to be running (code 17), lists the files whose content is
not in the bucket (code 16; the rest is restored), and says what could not be used.`,
		Example: `  wpfs restore --config /etc/wpfs/wpfs.yaml
  wpfs restore --from-bucket 's3://shop-files/wpfs?region=eu-central-1' --data-dir /var/lib/wpfs --node-id web1 --advertise 10.0.0.1:7480
  wpfs restore --config /etc/wpfs/wpfs.yaml --at '2026-11-25 14:30:00' --take-over`,
		GroupID: "run",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return runRestore(c.Context(), o, std)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.Config, "config", "c", "", "configuration of the node that will run here: gives what other flags do not say")
	f.StringVar(&o.Bucket, "from-bucket", "", "the old cluster's object.url, which becomes the new one's")
	f.StringVar(&o.DataDir, "data-dir", "", "node.data_dir of the node: empty or absent")
	f.StringVar(&o.NodeID, "node-id", "", "node.id of the node (default: the host name)")
	f.StringVar(&o.Cluster, "cluster-name", "", "cluster.name of the new cluster (default: the old one's)")
	f.StringVar(&o.Advertise, "advertise", "", "cluster.advertise of the node: host:port that other nodes will reach it at")
	f.StringVar(&o.At, "at", "", "restore an earlier state: a log entry's number, or a time (2026-11-25T14:30:00Z, or '2026-11-25 14:30:00' of this machine's zone)")
	f.StringVar(&o.object.EncryptionKeyFile, "encryption-key-file", "", "object.encryption_key_file of the cluster that was lost, if it had one")
	f.StringVar(&o.object.EncryptionKeyCommand, "encryption-key-command", "", "its object.encryption_key_command")
	f.BoolVar(&o.TakeOver, "take-over", false, "do not mind that the old cluster seems to be running")
	outputFlag(c, &o.Output)
	return c
}

// complete fills the options from the configuration and checks them.
func (o *restoreOptions) complete() error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	if o.Config != "" {
		if err := o.readConfig(); err != nil {
			return err
		}
	}
	if o.NodeID == "" {
		o.NodeID, _ = os.Hostname() // an empty one breaks the rule below
	}
	switch {
	case o.Bucket == "":
		return usagef("--from-bucket URL is missing: the object.url of the cluster that was lost")
	case checkObjectURL(o.Bucket) != nil:
		return usagef("--from-bucket %v", checkObjectURL(o.Bucket))
	case o.DataDir == "":
		return usagef("--data-dir DIR is missing: where the new cluster's first node keeps its state (node.data_dir)")
	case !nodeIDRule.MatchString(o.NodeID) || len(o.NodeID) > nodeIDMax:
		return usagef("--node-id must be 1 to %d letters, digits, dots, dashes or underscores, is %q", nodeIDMax, o.NodeID)
	case o.Advertise == "":
		return usagef("--advertise HOST:PORT is missing: where other nodes will reach the node (its cluster.advertise, or cluster.bind)")
	case !isHostPort(o.Advertise) || strings.HasPrefix(o.Advertise, ":"):
		return usagef("--advertise must be a host:port that other nodes can reach, is %q", o.Advertise)
	}
	if host, _, _ := net.SplitHostPort(o.Advertise); net.ParseIP(host).IsUnspecified() {
		return usagef("--advertise must be an address that other nodes can reach, is %q", o.Advertise)
	}
	var err error
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return err
	}
	return o.parseAt()
}

func (o *restoreOptions) readConfig() error {
	b, err := os.ReadFile(o.Config)
	if err != nil {
		return problem(CodeConfig, err, "the configuration file "+o.Config+" cannot be read", "Name an existing YAML file with --config")
	}
	cfg, err := parseConfig(o.Config, b)
	if err != nil {
		return err
	}
	for _, d := range []struct {
		to   *string
		from string
	}{
		{&o.Bucket, cfg.Object.URL}, {&o.DataDir, cfg.Node.DataDir}, {&o.NodeID, cfg.Node.ID},
		{&o.Cluster, cfg.Cluster.Name}, {&o.Advertise, cfg.Cluster.Advertise},
	} {
		if *d.to == "" {
			*d.to = d.from
		}
	}
	flags := o.object
	if o.object = cfg.Object; flags.EncryptionKeyFile != "" || flags.EncryptionKeyCommand != "" {
		o.object.EncryptionKeyFile, o.object.EncryptionKeyCommand = flags.EncryptionKeyFile, flags.EncryptionKeyCommand
	}
	return nil
}

func (o *restoreOptions) parseAt() error {
	if o.At == "" {
		return nil
	}
	if n, err := strconv.ParseUint(o.At, 10, 64); err == nil && n > 0 {
		o.atIndex = fs.Index(n)
		return nil
	}
	var err error
	if o.atTime, err = time.Parse(time.RFC3339, o.At); err == nil {
		return nil
	}
	if o.atTime, err = time.ParseInLocation(time.DateTime, o.At, time.Local); err == nil {
		return nil
	}
	return usagef("--at must be the number of a log entry or a time such as 2026-11-25T14:30:00Z, is %q", o.At)
}

// next is what the operator does after a restore.
func (o *restoreOptions) next(r *restoreResult) string {
	return fmt.Sprintf(`What to do next:
 1. Start this node. Its configuration needs node.id: %s, node.data_dir: %s, cluster.name: %s,
    cluster.advertise: %s and object.url as it was; cluster.peers and cluster.join are not looked at.
 2. On every other node: empty node.data_dir, take cluster.peers out of the configuration and set
    cluster.join: [%s], then start it. Names of old nodes may be used again.
 3. Keep the old nodes' disks, if there are any, until the site has been looked at.
`, o.NodeID, o.DataDir, r.Name, o.Advertise, o.Advertise)
}
