package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// posixSkips are the tests of go-fuse's suite that cannot pass, each with the
// reason.
var posixSkips = map[string]string{
	"FcntlFlockLocksFile": "it wants two POSIX locks of one process to conflict, which fcntl(2) rules out; ext4 fails it too",
}

// TestPosixOnACluster runs go-fuse's suite on one mount of a cluster of three,
// and then asks the others whether they see the same remains.
func TestPosixOnACluster(t *testing.T) {
	c, ps := start(t, testcluster.Config{})
	var names []string
	for name := range posixtest.All {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if why := posixSkips[name]; why != "" {
				t.Skip(why)
			}
			dir := filepath.Join(c.Nodes[0].Mount, strings.ToLower(name))
			must(t, ps[0], probe.Mkdir(dir))
			posixtest.All[name](t, dir)
		})
	}
	sameTrees(t, c, ps, ".")
}
