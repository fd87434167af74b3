package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

const damagedFiles = 60 // made on the cluster whose log is damaged

// TestDamagedLog damages the log of one voter in ways that disks and power
// losses do. A torn tail that nobody was promised anything about is cut; a loss
// of what had been stored is found out before the node may vote, and the other
// nodes go on.
func TestDamagedLog(t *testing.T) {
	cases := []struct {
		name   string
		starts bool
		damage func(t *testing.T, log string, b []byte) []byte
	}{
		{"garbage after the last record", true, func(_ *testing.T, _ string, b []byte) []byte {
			end := contentEnd(b) + 64
			copy(b[end:], bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 64))
			return b
		}},
		{"last record torn", false, func(_ *testing.T, _ string, b []byte) []byte {
			clear(b[contentEnd(b)-40:])
			return b
		}},
		{"bits in the middle flipped", false, func(_ *testing.T, _ string, b []byte) []byte {
			// More than one byte: records are padded, and a flipped bit in the
			// padding is no damage.
			for i := range 32 {
				b[contentEnd(b)/2+i] ^= 0x40
			}
			return b
		}},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			c, ps := start(t, testcluster.Config{})
			must(t, ps[0], probe.Mkdir(filepath.Join(c.Nodes[0].Mount, "d")))
			for i := range damagedFiles {
				must(t, ps[0], probe.WriteFile(filepath.Join(c.Nodes[0].Mount, "d", fmt.Sprint(i)), fmt.Appendf(nil, "file %d", i)))
			}
			want := sameTrees(t, c, ps, "d")
			leader, err := c.Leader()
			if err != nil {
				t.Fatal(err)
			}
			victim := (slices.Index(c.Nodes, leader) + 1) % len(c.Nodes)
			n := c.Nodes[victim]
			if err := n.Kill(); err != nil {
				t.Fatal(err)
			}
			damageLog(t, n, k.damage)
			if k.starts {
				if err := n.Start(); err != nil {
					t.Fatal(err)
				}
			} else {
				refused(t, c.Command("agent", "--config", n.ConfigFile()), exitCorrupt, "log")
			}
			// Whatever became of the node, the others go on and have everything.
			other := (victim + 1) % len(c.Nodes)
			must(t, ps[other], probe.WriteFile(filepath.Join(c.Nodes[other].Mount, "after"), []byte("after")))
			for i := range c.Nodes {
				if i != victim || k.starts {
					equal(t, c.Nodes[i].ID, want, scan(t, c.Nodes[i], ps[i], "d"), tree.Views)
				}
			}
		})
	}
}

// damageLog changes the segment of the node's raft log that was written last.
func damageLog(t *testing.T, n *testcluster.Node, damage func(t *testing.T, log string, b []byte) []byte) {
	t.Helper()
	var logs []string
	err := filepath.WalkDir(n.Data(), func(path string, d os.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".wal" {
			logs = append(logs, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) == 0 {
		t.Fatalf("%s: no log segment below %s", n.ID, n.Data())
	}
	slices.Sort(logs)
	log := logs[len(logs)-1]
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if contentEnd(b) < 4096 {
		t.Fatalf("%s has only %d bytes of records", log, contentEnd(b))
	}
	if err := os.WriteFile(log, damage(t, log, b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contentEnd is where the zeros of a preallocated segment begin.
func contentEnd(b []byte) int { return len(bytes.TrimRight(b, "\x00")) }
