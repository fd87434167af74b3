package lb

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pool is the set of upstreams.
type pool struct {
	list atomic.Pointer[[]*upstream] // sorted by id; replaced, never changed

	mu      sync.Mutex // guards updating, ejecting, and what follows
	drained map[string]bool
}

func newPool() *pool {
	p := &pool{drained: map[string]bool{}}
	p.list.Store(&[]*upstream{})
	return p
}

func (p *pool) all() []*upstream { return *p.list.Load() }

func (p *pool) find(id string) *upstream {
	for _, u := range p.all() {
		if u.id == id {
			return u
		}
	}
	return nil
}

// update takes over the backends; of two with one id the first counts. Upstreams
// that stay keep what is known of them, unless their address changed: then it is
// another server.
func (p *pool) update(backends []Backend, conns int) (added, removed []*upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := map[string]*upstream{}
	for _, u := range p.all() {
		old[u.id] = u
	}
	now := map[string]*upstream{}
	for _, b := range backends {
		if now[b.ID] != nil {
			continue
		}
		u := old[b.ID]
		if u == nil || u.backend.Load().Addr != b.Addr {
			u = newUpstream(b)
			added = append(added, u)
		} else {
			delete(old, b.ID)
			u.backend.Store(&b)
		}
		u.drained.Store(p.drained[b.ID])
		u.setSlots(conns)
		now[b.ID] = u
	}
	list := slices.SortedFunc(maps.Values(now), func(a, b *upstream) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	p.list.Store(&list)
	return added, slices.Collect(maps.Values(old))
}

// setSlots bounds the requests in flight; 0 is no bound. Requests that hold a
// slot of the former bound give it back there.
func (u *upstream) setSlots(n int) {
	if c := u.slots.Load(); c != nil && cap(*c) == n {
		return
	}
	c := make(chan struct{}, n)
	u.slots.Store(&c)
}

// drain keeps new requests from the upstream, or lets them come again. It stays
// when the upstream goes and comes back. It reports whether there is one.
func (p *pool) drain(id string, on bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.find(id)
	if u == nil && (on || !p.drained[id]) {
		return false
	}
	if on {
		p.drained[id] = true
	} else {
		delete(p.drained, id)
	}
	if u != nil {
		u.drained.Store(on)
	}
	return true
}

func (p *pool) restore(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.drained[id] = true
		if u := p.find(id); u != nil {
			u.drained.Store(true)
		}
	}
}

func (p *pool) drainedIDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.drained))
}

// eject takes u out for a while, unless half of the upstreams are out already:
// if so many fail, it is not they who fail.
func (p *pool) eject(u *upstream, h *Health) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, out := time.Now(), 0
	for _, o := range p.all() {
		if t, _ := o.standing(h, now); t == tierEjected {
			out++
		}
	}
	if out+1 > len(p.all())/2 {
		return false
	}
	u.ejectNow(h)
	return true
}
