package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/bulk"
	"github.com/wpfs/wpfs/fs/object"
)

func TestProgressLine(t *testing.T) {
	for _, row := range []struct {
		s    bulk.Snapshot
		want string
	}{
		{bulk.Snapshot{Files: 1, Bytes: 1 << 20, AllFiles: 3, AllBytes: 3 << 20, Counted: true}, "import: 1/3 files, 1.0 MiB of 3.0 MiB, 512.0 KiB/s, 4s left"},
		{bulk.Snapshot{Files: 1, Bytes: 1 << 20, AllFiles: 2, AllBytes: 2 << 20}, "import: 1/2+ files, 1.0 MiB of 2.0 MiB, 512.0 KiB/s"},
		{bulk.Snapshot{Files: 5, Bytes: 10, AllFiles: 2, AllBytes: 4, Counted: true}, "import: 5/5 files, 10 B of 10 B, 5 B/s"},
	} {
		if got := progressLine("import", row.s, 2*time.Second); got != row.want {
			t.Errorf("%+v: %q, want %q", row.s, got, row.want)
		}
	}
}

// TestProgressBar: it moves while there is something to do, and leaves the
// terminal as it was.
func TestProgressBar(t *testing.T) {
	var b bytes.Buffer
	v := newProgress(progressBar, "import", &b)
	time.Sleep(3 * barEvery) // of the real clock: the bar has no other
	v.End()
	if out := b.String(); !strings.Contains(out, "import 0/0+ files") {
		t.Errorf("the bar showed %q", out)
	}
	if v := newProgress(progressNone, "import", &b); v.Progress() != nil {
		t.Error("without a view there is something to count for")
	} else {
		v.End()
	}
}

func TestBulkProblems(t *testing.T) {
	for _, row := range []struct {
		err  error
		code Code
		says string
	}{
		{unix.ENOSPC, CodeDiskFull, "destination is full"},
		{unix.ENOTCONN, CodeMountPoint, "mount went away"},
		{unix.EROFS, CodeOther, "cannot be written"},
		{bulk.ErrBusy, CodeBusy, "running"},
		{&object.Error{Op: object.OpPut, Kind: object.Unreachable}, CodeObjectStore, "goes on from here"},
		{&object.Error{Op: object.OpPut, Kind: object.Credentials}, CodeCredentials, "access key"},
		{&object.Error{Op: object.OpPut, Kind: object.NoSpace}, CodeDiskFull, "quota"},
		{&bulk.UsageError{Err: unix.EINVAL}, CodeUsage, "invalid"},
	} {
		err := bulkProblem(row.err)
		if codeOf(err) != row.code || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%v: code %d, %q", row.err, codeOf(err), err)
		}
	}
	for _, row := range []struct {
		rep  bulk.Report
		code Code
	}{{bulk.Report{}, CodeOK}, {bulk.Report{DiffCount: 1}, CodeDiffers}, {bulk.Report{DiffCount: 1, FailedCount: 1}, CodePartial}} {
		if got := codeOf(bulkVerdict(&row.rep)); got != row.code {
			t.Errorf("%+v: code %d, want %d", row.rep, got, row.code)
		}
	}
}
