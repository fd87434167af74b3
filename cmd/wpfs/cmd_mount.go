package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// fstabWords are options of fstab(5) and mount(8) that speak to others than us.
var fstabWords = []string{"defaults", "rw", "auto", "noauto", "user", "nouser", "users", "_netdev", "nofail", "suid", "dev", "exec", "async", "relatime", "noatime"}

func newMountCmd(std stdio) *cobra.Command {
	var opts []string
	c := &cobra.Command{
		Use:   "mount MOUNTPOINT [-o OPTION,…]",
		Short: "Run the agent with the file system mounted at MOUNTPOINT",
		Long: `The same as wpfs agent --config FILE --mount-path MOUNTPOINT, in the form that mount(8) uses.
Options, separated by commas: config=FILE, any key of the configuration as key=value
(node.id=web1, object.url=…), and the words of fstab that mean nothing here (rw, noauto,
_netdev, x-…). It stays in the foreground.`,
		Example: "  wpfs mount /srv/www -o config=/etc/wpfs/wpfs.yaml,node.id=web1",
		GroupID: "run",
		Args:    exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			extra, err := mountOptions(opts)
			if err != nil {
				return err
			}
			if file, ok := extra["config"]; ok {
				delete(extra, "config")
				if err := c.Flags().Set("config", file); err != nil {
					return err
				}
			}
			extra["mount.path"] = path
			return startAgent(c, extra, std)
		},
	}
	c.Flags().StringArrayVarP(&opts, "options", "o", nil, "options as of mount(8), separated by commas")
	configFlags(c.Flags())
	return c
}

// mountOptions splits -o values into keys and values. A comma inside a value is
// written twice.
func mountOptions(opts []string) (map[string]string, error) {
	valid := append(keyNames(), "config")
	out := map[string]string{}
	for _, list := range opts {
		const comma = "\x00"
		for o := range strings.SplitSeq(strings.ReplaceAll(list, ",,", comma), ",") {
			o = strings.ReplaceAll(o, comma, ",")
			key, val, has := strings.Cut(o, "=")
			switch {
			case o == "" || slices.Contains(fstabWords, o) || strings.HasPrefix(o, "x-"):
			case o == "ro":
				return nil, usagef("the option ro is not known to this version: mount read-write and bind-mount it read-only (mount -o bind,ro)")
			case !has && slices.Contains(valid, key):
				return nil, usagef("the option %s needs a value: %s=…", key, key)
			case !slices.Contains(valid, key):
				return nil, usagef("there is no option %q%s", key, suggestion(key, append(valid, fstabWords...)))
			default:
				out[key] = val
			}
		}
	}
	return out, nil
}
