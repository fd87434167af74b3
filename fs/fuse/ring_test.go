package fuse_test

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/meta/metatest"
)

// ring is what package cluster is to several mounts, in one process: one state,
// changed by one after the other, and every mount's kernel told before a change
// can be seen. What a call on one mount has returned all others must see.
type ring struct {
	local *metatest.Local
	keep  time.Duration // what kernels may keep things for

	do sync.Mutex // one change at a time
	by *seat      // whose change it is; under do

	mu      sync.Mutex
	seats   []*seat
	closing map[fs.Key]bool // by the change under way
}

// seat is one mount's place in the ring; it is the mount's fs.Meta.
type seat struct {
	*ring
	kernel *fuse.Server
	delay  atomic.Int64           // time between the change and its answer, as a cluster needs
	gate   atomic.Pointer[func()] // passed by each Read, before it looks
}

func newRing(l *metatest.Local) *ring {
	r := &ring{local: l, keep: 2 * time.Second}
	l.State().SetBeforeCommit(r.close)
	return r
}

func (r *ring) sit() *seat {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &seat{ring: r}
	r.seats = append(r.seats, s)
	return s
}

// serve tells the ring the mount, before that answers anything; nil when it ended.
func (s *seat) serve(k *fuse.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kernel = k
}

func (r *ring) kernels() map[*seat]*fuse.Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[*seat]*fuse.Server{}
	for _, s := range r.seats {
		if s.kernel != nil {
			all[s] = s.kernel
		}
	}
	return all
}

// close is the state's hook.
func (r *ring) close(_ fs.Index, keys []fs.Key, _ []int) {
	r.mu.Lock()
	r.closing = map[fs.Key]bool{}
	for _, k := range keys {
		r.closing[k] = true
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for s, k := range r.kernels() {
		changes := make([]fs.Change, len(keys))
		for i, key := range keys {
			changes[i] = fs.Change{Key: key, Own: s == r.by && key.Kind == fs.KeyName}
		}
		wg.Go(func() { k.Invalidate(changes) })
	}
	wg.Wait()
}

// Do implements fs.Meta.
func (s *seat) Do(ctx context.Context, op fs.Op) (fs.Result, error) {
	s.do.Lock()
	s.by = s
	res, err := s.local.Do(ctx, op)
	for _, k := range s.kernels() {
		k.Switched()
	}
	s.mu.Lock()
	s.closing = nil
	s.mu.Unlock()
	s.do.Unlock()
	time.Sleep(time.Duration(s.delay.Load()))
	return res, err
}

// Read implements fs.Meta.
func (s *seat) Read(ctx context.Context, f func(fs.View) error) (time.Duration, error) {
	if pass := s.gate.Load(); pass != nil {
		(*pass)()
	}
	v := &noting{}
	_, err := s.local.Read(ctx, func(view fs.View) error {
		v.View = view
		return f(v)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range v.keys {
		if s.closing[k] {
			return 0, err
		}
	}
	return s.keep, err
}

// noting is a View that notes what it was asked for.
type noting struct {
	fs.View
	keys []fs.Key
}

func (v *noting) Lookup(dir fs.Ino, name string) (fs.Attr, error) {
	v.keys = append(v.keys, fs.Key{Kind: fs.KeyName, Ino: dir, Name: name})
	a, err := v.View.Lookup(dir, name)
	v.keys = append(v.keys, fs.Key{Kind: fs.KeyAttr, Ino: a.Ino})
	return a, err
}

func (v *noting) Attr(ino fs.Ino) (fs.Attr, error) {
	v.keys = append(v.keys, fs.Key{Kind: fs.KeyAttr, Ino: ino})
	return v.View.Attr(ino)
}
