package cluster

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// TestSettings: one value for the whole cluster, also for a node that shows
// nothing and takes no lease; of all who swap at once, one succeeds; a restart
// keeps it. And what a node says of itself is heard by all.
func TestSettings(t *testing.T) {
	c := &trio{t: t}
	for i, p := range ports(t, 3) {
		c.peers = append(c.peers, Peer{fs.NodeID(fmt.Sprintf("n%d", i+1)), fmt.Sprintf("127.0.0.1:%d", p)})
		c.dirs = append(c.dirs, t.TempDir())
	}
	c.nodes = make([]*running, 3)
	open := func(i int) {
		o := c.options(i)
		o.Witness = i == 2
		o.Note = []byte("i am " + string(o.ID))
		n, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = run(n)
	}
	for i := range c.nodes {
		open(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	ctx := t.Context()
	swap := func(i int, key string, old, now []byte, want bool) {
		t.Helper()
		if got, err := c.nodes[i].SwapSetting(ctx, key, old, now); err != nil || got != want {
			t.Errorf("node %d, %s from %q to %q: %v, %v", i+1, key, old, now, got, err)
		}
	}
	time.Sleep(changeWait + time.Second) // by now a node without a lease refuses changes of the file system
	swap(2, "a/1", nil, []byte("one"), true)
	if v, err := c.nodes[2].Setting("a/1"); err != nil || string(v) != "one" {
		t.Errorf("who has set it reads %q, %v", v, err)
	}
	swap(0, "a/1", nil, []byte("two"), false)
	swap(0, "a/1", []byte("one"), []byte{}, true)
	if v, err := c.nodes[0].Setting("a/1"); err != nil || v == nil || len(v) != 0 {
		t.Errorf("an empty value is read as %#v, %v", v, err)
	}
	swap(1, "a/1", []byte{}, nil, true)
	if v, err := c.nodes[1].Setting("a/1"); err != nil || v != nil {
		t.Errorf("a removed value is read as %q, %v", v, err)
	}
	if _, err := c.nodes[1].SwapSetting(ctx, "", nil, []byte("x")); err == nil {
		t.Error("a setting without a name")
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 9 {
		wg.Go(func() {
			ok, err := c.nodes[i%3].SwapSetting(ctx, "a/2", nil, fmt.Appendf(nil, "by %d", i))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if ok {
				won++
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 9 have won", won)
	}
	swap(0, "b", nil, []byte("x"), true)

	c.stop(2)
	open(2)
	deadline := time.Now().Add(20 * time.Second)
	for {
		keys, err := c.nodes[2].Settings("a/")
		if err == nil && len(keys) == 1 && keys[0] == "a/2" && string(c.nodes[2].Notes()["n1"]) == "i am n1" && string(c.nodes[0].Notes()["n3"]) == "i am n3" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a restart: %q, %v, %q, %q", keys, err, c.nodes[2].Notes(), c.nodes[0].Notes())
		}
		time.Sleep(20 * time.Millisecond)
	}
}
