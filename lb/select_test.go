package lb

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func testUpstreams(n int) []*upstream {
	var list []*upstream
	for i := range n {
		list = append(list, newUpstream(Backend{ID: fmt.Sprintf("web%d", i+1), Addr: "127.0.0.1:80"}))
	}
	return list
}

func clientKeys(n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = affinityKey(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	return keys
}

func place1(t *testing.T, keys []uint64, ups []*upstream, c *Config) map[uint64]string {
	t.Helper()
	at := map[uint64]string{}
	for _, k := range keys {
		u := pick(k, ups, nil, c, time.Now())
		if u == nil {
			t.Fatal("nobody was picked")
		}
		at[k] = u.id
	}
	return at
}

// TestAffinityShares: 10,000 addresses over three nodes share within 10 %; one
// that goes takes only its own clients along; weights hold.
func TestAffinityShares(t *testing.T) {
	c := Defaults()
	ups, keys := testUpstreams(3), clientKeys(10000)
	before := place1(t, keys, ups, &c)
	count := map[string]int{}
	for _, id := range before {
		count[id]++
	}
	for id, n := range count {
		if n < 3000 || n > 3667 {
			t.Errorf("%s has %d of 10000 clients", id, n)
		}
	}
	ups[1].drained.Store(true)
	for k, id := range place1(t, keys, ups, &c) {
		if before[k] != "web2" && id != before[k] {
			t.Fatalf("a client of %s moved to %s because web2 went", before[k], id)
		}
		if id == "web2" {
			t.Fatal("a draining upstream was picked")
		}
	}
	ups[1].drained.Store(false)
	ups[2].backend.Store(&Backend{ID: "web3", Weight: 2})
	count = map[string]int{}
	for k, id := range place1(t, keys, ups, &c) {
		count[id]++
		if id != before[k] && id != "web3" {
			t.Fatalf("a heavier web3 moved a client from %s to %s", before[k], id)
		}
	}
	if n := count["web3"]; n < 4700 || n > 5300 {
		t.Errorf("web3 with half of the weight has %d of 10000 clients", n)
	}
}

// TestAffinityKey: an IPv4 address whole, an IPv6 address by its /64.
func TestAffinityKey(t *testing.T) {
	for _, row := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
	} {
		if got := affinityKey(addrOf(row.a)) == affinityKey(addrOf(row.b)); got != row.same {
			t.Errorf("%s and %s are one client: %v, want %v", row.a, row.b, got, row.same)
		}
	}
}

// TestBoundedLoad: a hot client's upstream hands on what is more than its share,
// and only that.
func TestBoundedLoad(t *testing.T) {
	c := Defaults()
	ups := testUpstreams(3)
	key := clientKeys(1)[0]
	home := pick(key, ups, nil, &c, time.Now())
	got := map[string]int{}
	for range 300 {
		u := pick(key, ups, nil, &c, time.Now())
		u.inflight.Add(1)
		got[u.id]++
	}
	if got[home.id] != 125 { // 1.25 × 300 / 3
		t.Errorf("%s has %d of 300 requests: %v", home.id, got[home.id], got)
	}
	ups = testUpstreams(3)
	for range loadFloor {
		u := pick(key, ups, nil, &c, time.Now())
		if u.id != home.id {
			t.Fatalf("a browser's few requests were spread to %s", u.id)
		}
		u.inflight.Add(1)
	}
}

// TestZones: the own zone while somebody there is good, then everybody.
func TestZones(t *testing.T) {
	c := Defaults()
	c.Zone = "a"
	ups := testUpstreams(3)
	ups[2].backend.Store(&Backend{ID: "web3", Zone: "a"})
	for _, id := range place1(t, clientKeys(50), ups, &c) {
		if id != "web3" {
			t.Fatalf("%s was picked, not the one of the zone", id)
		}
	}
	down(ups[2], &c)
	for _, id := range place1(t, clientKeys(50), ups, &c) {
		if id == "web3" {
			t.Fatal("an upstream that is down was picked for its zone")
		}
	}
}

func down(u *upstream, c *Config) {
	for range c.Health.Fall {
		u.checkedNow(&c.Health, fmt.Errorf("down"))
	}
}

// TestReturn: an upstream that comes back gets its clients back after Hold, and
// slowly; two bad checks in between keep them away longer.
func TestReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Defaults()
		ups, keys := testUpstreams(3), clientKeys(3000)
		ups[0].checkedNow(&c.Health, nil)
		home := place1(t, keys, ups, &c)
		share := func() (n int) {
			for k, id := range place1(t, keys, ups, &c) {
				if id == "web1" {
					n++
					if home[k] != "web1" {
						t.Fatal("web1 got a client that was not its own")
					}
				}
			}
			return n
		}
		whole := share()
		ups[0].checkedNow(&c.Health, fmt.Errorf("slow"))
		if share() != whole {
			t.Error("one bad check sent clients away")
		}
		ups[0].checkedNow(&c.Health, fmt.Errorf("slow"))
		if share() != 0 {
			t.Error("an upstream that is down has clients")
		}
		ups[0].checkedNow(&c.Health, nil)
		ups[0].checkedNow(&c.Health, nil)
		if tier, _ := ups[0].standing(&c.Health, time.Now()); tier != tierReturning {
			t.Errorf("tier %d after two good checks, want returning", tier)
		}
		time.Sleep(c.Health.Hold - time.Second)
		if share() != 0 {
			t.Error("clients came back before Hold")
		}
		time.Sleep(time.Second + c.Health.SlowFor/4)
		if n := share(); n == 0 || n > whole/2 {
			t.Errorf("a quarter into the slow start it has %d of %d clients", n, whole)
		}
		time.Sleep(c.Health.SlowFor)
		if n := share(); n != whole {
			t.Errorf("in the end it has %d of %d clients", n, whole)
		}
	})
}

// TestFirstCheckDecides: a balancer that starts beside a dead upstream does not
// believe in it for Fall checks.
func TestFirstCheckDecides(t *testing.T) {
	c := Defaults()
	u := newUpstream(Backend{ID: "web1"})
	u.checkedNow(&c.Health, fmt.Errorf("down"))
	if got, _ := u.standing(&c.Health, time.Now()); got != tierDown {
		t.Errorf("tier %d, want down", got)
	}
}

// TestEjection: failures in a row take an upstream out, for longer each time, but
// never more than half of all; a success in between starts the count anew.
func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Defaults()
		p := newPool()
		var list []Backend
		for i := range 4 {
			list = append(list, Backend{ID: fmt.Sprint("web", i), Addr: "127.0.0.1:80"})
		}
		p.update(list, 0)
		fail := func(u *upstream, n int) (out bool) {
			for range n {
				out = u.failed(&c.Health, "502") && p.eject(u, &c.Health)
			}
			return out
		}
		u := p.all()[0]
		if fail(u, 2) {
			t.Error("ejected after two failures")
		}
		u.succeeded()
		if fail(u, 2) {
			t.Error("a success in between did not count")
		}
		if !fail(u, 1) {
			t.Error("not ejected after three failures in a row")
		}
		if !fail(p.all()[1], 3) || fail(p.all()[2], 3) {
			t.Error("half may be ejected, and no more")
		}
		time.Sleep(c.Health.EjectFor)
		if got, _ := u.standing(&c.Health, time.Now()); got != tierGood {
			t.Errorf("tier %d after EjectFor", got)
		}
		fail(u, 3)
		time.Sleep(c.Health.EjectFor)
		if got, _ := u.standing(&c.Health, time.Now()); got != tierEjected {
			t.Error("the second ejection in a row is not longer")
		}
		if pick(1, p.all(), p.all()[1:], &c, time.Now()) != u {
			t.Error("an ejected upstream is not even tried when there is no other")
		}
	})
}

// TestAdminPool: the preferred one; when it fails the next at once; back only
// after FailBack, and not while something is being written.
func TestAdminPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Defaults()
		c.Admin = []string{"web2"}
		var a adminPool
		ups := testUpstreams(3)
		now := func() string { return a.pick(ups, nil, &c, time.Now()).id }
		if got := now(); got != "web2" {
			t.Fatalf("admin is %s, not the preferred one", got)
		}
		if got := a.pick(ups, []*upstream{ups[1]}, &c, time.Now()); got == ups[1] || now() != "web2" {
			t.Error("one failed attempt moved the pool, or was repeated at the same upstream")
		}
		down(ups[1], &c)
		second := now()
		if second == "web2" {
			t.Fatal("admin stays on an upstream that is down")
		}
		for range c.Health.Rise {
			ups[1].checkedNow(&c.Health, nil)
		}
		time.Sleep(c.Health.FailBack - time.Second)
		if got := now(); got != second {
			t.Errorf("back on %s before FailBack", got)
		}
		for _, u := range ups {
			if u.id == second {
				u.writes.Add(1)
			}
		}
		time.Sleep(2 * time.Second)
		if got := now(); got != second {
			t.Error("moved while an upload is in flight")
		}
		for _, u := range ups {
			u.writes.Store(0)
		}
		if got := now(); got != "web2" {
			t.Errorf("admin is %s after FailBack, want web2", got)
		}
		ups[1].drained.Store(true)
		if now() == "web2" {
			t.Error("admin stays on a draining upstream")
		}
		for _, u := range ups {
			down(u, &c)
		}
		if a.pick(ups, nil, &c, time.Now()) == nil {
			t.Error("with all down nobody is tried")
		}
	})
}

// TestAdminRankAgrees: without a preference all balancers choose the same one.
func TestAdminRankAgrees(t *testing.T) {
	c := Defaults()
	var a, b adminPool
	ups := testUpstreams(5)
	back := []*upstream{ups[4], ups[2], ups[0], ups[3], ups[1]}
	if x, y := a.pick(ups, nil, &c, time.Now()), b.pick(back, nil, &c, time.Now()); x != y {
		t.Errorf("%s and %s", x.id, y.id)
	}
}

// TestPoolUpdate: what is known of an upstream stays while its address does; the
// operator's drain stays in any case.
func TestPoolUpdate(t *testing.T) {
	p := newPool()
	p.update([]Backend{{ID: "a", Addr: "h:1"}, {ID: "b", Addr: "h:2"}, {ID: "a", Addr: "h:9"}}, 7)
	a := p.find("a")
	if len(p.all()) != 2 || a.backend.Load().Addr != "h:1" || cap(*a.slots.Load()) != 7 {
		t.Fatalf("of two with one id the first counts: %+v", a.backend.Load())
	}
	if p.drain("nobody", true) || !p.drain("a", true) {
		t.Fatal("drain")
	}
	added, removed := p.update([]Backend{{ID: "a", Addr: "h:1", Weight: 3}}, 7)
	if len(added) != 0 || len(removed) != 1 || p.find("a") != a || a.weight() != 3 {
		t.Errorf("added %d, removed %d, weight %v", len(added), len(removed), a.weight())
	}
	added, removed = p.update([]Backend{{ID: "a", Addr: "h:3"}}, 7)
	if len(added) != 1 || len(removed) != 1 || !p.find("a").drained.Load() {
		t.Error("another address is another server, drained all the same")
	}
	if !p.drain("a", false) || p.find("a").drained.Load() || len(p.drainedIDs()) != 0 {
		t.Error("undrain")
	}
}
