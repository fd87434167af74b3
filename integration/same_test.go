package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// diffsShown bounds what a failed comparison prints.
const diffsShown = 20

// scan reads the tree rel of one node.
func scan(t testing.TB, n *testcluster.Node, p *probe.Client, rel string) []tree.Entry {
	t.Helper()
	r := p.Call(probe.Scan(filepath.Join(n.Mount, rel)))
	es, err := r.Entries()
	if err != nil {
		t.Fatalf("%s: %v", n.ID, err)
	}
	return es
}

// sameTrees fails the test unless all nodes show the same tree at rel, inode
// numbers and contents included, and returns it.
func sameTrees(t testing.TB, c *testcluster.Cluster, ps []*probe.Client, rel string) []tree.Entry {
	t.Helper()
	first := scan(t, c.Nodes[0], ps[0], rel)
	for i, n := range c.Nodes[1:] {
		equal(t, n.ID+" against "+c.Nodes[0].ID, first, scan(t, n, ps[i+1], rel), tree.Views)
	}
	return first
}

func equal(t testing.TB, what string, want, got []tree.Entry, how tree.How) {
	t.Helper()
	if ds := tree.Diff(want, got, how, diffsShown); len(ds) > 0 {
		t.Errorf("%s: the trees differ:\n%s", what, strings.Join(ds, "\n"))
	}
}
