package kcache

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// The kinds of notifications.
const (
	kindAttr = iota // attributes
	kindData        // pages or a listing
	kindName
	kindEpoch
	kindPrune
	kinds
)

var kindNames = [kinds]string{"attr", "data", "name", "epoch", "prune"}

// latencyBounds are the upper ends of the buckets of Latency, in seconds.
var latencyBounds = [...]float64{2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 300e-6, 1e-3, 5e-3, 20e-3, 100e-3, 1, 10}

// meter times notifications and knows which are under way.
type meter struct {
	n      Notifier
	now    func() time.Duration
	timing [kinds]struct {
		sum     atomic.Int64 // ns
		buckets [len(latencyBounds) + 1]atomic.Uint64
	}

	mu   sync.Mutex
	open map[*notice]struct{}
}

// notice is one notification under way.
type notice struct {
	kind  int
	ino   fs.Ino
	name  string
	since time.Duration
}

func newMeter(n Notifier, now func() time.Duration) *meter {
	return &meter{n: n, now: now, open: map[*notice]struct{}{}}
}

func (m *meter) time(x notice, send func() error) error {
	x.since = m.now()
	m.mu.Lock()
	m.open[&x] = struct{}{}
	m.mu.Unlock()
	err := send()
	took := m.now() - x.since
	m.mu.Lock()
	delete(m.open, &x)
	m.mu.Unlock()
	t := &m.timing[x.kind]
	t.sum.Add(int64(took))
	i := 0
	for i < len(latencyBounds) && took.Seconds() > latencyBounds[i] {
		i++
	}
	t.buckets[i].Add(1)
	return err
}

func (m *meter) inode(ino fs.Ino, off int64) error {
	kind := kindAttr
	if off >= 0 {
		kind = kindData
	}
	return m.time(notice{kind: kind, ino: ino}, func() error { return m.n.Inode(ino, off, 0) })
}

func (m *meter) entry(dir fs.Ino, name string) error {
	return m.time(notice{kind: kindName, ino: dir, name: name}, func() error { return m.n.Entry(dir, name) })
}

func (m *meter) epoch() error { return m.time(notice{kind: kindEpoch}, m.n.Epoch) }

func (m *meter) prune(ino fs.Ino) error {
	return m.time(notice{kind: kindPrune, ino: ino}, func() error { return m.n.Prune(ino) })
}

// Stuck is a notification that the kernel does not return from.
type Stuck struct {
	Ino  fs.Ino // the directory, for a name
	Name string
	For  time.Duration
	kind int
}

func (s Stuck) String() string {
	return fmt.Sprintf("%s of inode %d %q for %v", kindNames[s.kind], s.Ino, s.Name, s.For.Round(time.Millisecond))
}

// Stuck lists the notifications that have been under way for longer than limit.
func (c *Cache) Stuck(limit time.Duration) (list []Stuck) {
	m := c.notify
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for x := range m.open {
		if now-x.since > limit {
			list = append(list, Stuck{x.ino, x.name, now - x.since, x.kind})
		}
	}
	return list
}

// counters are the numbers behind Stats.
type counters struct {
	epochs, own, conflicts, relaxed, late, drops, retries, unsettled atomic.Uint64
}

// Latency is how long notifications of one kind took.
type Latency struct {
	Count  uint64
	SumS   float64            // seconds
	Counts map[float64]uint64 // by upper bound in seconds, cumulative
}

// Stats only grow, except the gauges.
type Stats struct {
	Epochs    uint64 // times that all names had to be asked for again, because another node changed one in a locked directory
	OwnEpochs uint64 // the same, because a program here changed one that the kernel kept
	Conflicts uint64 // changes whose names were locked
	Relaxed   uint64 // times that a change was acknowledged although something could not be dropped in time
	Late      uint64 // replies that were written too late to be kept
	Unsettled uint64 // calls that went on with attributes that the kernel may not have taken
	Drops     uint64 // times that everything was dropped
	Retries   uint64 // notifications repeated for an inode that the kernel was about to know

	Inodes     int // gauge: inodes that the kernel may remember
	KnownNames int // gauge: names that it may answer about by itself
	HotDirs    int // gauge: directories that hand out nothing
	Waiting    int // gauge: names waiting for their directory's lock

	Latency map[string]Latency // by kind: attr, data, name, epoch, prune
}

// Sweep forgets what has run out. It is called now and then.
func (c *Cache) Sweep() {
	now := c.now()
	c.hot.sweep(now)
	c.busy.sweep(now)
	c.pins.sweep(now)
}

// Stats takes a snapshot.
func (c *Cache) Stats() Stats {
	s := Stats{
		Epochs: c.count.epochs.Load(), OwnEpochs: c.count.own.Load(), Conflicts: c.count.conflicts.Load(), Relaxed: c.count.relaxed.Load(),
		Late: c.count.late.Load(), Unsettled: c.count.unsettled.Load(), Drops: c.count.drops.Load(), Retries: c.count.retries.Load(),
		Inodes: c.counts.len(), KnownNames: c.known.len(), HotDirs: c.hot.sweep(c.now()), Waiting: c.names.len(),
		Latency: map[string]Latency{},
	}
	for kind := range kinds {
		t := &c.notify.timing[kind]
		l := Latency{SumS: time.Duration(t.sum.Load()).Seconds(), Counts: map[float64]uint64{}}
		for i := range t.buckets {
			l.Count += t.buckets[i].Load()
			if i < len(latencyBounds) {
				l.Counts[latencyBounds[i]] = l.Count
			}
		}
		s.Latency[kindNames[kind]] = l
	}
	return s
}
