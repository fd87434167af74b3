package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/bulk"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/retry"
	"github.com/wpfs/wpfs/fs/object/s3"
)

// bulkOptions are the flags of import and export.
type bulkOptions struct {
	agentOptions
	run      bulk.Options
	verify   string
	xattrs   bool
	owner    string
	progress string
}

const bulkLong = `
Only what is missing or different is copied: other size or modification time, or other
content with --checksum. A file gets its name when it is whole, so after an interruption
of any kind the same command goes on where it ended, and removes what was unfinished.
Modes, owners (as root), times, hard and symbolic links, extended attributes, holes,
fifos, sockets and devices are kept. In the end the copy is compared with the source.

An S3 URL is s3://BUCKET/PREFIX?endpoint=URL&region=R, with the credentials of the
environment or a shared credentials file, like object.url. Its objects are ordinary
ones, one for a file, as "s3cmd sync" or "aws s3 sync" leave them; s3cmd's attributes
(mode, owner, time) are read, and written so that it takes them back.

Patterns: * and ? in one name, ** for any number of directories, {a,b}. One with a slash
is about the path below the root, another about the name anywhere. --include beats
--exclude, but nothing is looked for in an excluded directory. What is excluded is not
deleted either.`

func newImportCmd(std stdio) *cobra.Command {
	var o bulkOptions
	c := &cobra.Command{
		Use:   "import SRC [DST]",
		Short: "Copy a directory or an S3 prefix of plain objects in",
		Long: `Copies what is in SRC, a directory or an S3 URL, into the directory DST. Without DST that
is the mount of this machine's agent.` + "\n" + bulkLong,
		Example: "  wpfs import /var/www/html/wp-content /srv/www\n" +
			"  wpfs import 's3://old-uploads/site?region=eu-central-1' /srv/www/uploads --owner www-data:www-data",
		GroupID: "move",
		Args:    between(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			to := ""
			if len(args) > 1 {
				to = args[1]
			} else {
				var st Status
				if err := o.get(c.Context(), "/v1/status", &st); err != nil {
					return err
				}
				if to = st.Mount.Path; to == "" {
					return usagef("the agent of this machine has no mount: say where to copy to, wpfs import SRC DST")
				}
			}
			if strings.Contains(to, "://") {
				return usagef("wpfs import copies into a directory, not to %s: wpfs export copies to S3", to)
			}
			return runBulk(c.Context(), "import", o, args[0], to, std)
		},
	}
	o.AddFlags(c)
	return c
}

func newExportCmd(std stdio) *cobra.Command {
	var o bulkOptions
	c := &cobra.Command{
		Use:   "export SRC DST",
		Short: "Copy a directory out to another one or to plain objects in S3",
		Long:  "Copies what is in the directory SRC into DST, a directory or an S3 URL.\n" + bulkLong,
		Example: "  wpfs export /srv/www /backup/wp-content --delete\n" +
			"  wpfs export /srv/www/uploads 's3://cdn/uploads?region=eu-central-1' --cache-control 'public, max-age=31536000'",
		GroupID: "move",
		Args:    exactly(2),
		RunE: func(c *cobra.Command, args []string) error {
			if strings.Contains(args[0], "://") {
				return usagef("wpfs export copies from a directory, not from %s: wpfs import copies from S3", args[0])
			}
			return runBulk(c.Context(), "export", o, args[0], args[1], std)
		},
	}
	o.AddFlags(c)
	c.Flags().StringVar(&o.run.CacheControl, "cache-control", "", "Cache-Control header of the objects")
	return c
}

// AddFlags adds the flags that both commands have.
func (o *bulkOptions) AddFlags(c *cobra.Command) {
	o.agentOptions.AddFlags(c)
	f := c.Flags()
	f.IntVar(&o.run.Workers, "workers", bulk.WorkersDefault, "files that are copied at the same time")
	f.BoolVar(&o.run.Checksum, "checksum", false, "compare the content of files of the same size, not their times")
	f.BoolVar(&o.run.Delete, "delete", false, "remove at the destination what the source does not have")
	f.StringArrayVar(&o.run.Exclude, "exclude", nil, "leave out what matches this pattern (may be repeated)")
	f.StringArrayVar(&o.run.Include, "include", nil, "copy what matches this pattern although it is excluded (may be repeated)")
	f.BoolVarP(&o.run.DryRun, "dry-run", "n", false, "only say what would be done")
	f.StringVar(&o.verify, "verify", string(bulk.VerifyContent), "in the end: none, size (names and attributes), or content (also what was copied)")
	f.BoolVar(&o.xattrs, "xattrs", true, "keep extended attributes")
	f.StringVar(&o.owner, "owner", "", "USER:GROUP that everything is to belong to, names or numbers; default: who it belongs to at the source")
	f.StringVar(&o.progress, "progress", progressAuto, "bar, lines, none, or auto: a bar on a terminal, else lines")
}

// between is exactly for commands with arguments that may be left out.
func between(min, max int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= min && len(args) <= max {
			return nil
		}
		return usagef("%s takes %d to %d arguments, not %d: %s", c.CommandPath(), min, max, len(args), c.UseLine())
	}
}

// resolve turns the flags into options.
func (o *bulkOptions) resolve() error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	if err := checkProgress(o.progress); err != nil {
		return err
	}
	if o.run.Workers < 1 || o.run.Workers > 1024 {
		return usagef("--workers must be 1 to 1024, is %d", o.run.Workers)
	}
	o.run.Verify, o.run.NoXattrs = bulk.Verify(o.verify), !o.xattrs
	if o.owner == "" {
		return nil
	}
	owner, err := parseOwner(o.owner)
	if err != nil {
		return usagef("--owner %s: %v", o.owner, err)
	}
	if unix.Geteuid() != 0 {
		return usagef("--owner needs root: only root may give files away")
	}
	o.run.Owner = &owner
	return nil
}

func parseOwner(s string) (bulk.Owner, error) {
	name, group, ok := strings.Cut(s, ":")
	if !ok || name == "" || group == "" {
		return bulk.Owner{}, errors.New("want USER:GROUP")
	}
	uid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		u, err := user.Lookup(name)
		if err != nil {
			return bulk.Owner{}, err
		}
		uid, _ = strconv.ParseUint(u.Uid, 10, 32)
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		g, err := user.LookupGroup(group)
		if err != nil {
			return bulk.Owner{}, err
		}
		gid, _ = strconv.ParseUint(g.Gid, 10, 32)
	}
	return bulk.Owner{UID: uint32(uid), GID: uint32(gid)}, nil
}

// openPlace reads SRC or DST.
func openPlace(ctx context.Context, raw string, log *slog.Logger) (bulk.Place, error) {
	if !strings.Contains(raw, "://") {
		return bulk.Place{Dir: raw}, nil
	}
	if !strings.HasPrefix(raw, "s3://") {
		return bulk.Place{}, usagef("%s: want a directory or s3://BUCKET/PREFIX?endpoint=URL&region=R", raw)
	}
	rest, virtual, err := pathStyle(raw)
	if err != nil {
		return bulk.Place{}, usagef("%s: %v", raw, err)
	}
	so, prefix, err := s3.ParsePlainURL(rest)
	if err != nil {
		return bulk.Place{}, usagef("%s: %v", raw, err)
	}
	so.VirtualHost = so.VirtualHost || virtual
	p, err := s3.NewPlain(ctx, so, prefix)
	if err != nil {
		return bulk.Place{}, usagef("%s: %v", raw, err)
	}
	onRetry := func(op object.Op, key string, attempt int, err error) {
		log.Warn("object store: trying again", "op", op, "key", key, "attempt", attempt, "err", err)
	}
	return bulk.Place{Objs: retry.NewPlain(p, retry.Options{OnRetry: onRetry}), Name: p.Name()}, nil
}

func runBulk(ctx context.Context, verb string, o bulkOptions, from, to string, std stdio) error {
	if err := o.resolve(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(std.Err, nil))
	var err error
	if o.run.From, err = openPlace(ctx, from, log); err != nil {
		return err
	}
	if o.run.To, err = openPlace(ctx, to, log); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer unix.Umask(unix.Umask(0)) // modes are the source's
	if o.run.DryRun && o.Output == outputText {
		o.run.OnAction = func(verb, path string) { fmt.Fprintln(std.Out, verb, bulk.Shown(path)) }
	}
	show := newProgress(o.progress, verb, std.Err)
	rep, err := bulk.Run(ctx, o.run, show.Progress())
	show.End()
	if rep != nil {
		if perr := printBulk(o, rep, std); perr != nil {
			return perr
		}
	}
	if err != nil {
		return bulkProblem(err)
	}
	return bulkVerdict(rep)
}
