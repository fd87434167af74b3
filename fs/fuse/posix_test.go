package fuse_test

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// posixSkips are the tests that are left out, with the reason.
var posixSkips = map[string]string{
	"FcntlFlockLocksFile": "it wants a process to be refused by its own POSIX lock, which no file system does; go-fuse's own run leaves it out too",
}

// TestPosix runs go-fuse's conformance tests.
func TestPosix(t *testing.T) {
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if reason := posixSkips[name]; reason != "" {
				t.Skip(reason)
			}
			m := newSite(t).node(t)
			test(t, m.dir)
		})
	}
}
