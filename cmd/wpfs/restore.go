package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/cluster"
	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
	"github.com/wpfs/wpfs/fs/object"
)

// restoreResult is what wpfs restore --output json prints.
type restoreResult struct {
	Cluster     string        `json:"cluster"` // the new UUID
	Name        string        `json:"name"`
	Epoch       uint64        `json:"epoch"`
	FromCluster string        `json:"from_cluster"`
	FromEpoch   uint64        `json:"from_epoch"`
	Snapshot    uint64        `json:"snapshot_index"`
	Index       uint64        `json:"index"`   // of the last log entry that was restored
	Written     time.Time     `json:"written"` // when it was put into the bucket
	Segments    int           `json:"segments"`
	Problems    []string      `json:"problems"` // what could not be used
	Missing     []missingFile `json:"missing"`  // files with content that is not in the bucket
	DataDir     string        `json:"data_dir"`
}

type missingFile struct {
	Path         string `json:"path"`
	Size         uint64 `json:"size"`
	MissingBytes uint64 `json:"missing_bytes"`
}

// runRestore makes a new cluster. What can go wrong comes first: until the owner of
// the bucket is changed, nothing is.
func runRestore(ctx context.Context, o restoreOptions, std stdio) error {
	log := slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.object.URL = o.Bucket
	st, breaker, err := openStore(ctx, o.object, log, prometheus.NewRegistry())
	if err != nil {
		return asProblem(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = breaker.Run(ctx) }() // it ends with ctx, and with nothing else
	if err := object.Probe(ctx, st); err != nil {
		return asProblem(err)
	}
	b, err := archive.Open(ctx, st)
	if err != nil {
		return restoreProblem(err)
	}
	if err := checkDead(b, o.TakeOver, time.Now()); err != nil {
		return err
	}
	if o.Cluster == "" {
		o.Cluster = b.Owner.Name
	}
	r, err := restore(ctx, o, st, b, progressTo(std.Err, o.Output))
	if err != nil {
		return restoreProblem(err)
	}
	if err := printRestore(std.Out, o, r); err != nil {
		return err
	}
	if len(r.Missing) > 0 {
		return problem(CodeIncomplete, nil, fmt.Sprintf("the cluster is restored, but %d files have content that is not in the bucket", len(r.Missing)),
			"They are listed above; reading them fails: replace or delete them once the node runs")
	}
	return nil
}

// restoreProblem adds what is particular to a restore.
func restoreProblem(err error) error {
	switch {
	case errors.Is(err, archive.ErrEmpty):
		return problem(CodeObjectStore, err, "there is nothing to restore from", "Is this the object.url of the cluster that was lost, prefix included? Nothing was changed")
	case errors.Is(err, archive.ErrNewer):
		return problem(CodeDataDir, err, "the bucket was written by a newer version of wpfs", "Install that version; nothing was changed")
	case errors.Is(err, archive.ErrDamaged), errors.Is(err, fs.ErrCorrupt):
		return problem(CodeCorrupt, err, "what is in the bucket is damaged", "Nothing was changed")
	case errors.Is(err, object.Changed), errors.Is(err, object.Exists):
		return problem(CodeAlive, err, "the bucket changed hands while it was read", "Another wpfs restore, or the old cluster, is at work: stop it and start again")
	}
	return asProblem(err)
}

// checkDead refuses while the old cluster gives signs of life.
func checkDead(b *archive.Backup, insist bool, now time.Time) error {
	age := now.Sub(b.Alive)
	if insist || age >= archive.AliveFor {
		return nil
	}
	return problem(CodeAlive, nil, fmt.Sprintf("the bucket belongs to cluster %q (%s), whose last sign of life is %s old: it may be running", b.Owner.Name, b.Owner.Cluster, max(age, 0).Round(time.Second)),
		fmt.Sprintf("Stop all its nodes and start again %s after its last sign, or insist with --take-over; nothing was changed", archive.AliveFor))
}

// restore does it and returns what it did.
func restore(ctx context.Context, o restoreOptions, st object.Store, b *archive.Backup, progress func(string, int, int)) (*restoreResult, error) {
	re, err := cluster.NewRebuild(cluster.RebuildOptions{
		DataDir: o.DataDir, ID: fs.NodeID(o.NodeID), Cluster: o.Cluster, Advertise: o.Advertise, UntilIndex: o.atIndex, Until: o.atTime,
	})
	if err != nil {
		return nil, err
	}
	defer re.Close()
	loaded, err := b.Load(ctx, re, archive.LoadOptions{Index: o.atIndex, Time: o.atTime, Progress: progress})
	if err != nil {
		return nil, err
	}
	progress("check", 1, 1)
	// What an earlier restore had lost is found once more below.
	found := slices.DeleteFunc(re.State().Check(), func(p meta.Problem) bool { return p.Lost })
	if len(found) > 0 {
		return nil, fmt.Errorf("the restored metadata breaks %d rules: %v: %w", len(found), found[:min(len(found), 5)], fs.ErrCorrupt)
	}
	in, err := findContent(ctx, st, re.State(), progress)
	if err != nil {
		return nil, err
	}
	files, err := re.State().FilesOf(in.lost)
	if err != nil {
		return nil, err
	}
	r := &restoreResult{
		Cluster: cluster.NewUUID(), Name: o.Cluster, Epoch: b.Owner.Epoch + 1, FromCluster: loaded.Cluster, FromEpoch: loaded.Epoch,
		Snapshot: uint64(loaded.Snapshot), Index: uint64(loaded.Index), Written: loaded.Written, Segments: loaded.Segments,
		Problems: slices.Concat([]string{}, loaded.Problems, in.problems), Missing: []missingFile{}, DataDir: o.DataDir,
	}
	for _, f := range files {
		r.Missing = append(r.Missing, missingFile{f.Path, f.Size, f.Bytes})
	}
	if err := re.Finish(r.Cluster, loaded.Term, in.learned); err != nil {
		return nil, err
	}
	next := archive.Owner{Cluster: r.Cluster, Name: r.Name, Epoch: r.Epoch, Node: o.NodeID, Restored: true, Time: time.Now().UTC()}
	if err := archive.TakeOver(ctx, st, next, b.Version); err != nil {
		return nil, err
	}
	return r, re.Publish()
}

// progressTo prints at most a line each second, for people only.
func progressTo(w io.Writer, output string) func(what string, n, of int) {
	if output == outputJSON {
		return func(string, int, int) {}
	}
	var last time.Time
	return func(what string, n, of int) {
		if time.Since(last) < time.Second && n != of {
			return
		}
		last = time.Now()
		if of == 0 {
			fmt.Fprintf(w, "restore: %s: %d objects\n", what, n)
			return
		}
		fmt.Fprintf(w, "restore: %s: %d of %d\n", what, n, of)
	}
}

func printRestore(w io.Writer, o restoreOptions, r *restoreResult) error {
	if o.Output == outputJSON {
		return writeJSON(w, r)
	}
	fmt.Fprintf(w, "Restored cluster %q as %s, epoch %d, up to log entry %d, which was put into the bucket at %s\n(snapshot at entry %d and %d pieces of the log behind it).\n",
		r.Name, r.Cluster, r.Epoch, r.Index, r.Written.Local().Format(time.DateTime), r.Snapshot, r.Segments)
	for _, p := range r.Problems {
		fmt.Fprintf(w, "Not used: %s\n", p)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "Files with content that is not in the bucket:\n")
		for _, m := range r.Missing {
			fmt.Fprintf(w, "  %s (%s of %s)\n", m.Path, humanBytes(int64(m.MissingBytes)), humanBytes(int64(m.Size)))
		}
	}
	_, err := io.WriteString(w, o.next(r))
	return err
}
