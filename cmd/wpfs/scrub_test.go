package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestScrubCommand: it starts a pass at the rate, waits for its end, and fails if
// something stays damaged.
func TestScrubCommand(t *testing.T) {
	f := newFakeStack()
	r := startTestAgent(t, f)
	run := func(args ...string) (code Code, out, errs string) {
		var o, e bytes.Buffer
		std := stdio{Out: &o, Err: &e}
		cmd := newScrubCmd(std)
		cmd.SetArgs(append(args, "--socket", r.cfg.Node.Socket))
		cmd.SetOut(&o)
		cmd.SetErr(&e)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		err := cmd.ExecuteContext(t.Context())
		if err != nil {
			e.WriteString(err.Error())
		}
		return codeOf(err), o.String(), e.String()
	}
	now := time.Now()
	f.scrubbed = ScrubStatus{StartedAt: &now, FinishedAt: &now, Chunks: 7, Bytes: 2048, TotalBytes: 4096}
	code, out, errs := run("--rate", "50MiB")
	if code != CodeOK || !strings.Contains(out, "2.0 KiB of 4.0 KiB in 7 chunks") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	f.scrubbed.Damaged, f.scrubbed.Mended = 2, 2
	if code, out, errs := run("--output", "json", "--status"); code != CodeOK || !strings.Contains(out, `"damaged": 2`) {
		t.Errorf("all mended: exit %d: %s%s", code, out, errs)
	}
	f.scrubbed.Mended, f.scrubbed.Names = 1, []string{"abcdef"}
	code, out, errs = run()
	if code != CodeCorrupt || !strings.Contains(out, "abcdef") || !strings.Contains(errs, "1 damaged chunks could not be fetched again") {
		t.Errorf("one not mended: exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := run("--rate", "fast"); code != CodeUsage || !strings.Contains(errs, `"fast"`) {
		t.Errorf("a bad rate: exit %d: %s", code, errs)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := []string{"scrub at 52428800", "scrub at 0"}; !slices.Equal(f.calls, want) {
		t.Errorf("asked for %q, want %q", f.calls, want)
	}
}
