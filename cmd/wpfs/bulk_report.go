package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/bulk"
	"github.com/wpfs/wpfs/fs/object"
)

// printBulk prints what was done: a summary on standard output, and what is
// wrong, path by path, on standard error. With --output json it is one object.
func printBulk(o bulkOptions, rep *bulk.Report, std stdio) error {
	if o.Output == outputJSON {
		return writeJSON(std.Out, struct {
			*bulk.Report
			DryRun bool    `json:"dry_run"`
			TookS  float64 `json:"took_s"`
		}{rep, o.run.DryRun, rep.Took.Seconds()})
	}
	listFindings(std.Err, "not copied", rep.Failed, rep.FailedCount)
	listFindings(std.Err, "different", rep.Differs, rep.DiffCount)
	if rep.KeptBack {
		fmt.Fprintln(std.Err, "nothing was deleted in directories that could not be listed at the source")
	}
	return columns(std.Out, bulkRows(o, rep))
}

func bulkRows(o bulkOptions, rep *bulk.Report) [][]string {
	s := max(rep.Took.Seconds(), 0.001)
	copied := fmt.Sprintf("%d files, %s", rep.Copied, humanBytes(rep.CopiedBytes))
	if !o.run.DryRun {
		copied += fmt.Sprintf(" in %.1f s (%s/s, %.0f files/s)", s, humanBytes(int64(float64(rep.CopiedBytes)/s)), float64(rep.Copied)/s)
	}
	rows := [][]string{{"copied", copied}}
	for _, r := range []struct {
		what string
		n    int64
		unit string
	}{
		{"same", rep.Same, "were there already"},
		{"updated", rep.Updated, "got other attributes only"},
		{"linked", rep.Linked, "are further names of a file"},
		{"made", rep.Directories, "directories"},
		{"deleted", rep.Deleted, "that the source does not have"},
		{"leftovers", rep.Leftovers, "of an interrupted run, removed"},
		{"verified", rep.Verified, "(--verify=" + string(o.run.Verify) + ")"},
		{"not copied", rep.FailedCount, "listed above"},
		{"different", rep.DiffCount, "listed above"},
	} {
		if r.n > 0 {
			rows = append(rows, []string{r.what, strconv.FormatInt(r.n, 10) + " " + r.unit})
		}
	}
	return rows
}

func listFindings(w io.Writer, what string, fs []bulk.Finding, n int64) {
	for _, f := range fs {
		fmt.Fprintf(w, "%s: %s: %s\n", what, bulk.Shown(f.Path), f.What)
	}
	if more := n - int64(len(fs)); more > 0 {
		fmt.Fprintf(w, "%s: %d more, in a directory that is listed or of the same kind\n", what, more)
	}
}

// bulkVerdict is the exit code of a run that came to its end.
func bulkVerdict(rep *bulk.Report) error {
	switch {
	case rep.FailedCount > 0:
		return problem(CodePartial, nil, fmt.Sprintf("what could not be copied: %d of the entries", rep.FailedCount),
			"Each is listed with its reason; when that is set right, the same command copies what is missing")
	case rep.DiffCount > 0:
		return problem(CodeDiffers, nil, fmt.Sprintf("what is not the same at the destination: %d of the entries", rep.DiffCount),
			"Each is listed. If nothing else writes to either side, run the same command again with --checksum")
	}
	return nil
}

const bulkGoesOn = "What was copied is whole; the same command goes on from here"

// bulkProblem is for what ended a run.
func bulkProblem(err error) error {
	var usage *bulk.UsageError
	var oe *object.Error
	switch {
	case errors.As(err, &usage):
		return usagef("%v", usage)
	case errors.Is(err, bulk.ErrBusy):
		return problem(CodeBusy, nil, err.Error(), "Wait for it")
	case errors.Is(err, context.Canceled):
		return problem(CodeOther, nil, "interrupted", bulkGoesOn)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return problem(CodeDiskFull, err, "the destination is full", "Free space there. "+bulkGoesOn)
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ESHUTDOWN):
		return problem(CodeMountPoint, err, "the mount went away", "Start its agent again (wpfs agent). "+bulkGoesOn)
	case errors.Is(err, unix.EROFS):
		return problem(CodeOther, err, "the destination cannot be written to", "If it is a mount of wpfs, see wpfs status: the node may have lost its lease. "+bulkGoesOn)
	case errors.As(err, &oe):
		code := CodeObjectStore
		switch oe.Kind {
		case object.Credentials, object.ClockSkew:
			code = CodeCredentials
		case object.NoSpace:
			code = CodeDiskFull
		}
		return &Problem{Code: code, What: object.Advice(err) + " " + bulkGoesOn}
	}
	return err
}
