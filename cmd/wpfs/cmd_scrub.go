package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// scrubPoll is the time between two looks at how far a scrub has come.
const scrubPoll = 500 * time.Millisecond

// scrubRequest is the body of POST /v1/scrub.
type scrubRequest struct {
	BytesPerSecond int64 `json:"bytes_per_second"` // 0: no bound
}

// scrubOptions are the flags of wpfs scrub.
type scrubOptions struct {
	agentOptions
	Rate   string
	Follow bool
}

func newScrubCmd(std stdio) *cobra.Command {
	var o scrubOptions
	c := &cobra.Command{
		Use:     "scrub",
		Short:   "Read all content on this machine's disk again and compare it with its checksums",
		Long:    "Reads every file of the cache from the disk and compares it with its checksum. A damaged one is moved to\ncache.dir/quarantine and fetched again from another node or the object store. The agent does this by itself\nall the time, slowly (cache.scrub_rate); this begins a pass now. The exit code is 10 if something is damaged\nand could not be fetched again. Ctrl-C ends the waiting, not the pass.",
		GroupID: "see",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runScrub(c.Context(), o, std) },
	}
	o.AddFlags(c)
	c.Flags().StringVar(&o.Rate, "rate", "0", "most bytes to read per second, as 50MiB; 0: no bound")
	c.Flags().BoolVar(&o.Follow, "status", false, "begin nothing: show the pass that goes on, or how the last one went")
	return c
}

func runScrub(ctx context.Context, o scrubOptions, std stdio) error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	var rate Bytes
	if err := rate.UnmarshalText([]byte(o.Rate)); err != nil || rate < 0 {
		return usagef("--rate: %q is not a size such as 50MiB", o.Rate)
	}
	var st ScrubStatus
	if o.Follow {
		if err := o.get(ctx, "/v1/scrub", &st); err != nil {
			return err
		}
		return reportScrub(o, std, st)
	}
	if err := (adminClient{o.Socket}).call(ctx, http.MethodPost, "/v1/scrub", scrubRequest{int64(rate)}, &st); err != nil {
		return err
	}
	began := st.StartedAt
	for st.Running {
		select {
		case <-time.After(scrubPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := o.get(ctx, "/v1/scrub", &st); err != nil {
			return err
		}
		if began != nil && st.StartedAt != nil && !st.StartedAt.Equal(*began) {
			return problem(CodeOther, nil, "another pass has been started since", "wpfs scrub --status shows it")
		}
		if o.Output != outputJSON {
			fmt.Fprintf(std.Err, "\r%s of %s read, %d damaged ", humanBytes(st.Bytes), humanBytes(st.TotalBytes), st.Damaged)
		}
	}
	if o.Output != outputJSON {
		fmt.Fprintln(std.Err)
	}
	return reportScrub(o, std, st)
}

// reportScrub prints the result. Damage that was not mended is an error.
func reportScrub(o scrubOptions, std stdio, st ScrubStatus) error {
	if o.Output == outputJSON {
		if err := writeJSON(std.Out, st); err != nil {
			return err
		}
	} else if err := columns(std.Out, scrubRows(st)); err != nil {
		return err
	}
	if lost := st.Damaged - st.Mended; lost > 0 {
		return problem(CodeCorrupt, nil, fmt.Sprintf("%d damaged chunks could not be fetched again", lost),
			"They are in quarantine below cache.dir. See in the agent's log why, and try again when the other nodes and the object store can be reached")
	}
	return nil
}

func scrubRows(st ScrubStatus) [][]string {
	state := "never finished yet"
	switch {
	case st.Running:
		state = "running"
	case st.FinishedAt != nil:
		state = "finished " + st.FinishedAt.Format(time.DateTime) + " UTC"
	}
	rows := [][]string{
		{"scrub", state},
		{"read", fmt.Sprintf("%s of %s in %d chunks", humanBytes(st.Bytes), humanBytes(st.TotalBytes), st.Chunks)},
		{"damaged", strconv.FormatInt(st.Damaged, 10)},
		{"mended", strconv.FormatInt(st.Mended, 10)},
		{"unread", strconv.FormatInt(st.Unread, 10)},
	}
	for _, n := range st.Names {
		rows = append(rows, []string{"", n})
	}
	return rows
}
