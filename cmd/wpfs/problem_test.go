package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/cluster"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/object"
)

// TestEachFaultHasItsCode: what the parts return, wrapped, becomes the code of
// the table and a sentence that says what to do.
func TestEachFaultHasItsCode(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want Code
		says string
	}{
		"other node":        {cluster.ErrOtherNode, CodeDataDir, "node.data_dir"},
		"newer version":     {cluster.ErrNewerVersion, CodeDataDir, "newer"},
		"in use":            {cluster.ErrInUse, CodeDataDir, "in use"},
		"damaged log":       {cluster.ErrLogCorrupt, CodeCorrupt, "new node.id"},
		"checksum":          {fs.ErrCorrupt, CodeCorrupt, "Keep a copy"},
		"refused to join":   {cluster.ErrJoinRefused, CodeConfig, "cluster.join"},
		"disk full":         {&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, CodeDiskFull, "Free space"},
		"quota":             {syscall.EDQUOT, CodeDiskFull, "Free space"},
		"port":              {syscall.EADDRINUSE, CodePort, "cluster.bind"},
		"address":           {syscall.EADDRNOTAVAIL, CodePort, "cluster.bind"},
		"no device":         {&fuse.MountError{Dir: "/m", Reason: fuse.ErrNoDevice, Advice: "modprobe fuse"}, CodeFuse, "modprobe"},
		"not allowed":       {&fuse.MountError{Dir: "/m", Reason: fuse.ErrNotAllowed, Advice: "run as root"}, CodeFuse, "root"},
		"busy":              {&fuse.MountError{Dir: "/m", Reason: fuse.ErrBusy, Advice: "umount /m"}, CodeMountPoint, "umount"},
		"absent":            {&fuse.MountError{Dir: "/m", Reason: fuse.ErrAbsent, Advice: "mkdir -p /m"}, CodeMountPoint, "mkdir"},
		"bucket away":       {&object.Error{Op: object.OpPut, Kind: object.Unreachable}, CodeObjectStore, "object.url"},
		"no bucket":         {&object.Error{Op: object.OpPut, Kind: object.NoBucket}, CodeObjectStore, "object.url"},
		"credentials":       {&object.Error{Op: object.OpPut, Kind: object.Credentials}, CodeCredentials, "AWS_SECRET_ACCESS_KEY"},
		"bucket full":       {&object.Error{Op: object.OpPut, Kind: object.NoSpace}, CodeDiskFull, "quota"},
		"already a Problem": {problem(CodePort, nil, "a", "b"), CodePort, "a. b"},
		"anything else":     {errors.New("odd"), CodeOther, "odd"},
	} {
		t.Run(name, func(t *testing.T) {
			err := asProblem(fmt.Errorf("open node: %w", row.err))
			if codeOf(err) != row.want || !strings.Contains(err.Error(), row.says) {
				t.Errorf("code %d, want %d, with %q: %v", codeOf(err), row.want, row.says, err)
			}
		})
	}
}

// TestStoreMustWorkOnceThenMayFail: a wrong address stops the first start; later
// starts only say so, for the cluster outlives an outage of its bucket.
func TestStoreMustWorkOnceThenMayFail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	st, _, err := openStore(t.Context(), ObjectConfig{URL: "file://" + dir}, logger, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proveStore(t.Context(), st, true, logger); err != nil {
		t.Fatalf("a store that works: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := proveStore(t.Context(), st, true, logger); codeOf(asProblem(err)) != CodeObjectStore {
		t.Errorf("first start: %v", err)
	}
	if _, err := proveStore(t.Context(), st, false, logger); err != nil || !strings.Contains(log.String(), "does not work") {
		t.Errorf("later start: %v, log %q", err, &log)
	}
}

func TestFuseDevice(t *testing.T) {
	if err := checkFuse("/dev/no-such-fuse"); codeOf(err) != CodeFuse || !strings.Contains(err.Error(), "modprobe fuse") {
		t.Errorf("absent: %v", err)
	}
	if err := checkFuse("/dev/null"); err != nil {
		t.Errorf("a device that can be opened: %v", err)
	}
	if os.Geteuid() == 0 {
		return // root may open everything; the integration tests run as nobody
	}
	path := filepath.Join(t.TempDir(), "fuse")
	write(t, path, "")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := checkFuse(path); codeOf(err) != CodeFuse || !strings.Contains(err.Error(), "as root") {
		t.Errorf("forbidden: %v", err)
	}
}
