package protocol

import (
	"slices"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// court is a Leader of term 5 on n0 with voters n0, n1, n2 and the learner n3,
// whose barrier is at 10, with a clock that the test moves.
type court struct {
	t   *testing.T
	l   *Leader
	now time.Duration
	out []Message // all that was sent since the last look
}

func daemon(node fs.NodeID) ID { return ID{Node: node, Session: 7} }

func servers() []Server { return []Server{{"n0", true}, {"n1", true}, {"n2", true}, {"n3", false}} }

func newCourt(t *testing.T, cfg Config) *court {
	t.Helper()
	c := &court{t: t, now: time.Hour}
	l, out := NewLeader(cfg, LeaderOptions{Self: daemon("n0"), Term: 5, Conf: 3, Servers: servers()}, at(c.now))
	c.l, c.out = l, out
	c.out = append(c.out, l.Committed(at(c.now), 9, 0)...)
	c.out = append(c.out, l.Barrier(at(c.now), 10)...)
	return c
}

// settled is a court after its wait, with S at 10.
func settled(t *testing.T) *court {
	t.Helper()
	cfg := Defaults()
	cfg.AdoptTry = 0
	c := newCourt(t, cfg)
	c.pass(cfg.Lease + cfg.Margin)
	if c.l.Stable() != 10 {
		t.Fatalf("S is %d after the wait", c.l.Stable())
	}
	c.sent(Stable)
	return c
}

func (c *court) pass(d time.Duration) {
	c.now += d
	c.out = append(c.out, c.l.Tick(at(c.now))...)
}

func (c *court) hear(msgs ...Message) {
	for _, m := range msgs {
		m.To = "n0"
		c.out = append(c.out, c.l.Receive(at(c.now), m)...)
	}
}

func (c *court) commit(index fs.Index, bytes int) {
	c.out = append(c.out, c.l.Committed(at(c.now), index, bytes)...)
}

// sent takes the messages of a kind out of what was sent since the last look.
func (c *court) sent(k Kind) []Message {
	var is []Message
	for _, m := range c.out {
		if m.Kind == k {
			is = append(is, m)
		}
	}
	c.out = nil
	return is
}

func (c *court) request(node fs.NodeID, id uint64, applied fs.Index) Message {
	return Message{Kind: LeaseReq, From: daemon(node), ID: id, Index: applied, Lease: Defaults().Lease}
}

func (c *court) ack(node fs.NodeID, round uint64) Message {
	return Message{Kind: RoundAck, From: daemon(node), Term: 5, VoterTerm: 5, ID: round}
}

func (c *court) applied(node fs.NodeID, index fs.Index) Message {
	return Message{Kind: Applied, From: daemon(node), Index: index, Stable: index}
}

// grant lets a node have a lease.
func (c *court) grant(node fs.NodeID, id uint64, applied fs.Index) {
	c.t.Helper()
	c.hear(c.request(node, id, applied))
	c.hear(c.ack("n0", c.l.rounds.number), c.ack("n1", c.l.rounds.number))
	if g := c.sent(Grant); len(g) != 1 || g[0].To != node || g[0].ID != id {
		c.t.Fatalf("granting a lease to %s: %+v", node, g)
	}
}

// TestGrantNeedsEvidence is rule R8.
func TestGrantNeedsEvidence(t *testing.T) {
	cases := []struct {
		name string
		acks func(c *court, round uint64) []Message
		want int
	}{
		{"a majority of the voters", func(c *court, r uint64) []Message { return []Message{c.ack("n1", r), c.ack("n2", r)} }, 1},
		{"one voter", func(c *court, r uint64) []Message { return []Message{c.ack("n1", r)} }, 0},
		{"one voter twice", func(c *court, r uint64) []Message { return []Message{c.ack("n1", r), c.ack("n1", r)} }, 0},
		{"a voter and a learner", func(c *court, r uint64) []Message { return []Message{c.ack("n1", r), c.ack("n3", r)} }, 0},
		{"a round from before the request", func(c *court, r uint64) []Message { return []Message{c.ack("n1", r-1), c.ack("n2", r-1)} }, 0},
		{"a later round", func(c *court, r uint64) []Message {
			c.pass(Defaults().Resend)
			return []Message{c.ack("n1", c.l.rounds.number), c.ack("n2", c.l.rounds.number)}
		}, 1},
		{"a voter that has moved on", func(c *court, r uint64) []Message {
			a := c.ack("n2", r)
			a.VoterTerm = 6
			return []Message{c.ack("n1", r), a}
		}, 0},
		{"an ack of another term", func(c *court, r uint64) []Message {
			a := c.ack("n2", r)
			a.Term = 4
			return []Message{c.ack("n1", r), a}
		}, 0},
		{"an ack of a round that never was", func(c *court, r uint64) []Message {
			return []Message{c.ack("n1", r+9), c.ack("n2", r-1)}
		}, 0},
	}
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			c := settled(t)
			c.hear(c.request("n3", 1, 10))
			c.hear(x.acks(c, c.l.rounds.number)...)
			if g := c.sent(Grant); len(g) != x.want {
				t.Errorf("granted %+v", g)
			}
		})
	}
}

// TestOneRoundServesMany: requests that arrive while a round is under way share
// the next one.
func TestOneRoundServesMany(t *testing.T) {
	c := settled(t)
	c.hear(c.request("n3", 1, 10), c.request("n1", 1, 10), c.request("n2", 1, 10))
	first := c.l.rounds.number
	c.hear(c.ack("n1", first), c.ack("n2", first))
	if g := c.sent(Grant); len(g) != 1 || g[0].To != "n3" {
		t.Errorf("the first round served %+v", g)
	}
	if c.l.rounds.number != first+1 {
		t.Fatalf("round %d follows round %d", c.l.rounds.number, first)
	}
	c.hear(c.ack("n1", first+1), c.ack("n2", first+1))
	if g := c.sent(Grant); len(g) != 2 {
		t.Errorf("the second round served %+v", g)
	}
}

// TestStableNeedsEveryHolder is the rule for S, with strike by expiry (R13).
func TestStableNeedsEveryHolder(t *testing.T) {
	c := settled(t)
	c.grant("n1", 1, 10)
	c.grant("n3", 1, 10)
	c.commit(12, 100)
	c.hear(c.applied("n1", 12), c.applied("n3", 11))
	if c.l.Stable() != 11 {
		t.Errorf("S is %d", c.l.Stable())
	}
	c.hear(Message{Kind: Applied, From: ID{Node: "n3", Session: 8}, Index: 12})
	if c.l.Stable() != 11 {
		t.Errorf("another daemon of the node acked for it: S is %d (R13b)", c.l.Stable())
	}
	c.pass(3300 * ms)
	if c.l.Stable() != 11 {
		t.Errorf("struck before L+M were over: S is %d", c.l.Stable())
	}
	c.pass(1)
	if s := c.sent(Stable); c.l.Stable() != 12 || len(s) < len(servers()) {
		t.Errorf("S is %d after the lease ran out, told %d", c.l.Stable(), len(s))
	}
}

// TestHolderCountsOnTheSlowClock: a step of the leader's fast clock strikes nobody.
func TestHolderCountsOnTheSlowClock(t *testing.T) {
	c := settled(t)
	c.grant("n3", 1, 10)
	c.commit(11, 1)
	c.l.Tick(Instant{Fast: 100 * time.Hour, Slow: c.now})
	if c.l.Stable() != 10 {
		t.Error("the holder was struck")
	}
}

// TestCatchUp is rule R9.
func TestCatchUp(t *testing.T) {
	t.Run("behind, then there", func(t *testing.T) {
		c := settled(t)
		c.hear(c.request("n3", 1, 9))
		c.hear(c.ack("n1", c.l.rounds.number), c.ack("n2", c.l.rounds.number))
		c.commit(11, 1)
		if g := c.sent(Grant); len(g) != 0 || c.l.Stable() != 10 {
			t.Fatalf("granted %+v, S is %d: it must be held for the joining node", g, c.l.Stable())
		}
		c.hear(c.applied("n3", 10))
		if g := c.sent(Grant); len(g) != 1 {
			t.Errorf("granted %+v", g)
		}
	})
	t.Run("S is held for JoinMax only", func(t *testing.T) {
		c := settled(t)
		c.hear(c.request("n3", 1, 9))
		c.commit(11, 1)
		c.pass(Defaults().JoinMax + 1)
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyBehind || d[0].Wait != time.Second || c.l.Stable() != 11 {
			t.Errorf("denied %+v, S is %d", d, c.l.Stable())
		}
	})
	t.Run("far behind", func(t *testing.T) {
		c := settled(t)
		c.commit(10_000, 1)
		c.hear(c.request("n3", 1, 10))
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyBehind || d[0].Index != 10_000 {
			t.Errorf("denied %+v", d)
		}
	})
	t.Run("not before the barrier", func(t *testing.T) {
		l, _ := NewLeader(Defaults(), LeaderOptions{Self: daemon("n0"), Term: 5, Conf: 3, Servers: servers()}, at(0))
		c := &court{t: t, l: l}
		c.commit(9, 1)
		c.hear(c.request("n3", 1, 10))
		for range 2 { // the round that every term begins with, and the request's
			c.hear(c.ack("n0", l.rounds.number), c.ack("n1", l.rounds.number))
		}
		if g := c.sent(Grant); len(g) != 0 {
			t.Errorf("granted %+v", g)
		}
		c.out = l.Barrier(at(0), 10)
		if g := c.sent(Grant); len(g) != 1 {
			t.Errorf("after the barrier granted %+v", g)
		}
	})
	t.Run("only so many at a time", func(t *testing.T) {
		cfg := Defaults()
		cfg.JoiningMax = 1
		c := newCourt(t, cfg)
		c.hear(c.request("n3", 1, 9), c.request("n2", 1, 9), c.request("n1", 1, 10))
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyBusy || d[0].To != "n2" {
			t.Errorf("denied %+v", d)
		}
	})
}

func TestLostGrantIsRepeated(t *testing.T) {
	c := settled(t)
	c.grant("n3", 4, 10)
	left := c.l.Holders(at(c.now))[0].Left
	c.pass(time.Second)
	c.sent(Grant)
	c.hear(c.request("n3", 4, 10))
	if g := c.sent(Grant); len(g) != 1 || g[0].ID != 4 {
		t.Errorf("repeated %+v", g)
	}
	if h := c.l.Holders(at(c.now)); h[0].Left != left-time.Second {
		t.Errorf("the repetition changed what is left from %v to %v", left, h[0].Left)
	}
	c.hear(c.request("n3", 3, 10))
	if len(c.out) != 0 {
		t.Errorf("an overtaken request is answered by %+v", c.out)
	}
}

// TestWait is rule R10.
func TestWait(t *testing.T) {
	aged := func(c *court, node fs.NodeID, age time.Duration, conf fs.Index) Message {
		m := c.ack(node, 1)
		m.Age, m.Conf = age, conf
		return m
	}
	cases := []struct {
		name string
		acks func(c *court) []Message
		want time.Duration
	}{
		{"nobody tells", func(c *court) []Message { return nil }, 3300 * ms},
		{"one voter is no majority", func(c *court) []Message { return []Message{aged(c, "n1", time.Second, 3)} }, 3300 * ms},
		{"the smallest age of a majority counts", func(c *court) []Message {
			return []Message{aged(c, "n1", 2*time.Second, 3), aged(c, "n2", time.Second, 3)}
		}, 2300 * ms},
		{"of all majorities the best", func(c *court) []Message {
			return []Message{aged(c, "n1", 2*time.Second, 3), aged(c, "n2", time.Second, 3), aged(c, "n0", 3*time.Second, 3)}
		}, 1300 * ms},
		{"very old support needs no wait", func(c *court) []Message {
			return []Message{aged(c, "n1", time.Hour, 3), aged(c, "n2", time.Minute, 3)}
		}, 0},
		{"learners have no say", func(c *court) []Message {
			return []Message{aged(c, "n1", 2*time.Second, 3), aged(c, "n3", 2*time.Second, 3)}
		}, 3300 * ms},
		{"nor who knows another configuration", func(c *court) []Message {
			return []Message{aged(c, "n1", 2*time.Second, 3), aged(c, "n2", 2*time.Second, 2)}
		}, 3300 * ms},
	}
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			c := newCourt(t, Defaults())
			c.hear(x.acks(c)...)
			if w := c.l.Wait(at(c.now)); w != x.want {
				t.Errorf("writers wait %v, want %v", w, x.want)
			}
			if (c.l.Stable() > 0) != (x.want == 0) {
				t.Errorf("S is %d", c.l.Stable())
			}
		})
	}
	t.Run("a new configuration forgets ages", func(t *testing.T) {
		c := newCourt(t, Defaults())
		c.hear(aged(c, "n1", 2*time.Second, 3))
		c.l.SetServers(at(c.now), 11, servers())
		c.hear(aged(c, "n2", 2*time.Second, 11))
		if w := c.l.Wait(at(c.now)); w != 3300*ms {
			t.Errorf("writers wait %v", w)
		}
	})
}

// TestAdopt is the shortcut of R10: all or nothing.
func TestAdopt(t *testing.T) {
	from := func(k Kind, n fs.NodeID) Message { return Message{Kind: k, From: daemon(n), Term: 5} }
	everybody := []fs.NodeID{"n0", "n1", "n2", "n3"}
	t.Run("all answer", func(t *testing.T) {
		c := newCourt(t, Defaults())
		if p := c.sent(Ping); len(p) != 4 {
			t.Fatalf("pinged %+v", p)
		}
		for _, n := range everybody {
			c.hear(from(Pong, n))
		}
		if a := c.sent(Adopt); len(a) != 4 {
			t.Fatalf("asked %+v to adopt", a)
		}
		for i, n := range everybody {
			if c.l.Stable() != 0 {
				t.Fatalf("S is %d after %d of 4", c.l.Stable(), i)
			}
			c.hear(from(AdoptAck, n), from(AdoptAck, n))
		}
		if c.l.Stable() != 10 || c.l.Wait(at(c.now)) != 0 {
			t.Errorf("S is %d, wait %v", c.l.Stable(), c.l.Wait(at(c.now)))
		}
	})
	t.Run("one is silent", func(t *testing.T) {
		c := newCourt(t, Defaults())
		c.sent(Ping)
		for _, n := range everybody[:3] {
			c.hear(from(Pong, n), from(AdoptAck, n))
		}
		c.pass(100 * ms)
		if p := c.sent(Ping); len(p) != 1 || p[0].To != "n3" {
			t.Errorf("pinged %+v", p)
		}
		c.pass(time.Second)
		c.hear(from(Pong, "n3"))
		if a := c.sent(Adopt); len(a) != 0 || c.l.Stable() != 0 {
			t.Errorf("asked %+v to adopt, S is %d", a, c.l.Stable())
		}
	})
	t.Run("answers to another term", func(t *testing.T) {
		c := newCourt(t, Defaults())
		for _, n := range everybody {
			m := from(Pong, n)
			m.Term = 4
			c.hear(m)
		}
		if a := c.sent(Adopt); len(a) != 0 {
			t.Errorf("asked %+v to adopt", a)
		}
	})
}

// TestLag is rule R15.
func TestLag(t *testing.T) {
	cfg := Defaults()
	t.Run("late twice", func(t *testing.T) {
		c := settled(t)
		c.grant("n3", 1, 10)
		c.commit(11, 100)
		c.pass(cfg.LagMax + ms)
		if r := c.sent(Revoke); len(r) != 0 {
			t.Fatalf("revoked at the first incident: %+v", r)
		}
		c.pass(cfg.LagMax)
		if r := c.sent(Revoke); len(r) != 1 || r[0].To != "n3" || r[0].ID != 1 {
			t.Fatalf("revoked %+v", r)
		}
		if c.l.Stable() != 10 {
			t.Fatal("Revoke itself strikes")
		}
		c.hear(Message{Kind: Released, From: daemon("n3"), ID: 1})
		if c.l.Stable() != 11 {
			t.Errorf("S is %d after Released", c.l.Stable())
		}
		c.hear(c.request("n3", 2, 11))
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyLag || d[0].Wait != cfg.ReadmitMin {
			t.Errorf("denied %+v", d)
		}
		c.pass(cfg.ReadmitMin)
		c.grant("n3", 3, 11)
	})
	t.Run("too many bytes", func(t *testing.T) {
		c := settled(t)
		c.grant("n3", 1, 10)
		c.commit(11, 1)
		c.commit(12, int(cfg.LagBytes)+1)
		c.pass(ms)
		if r := c.sent(Revoke); len(r) != 1 {
			t.Errorf("revoked %+v", r)
		}
	})
	t.Run("ever longer", func(t *testing.T) {
		var d damping
		var got []time.Duration
		now := time.Duration(0)
		for range 8 {
			d.extend(cfg, now)
			got = append(got, d.backoff/time.Second)
			now = d.until
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}; !slices.Equal(got, want) {
			t.Errorf("refused for %v s, want %v", got, want)
		}
		d.extend(cfg, now+2*cfg.ReadmitMax+1)
		if d.backoff != cfg.ReadmitMin {
			t.Errorf("after good conduct refused for %v", d.backoff)
		}
	})
	t.Run("S stands still for long", func(t *testing.T) {
		var g lagMeter
		for i := range 3 * marksMax {
			g.commit(fs.Index(i+1), time.Duration(i), 10)
		}
		if len(g.marks) != marksMax {
			t.Errorf("%d marks", len(g.marks))
		}
		if late, bytes := g.behind(0, marksMax); late != marksMax || bytes != 10*(3*marksMax-1) {
			t.Errorf("late %v, %d bytes", late, bytes)
		}
		g.settle(3 * marksMax)
		if len(g.marks) != 0 {
			t.Errorf("%d marks are left", len(g.marks))
		}
	})
}

// TestReleased is rule R16.
func TestReleased(t *testing.T) {
	c := settled(t)
	c.grant("n3", 5, 10)
	c.hear(Message{Kind: Released, From: daemon("n3"), ID: 4})
	if len(c.l.Holders(at(c.now))) != 1 {
		t.Fatal("a late Released struck a newer lease")
	}
	c.hear(Message{Kind: Released, From: daemon("n3"), ID: 6})
	if len(c.l.Holders(at(c.now))) != 0 {
		t.Fatal("still a holder")
	}
	c.sent(Released)
	c.hear(c.request("n3", 6, 10))
	if len(c.out) != 0 {
		t.Errorf("a request that was given up is answered by %+v", c.out)
	}
}

// TestMembership is rule R14.
func TestMembership(t *testing.T) {
	t.Run("a stranger", func(t *testing.T) {
		c := settled(t)
		c.hear(c.request("n9", 1, 10))
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyNotMember || len(c.l.peers) != 0 {
			t.Errorf("denied %+v, %d records", d, len(c.l.peers))
		}
	})
	t.Run("in a configuration that is not committed", func(t *testing.T) {
		c := settled(t)
		c.l.SetServers(at(c.now), 11, append(servers(), Server{ID: "n9"}))
		c.hear(c.request("n9", 1, 10))
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyNotMember {
			t.Fatalf("denied %+v", d)
		}
		c.commit(11, 1)
		c.grant("n9", 2, 11)
	})
	t.Run("a round needs the majority of the latest voters", func(t *testing.T) {
		c := settled(t)
		more := []Server{{"n0", true}, {"n1", true}, {"n2", true}, {"n3", true}}
		c.l.SetServers(at(c.now), 11, more)
		c.hear(c.request("n3", 1, 10))
		r := c.l.rounds.number
		c.hear(c.ack("n1", r), c.ack("n2", r))
		if g := c.sent(Grant); len(g) != 0 {
			t.Fatalf("granted %+v", g)
		}
		c.hear(c.ack("n3", r))
		if g := c.sent(Grant); len(g) != 1 {
			t.Errorf("granted %+v", g)
		}
	})
	t.Run("evicted, drained, removed", func(t *testing.T) {
		c := settled(t)
		c.grant("n3", 1, 10)
		c.out = c.l.Evict(at(c.now), "n3")
		if r := c.sent(Revoke); len(r) != 1 || c.l.Drained(at(c.now), "n3") {
			t.Fatalf("revoked %+v", r)
		}
		c.pass(60 * ms)
		if r := c.sent(Revoke); len(r) != 1 {
			t.Errorf("Revoke is repeated as %+v", r)
		}
		c.hear(Message{Kind: Released, From: daemon("n3"), ID: 1}, c.request("n3", 2, 10))
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyNotMember || !c.l.Drained(at(c.now), "n3") {
			t.Errorf("denied %+v", d)
		}
		c.out = c.l.SetServers(at(c.now), 11, servers()[:3])
		c.out = append(c.out, c.l.SetServers(at(c.now), 12, servers())...)
		c.commit(12, 1)
		c.grant("n3", 3, 12)
	})
	t.Run("nobody is drained before the wait is over", func(t *testing.T) {
		c := newCourt(t, Defaults())
		if c.l.Drained(at(c.now), "n3") {
			t.Error("a former leader's lease may be in use")
		}
	})
	t.Run("another lease time", func(t *testing.T) {
		c := settled(t)
		m := c.request("n3", 1, 10)
		m.Lease++
		c.hear(m)
		if d := c.sent(Deny); len(d) != 1 || d[0].Why != WhyConfig {
			t.Errorf("denied %+v", d)
		}
	})
}

// TestLostMessagesAreRepeated: S reaches a holder that lost Stable, and a lost
// Applied is asked for, until both sides know the same; then nothing is sent.
func TestLostMessagesAreRepeated(t *testing.T) {
	c := settled(t)
	c.grant("n3", 1, 10)
	c.hear(c.applied("n3", 10))
	c.commit(11, 1)
	c.pass(60 * ms)
	if s := c.sent(Stable); len(s) != 1 || !s[0].Again || s[0].To != "n3" {
		t.Fatalf("probed by %+v", s)
	}
	c.hear(Message{Kind: Applied, From: daemon("n3"), Index: 11, Stable: 10})
	c.sent(Stable)
	c.pass(60 * ms)
	if s := c.sent(Stable); len(s) != 1 || s[0].Stable != 11 {
		t.Fatalf("S is repeated by %+v", s)
	}
	c.hear(c.applied("n3", 11))
	c.pass(60 * ms)
	if len(c.out) != 0 || c.l.Next(at(c.now)) < 500*ms {
		t.Errorf("idle, it sends %+v, next in %v", c.out, c.l.Next(at(c.now)))
	}
}

func TestOldRecordsAreForgotten(t *testing.T) {
	c := settled(t)
	c.grant("n3", 1, 10)
	c.pass(time.Minute)
	if len(c.l.peers) != 0 {
		t.Errorf("%d records are left", len(c.l.peers))
	}
	for i := range peersMax + 5 {
		m := c.request("n3", 1, 10)
		m.From.Session = fs.SessionID(i + 100)
		c.hear(m)
	}
	if len(c.l.peers) > peersMax {
		t.Errorf("%d records", len(c.l.peers))
	}
}

func TestConfigRules(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name  string
		spoil func(*Config)
	}{
		{"no lease", func(c *Config) { c.Lease = 0 }},
		{"a margin that drift can eat", func(c *Config) { c.Margin = c.Lease / 25 }},
		{"renewal too late", func(c *Config) { c.Renew = c.Lease }},
		{"retry after renewal", func(c *Config) { c.Retry = c.Renew + 1 }},
		{"kernel slack within the reply gap", func(c *Config) { c.KernelSlack = c.ReplyGap }},
		{"no clock check", func(c *Config) { c.RateWindow = 0 }},
		{"a clock check above what is safe", func(c *Config) { c.RateMax = 0.05 }},
		{"nobody may join", func(c *Config) { c.JoiningMax = 0 }},
		{"readmission turned round", func(c *Config) { c.ReadmitMax = c.ReadmitMin - 1 }},
		{"a mutant", func(c *Config) { c.mutant = 1 }},
	}
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			c := Defaults()
			x.spoil(&c)
			if c.Validate() == nil {
				t.Error("accepted")
			}
		})
	}
}
