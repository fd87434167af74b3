package sim

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// kernel models what one mount's kernel keeps of each key. It answers without
// the daemon, also when the daemon is frozen or dead, until the timeout that
// was handed out has passed. Like the real one it does not keep a reply to a
// request that began before the key was invalidated or everything was dropped.
type kernel struct {
	entries []cached
}

type cached struct {
	value   fs.Index
	expires time.Duration // on the machine's own clock, that no step touches
	version uint64        // grows with each invalidation
}

func newKernel(keys int) *kernel { return &kernel{entries: make([]cached, keys)} }

// read answers from the cache.
func (k *kernel) read(key int, jiffies time.Duration) (fs.Index, bool) {
	e := k.entries[key]
	return e.value, jiffies < e.expires
}

// keep takes a reply to a request that began at version.
func (k *kernel) keep(key int, value fs.Index, version uint64, expires time.Duration) bool {
	e := &k.entries[key]
	if e.version != version {
		return false
	}
	e.value, e.expires = value, expires
	return true
}

func (k *kernel) invalidate(key int) {
	e := &k.entries[key]
	e.expires = 0
	e.version++
}

func (k *kernel) dropAll() {
	for i := range k.entries {
		k.invalidate(i)
	}
}

// idle reports whether nothing can be answered any more.
func (k *kernel) idle(jiffies time.Duration) bool {
	for _, e := range k.entries {
		if jiffies < e.expires {
			return false
		}
	}
	return true
}
