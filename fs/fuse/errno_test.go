package fuse

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wpfs/wpfs/fs"
)

// TestErrnos: every kind that has a text has an errno, and only OK has none.
func TestErrnos(t *testing.T) {
	for k := range fs.Kind(255) {
		named := !strings.HasPrefix(k.Error(), "error kind")
		n, ok := errnos[k]
		if named != ok || ok && (n == 0) != (k == fs.OK) {
			t.Errorf("kind %d (%v) has errno %d", k, k, n)
		}
	}
	for _, tt := range []struct {
		err  error
		want syscall.Errno
	}{
		{&fs.Error{Op: "lookup", Kind: fs.ErrNotFound}, syscall.ENOENT},
		{fmt.Errorf("wrapped: %w", fs.ErrExist), syscall.EEXIST},
		{errors.New("no kind"), syscall.EIO},
		{fs.Kind(200), syscall.EIO},
	} {
		if got := errno(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestFaultsAreLogged: once per pause, with what was left out.
func TestFaultsAreLogged(t *testing.T) {
	var log strings.Builder
	f := &faults{log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		if got := f.status(errors.New("broken")); got != gofuse.EIO {
			t.Errorf("status %v", got)
		}
	}
	f.status(fs.ErrNotFound)
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "no kind") {
		t.Errorf("logged %d lines: %s", n, &log)
	}
	f.next.Store(0)
	f.status(&fs.Error{Op: "read", Kind: fs.ErrCorrupt})
	if !strings.Contains(log.String(), "suppressed=2") {
		t.Errorf("the second line does not tell what was left out: %s", &log)
	}
}

func TestFindMount(t *testing.T) {
	const list = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:45 / /mnt/a\040b rw - fuse.wpfs wpfs rw,user_id=0
24 22 0:46 / /mnt/x rw master:1 shared:2 - tmpfs no\134ne rw
25 24 0:47 / /mnt/x rw - fuse.wpfs wpfs rw
short line
`
	for _, tt := range []struct {
		dir  string
		want mounted
		ok   bool
	}{
		{"/mnt/a b", mounted{"/mnt/a b", "fuse.wpfs", "wpfs", 45}, true},
		{"/mnt/x", mounted{"/mnt/x", "fuse.wpfs", "wpfs", 47}, true},
		{"/mnt", mounted{}, false},
	} {
		if got, ok, err := findMount(strings.NewReader(list), tt.dir); got != tt.want || ok != tt.ok || err != nil {
			t.Errorf("%s: %+v, %t, %v", tt.dir, got, ok, err)
		}
	}
	top := strings.NewReader(list[:strings.Index(list, "25 24")])
	if got, _, _ := findMount(top, "/mnt/x"); got.source != `no\ne` {
		t.Errorf("source %q", got.source)
	}
}
