package cluster

import (
	"sync"

	"github.com/hashicorp/raft"

	"github.com/wpfs/wpfs/fs"
)

// confLog knows the configurations in this node's log and where each stands,
// which raft's own API does not tell (ConfigurationFuture.Index is 0 in v1.8.0).
// It sees every entry that is stored, read or cut.
type confLog struct {
	changed func() // called after each change, without the lock; must not block

	mu   sync.Mutex
	list []configuration // by index, ascending
	snap configuration   // of the newest snapshot; index 0: none
}

type configuration struct {
	index   fs.Index
	servers []raft.Server
}

// saw notes the configuration at index.
func (c *confLog) saw(index uint64, conf raft.Configuration) {
	c.mu.Lock()
	if n := len(c.list); n > 0 && c.list[n-1].index >= fs.Index(index) {
		c.mu.Unlock()
		return
	}
	c.list = append(c.list, configuration{fs.Index(index), conf.Clone().Servers})
	c.mu.Unlock()
	c.changed()
}

// sawSnapshot notes the configuration that a snapshot carries.
func (c *confLog) sawSnapshot(index uint64, conf raft.Configuration) {
	c.mu.Lock()
	c.snap = configuration{fs.Index(index), conf.Clone().Servers}
	c.mu.Unlock()
	c.saw(index, conf)
}

// emptied tells that the whole log went, because a snapshot took its place:
// what counts is the snapshot's configuration.
func (c *confLog) emptied() {
	c.mu.Lock()
	c.list = nil
	if c.snap.index > 0 {
		c.list = []configuration{c.snap}
	}
	c.mu.Unlock()
	c.changed()
}

// sawEntry notes l if it is a configuration.
func (c *confLog) sawEntry(l *raft.Log) {
	if l.Type == raft.LogConfiguration {
		c.saw(l.Index, raft.DecodeConfiguration(l.Data))
	}
}

// cut forgets configurations from index on: their entries were never committed.
func (c *confLog) cut(from uint64) {
	c.mu.Lock()
	n := len(c.list)
	for n > 0 && c.list[n-1].index >= fs.Index(from) {
		n--
	}
	same := n == len(c.list)
	c.list = c.list[:n]
	c.mu.Unlock()
	if !same {
		c.changed()
	}
}

// latest is the last configuration in the log, committed or not, and its index.
func (c *confLog) latest() (configuration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return configuration{}, false
	}
	return c.list[len(c.list)-1], true
}
