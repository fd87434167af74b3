package protocol

import (
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const ms = time.Millisecond

// at is a reading of clocks that agree.
func at(d time.Duration) Instant { return Instant{Fast: d, Slow: d} }

var self = ID{Node: "n1", Session: 11}

// newMember starts a daemon at time 0 that knows its leader and has asked it.
func newMember(t *testing.T, opt MemberOptions) (*Member, Message) {
	t.Helper()
	opt.Self = self
	m := NewMember(Defaults(), opt, at(0))
	out := m.SetLeader(at(0), "n0", 1)
	if len(out) != 1 || out[0].Kind != LeaseReq || out[0].To != "n0" {
		t.Fatalf("a new member asks %+v", out)
	}
	return m, out[0]
}

func grantFor(req Message, term uint64, stable fs.Index) Message {
	return Message{
		Kind: Grant, From: ID{Node: "n0", Session: 1}, To: req.From.Node, ToSession: req.From.Session,
		Term: term, ID: req.ID, Lease: Defaults().Lease, Stable: stable,
	}
}

// leased is a member that was granted its first request.
func leased(t *testing.T, opt MemberOptions) *Member {
	t.Helper()
	m, req := newMember(t, opt)
	m.Receive(at(1*ms), 1, grantFor(req, 1, opt.Applied))
	if _, ok := m.Lease(at(1 * ms)); !ok {
		t.Fatal("no lease after the grant")
	}
	return m
}

func TestLeaseCountsFromTheRequest(t *testing.T) {
	m, req := newMember(t, MemberOptions{})
	m.Receive(at(2*time.Second), 1, grantFor(req, 1, 0))
	if left, ok := m.Lease(at(2 * time.Second)); !ok || left != time.Second {
		t.Errorf("%v of the lease are left, want 1s", left)
	}
	if _, ok := m.Lease(at(3 * time.Second)); ok {
		t.Error("the lease is valid at its very end")
	}
}

func TestLeaseEndsWithTheFastClock(t *testing.T) {
	m := leased(t, MemberOptions{})
	if _, ok := m.Lease(Instant{Fast: 3 * time.Second, Slow: ms}); ok {
		t.Error("a step of the fast clock does not end the lease")
	}
	if _, ok := m.Lease(at(2 * ms)); ok {
		t.Error("an older reading brings the lease back")
	}
}

func TestGrantsThatDoNotCount(t *testing.T) {
	other := func(f func(*Message)) func(Message) Message {
		return func(req Message) Message { g := grantFor(req, 5, 0); f(&g); return g }
	}
	cases := []struct {
		name  string
		grant func(Message) Message
	}{
		{"another request", other(func(g *Message) { g.ID++ })},
		{"an earlier daemon", other(func(g *Message) { g.ToSession++ })},
		{"another node", other(func(g *Message) { g.To = "n2" })},
		{"a lower term than was honoured", other(func(g *Message) { g.Term = 3 })},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, _ := newMember(t, MemberOptions{Clean: true})
			m.Receive(at(0), 4, Message{Kind: Adopt, From: ID{Node: "n0"}, To: "n1", Term: 4})
			ticket, _ := m.Drop()
			out := m.Dropped(at(0), ticket)
			if len(out) != 2 || out[0].Kind != AdoptAck || out[1].Kind != LeaseReq {
				t.Fatalf("after Adopt it says %+v", out)
			}
			m.Receive(at(ms), 4, c.grant(out[1]))
			if _, ok := m.Lease(at(ms)); ok {
				t.Error("the grant was accepted")
			}
		})
	}
}

func TestRequestsAreRepeated(t *testing.T) {
	cfg := Defaults()
	m, first := newMember(t, MemberOptions{})
	now := time.Duration(0)
	sent := 0
	for {
		now += m.Next(at(now))
		out := m.Tick(at(now))
		if len(out) != 1 {
			t.Fatalf("at %v Next called for a Tick that sent %d messages", now, len(out))
		}
		if sent++; out[0].ID != first.ID {
			break
		}
	}
	if now <= cfg.Lease/2 || now > cfg.Lease/2+cfg.Retry || sent < 5 {
		t.Errorf("after %d repetitions, at %v, a new request took over", sent, now)
	}
}

func TestRenewalComesBeforeTheEnd(t *testing.T) {
	m := leased(t, MemberOptions{Seed: 7})
	d := m.Next(at(ms))
	if d < 500*ms || d > 750*ms {
		t.Errorf("the renewal is due after %v", d)
	}
	if out := m.Tick(at(d + ms)); len(out) != 1 || out[0].Kind != LeaseReq {
		t.Errorf("the renewal is %+v", out)
	}
}

func TestVisible(t *testing.T) {
	name := fs.Key{Kind: fs.KeyName, Ino: 1, Name: "a"}
	attr := fs.Key{Kind: fs.KeyAttr, Ino: 2}
	cases := []struct {
		name  string
		do    func(m *Member)
		began time.Duration
		now   time.Duration
		keys  []fs.Key
		want  Verdict
		wait  fs.Index
	}{
		{name: "nothing in flight", keys: []fs.Key{name, attr}, want: Show},
		{name: "no keys", want: Show},
		{name: "one key in flight", do: func(m *Member) { m.Pending(6, []fs.Key{name}) }, keys: []fs.Key{attr, name}, want: WaitStable, wait: 6},
		{name: "another key in flight", do: func(m *Member) { m.Pending(6, []fs.Key{name}) }, keys: []fs.Key{attr}, want: Show},
		{name: "changed twice", do: func(m *Member) {
			m.Pending(6, []fs.Key{name})
			m.Pending(7, []fs.Key{name})
			m.LearnStable(6)
		}, keys: []fs.Key{name}, want: WaitStable, wait: 7},
		{name: "stable", do: func(m *Member) {
			m.Pending(6, []fs.Key{name})
			m.LearnStable(6)
		}, keys: []fs.Key{name}, want: Show},
		{name: "known to be stable before it is applied", do: func(m *Member) {
			m.LearnStable(6)
			m.Pending(6, []fs.Key{name})
		}, keys: []fs.Key{name}, want: Show},
		{name: "closing is still shown", do: func(m *Member) { m.Closing(6, []fs.Key{name}) }, keys: []fs.Key{name}, want: Show},
		{name: "a snapshot", do: func(m *Member) { m.Restoring(9) }, keys: []fs.Key{attr}, want: WaitStable, wait: 9},
		{name: "read before the lease", began: -1, keys: []fs.Key{attr}, want: NoLease},
		{name: "lease run out", now: 3 * time.Second, keys: []fs.Key{attr}, want: NoLease},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := leased(t, MemberOptions{Applied: 5})
			if c.do != nil {
				c.do(m)
			}
			began, now := at(ms+c.began), at(max(c.now, ms))
			if v, i := m.Visible(began, now, c.keys); v != c.want || i != c.wait {
				t.Errorf("verdict %d, wait for %d; want %d, %d", v, i, c.want, c.wait)
			}
			if d := m.Timeout(now, c.keys); c.want != Show && d != 0 && c.began == 0 {
				t.Errorf("the kernel may keep for %v what may not be shown", d)
			}
		})
	}
}

// TestProlongedLeaseCoversEarlierReads: a renewal that comes in time does not
// turn reads away that began under the former grant; one that comes late does.
func TestProlongedLeaseCoversEarlierReads(t *testing.T) {
	for _, c := range []struct {
		name string
		late time.Duration
		want Verdict
	}{{"in time", 0, Show}, {"late", 1, NoLease}} {
		t.Run(c.name, func(t *testing.T) {
			m := leased(t, MemberOptions{})
			renew := m.Tick(at(2900 * ms))
			if len(renew) != 1 {
				t.Fatalf("no renewal: %+v", renew)
			}
			end := 3*time.Second - 1 + c.late
			m.Receive(at(end), 1, grantFor(renew[0], 2, 0))
			if v, _ := m.Visible(at(2*time.Second), at(end), nil); v != c.want {
				t.Errorf("verdict %d, want %d", v, c.want)
			}
		})
	}
}

// TestRestartHoldsBack: entries at the end of the restored state may be
// unstable, so nothing is shown until S has passed them.
func TestRestartHoldsBack(t *testing.T) {
	m, req := newMember(t, MemberOptions{Applied: 10})
	m.Receive(at(ms), 1, grantFor(req, 1, 8))
	key := []fs.Key{{Kind: fs.KeyAttr, Ino: 2}}
	if v, i := m.Visible(at(ms), at(ms), key); v != WaitStable || i != 10 {
		t.Errorf("verdict %d, wait for %d", v, i)
	}
	m.LearnStable(10)
	if v, _ := m.Visible(at(ms), at(ms), key); v != Show {
		t.Errorf("verdict %d when all is stable", v)
	}
}

func TestTooManyKeysInFlight(t *testing.T) {
	m := leased(t, MemberOptions{})
	for i := range Defaults().PendingMax + 10 {
		m.Pending(fs.Index(i+1), []fs.Key{{Kind: fs.KeyAttr, Ino: fs.Ino(i + 2)}})
	}
	if n := len(m.flight.keys); n > Defaults().PendingMax {
		t.Errorf("%d keys are remembered", n)
	}
	untouched := []fs.Key{{Kind: fs.KeyAttr, Ino: 1 << 40}}
	if v, i := m.Visible(at(ms), at(ms), untouched); v != WaitStable || i != fs.Index(Defaults().PendingMax+10) {
		t.Errorf("verdict %d, wait for %d", v, i)
	}
	m.LearnStable(1 << 20)
	if v, _ := m.Visible(at(ms), at(ms), untouched); v != Show || len(m.flight.keys) != 0 || len(m.flight.order) != 0 {
		t.Errorf("verdict %d, %d keys left", v, len(m.flight.keys))
	}
}

func TestTimeout(t *testing.T) {
	cfg := Defaults()
	key := []fs.Key{{Kind: fs.KeyAttr, Ino: 2}}
	cases := []struct {
		name string
		do   func(*Member)
		now  time.Duration
		want time.Duration
	}{
		{name: "a fresh lease is capped", now: ms, want: cfg.KernelMax},
		{name: "an old one ends before the lease", now: 2 * time.Second, want: time.Second - cfg.KernelSlack},
		{name: "almost none left", now: 2990 * ms, want: 0},
		{name: "closing", now: ms, do: func(m *Member) { m.Closing(1, key) }, want: 0},
		{name: "closed and in flight", now: ms, do: func(m *Member) { m.Closing(1, key); m.Pending(1, key) }, want: 0},
		{name: "closed and stable", now: ms, do: func(m *Member) { m.Closing(1, key); m.Pending(1, key); m.LearnStable(1) }, want: cfg.KernelMax},
		{name: "revoked", now: ms, do: func(m *Member) { m.Release(at(ms)) }, want: 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := leased(t, MemberOptions{})
			if c.do != nil {
				c.do(m)
			}
			if d := m.Timeout(at(c.now), key); d != c.want {
				t.Errorf("timeout %v, want %v", d, c.want)
			}
		})
	}
	if cfg.Late(at(0), at(cfg.ReplyGap)) || !cfg.Late(at(0), at(cfg.ReplyGap+1)) {
		t.Error("Late does not begin after ReplyGap")
	}
}

func TestCanAnswer(t *testing.T) {
	m := leased(t, MemberOptions{})
	m.Pending(1, nil)
	m.Applied(at(ms), 1)
	if m.CanAnswer(1) {
		t.Error("answered before it is stable")
	}
	m.LearnStable(2)
	if !m.CanAnswer(1) || m.CanAnswer(2) {
		t.Error("answers are for what is applied and stable")
	}
}

func TestVisibleDoesNotAllocate(t *testing.T) {
	m := leased(t, MemberOptions{})
	m.Pending(1, []fs.Key{{Kind: fs.KeyName, Ino: 1, Name: "b"}})
	keys := []fs.Key{{Kind: fs.KeyName, Ino: 1, Name: "a"}, {Kind: fs.KeyAttr, Ino: 2}}
	if n := testing.AllocsPerRun(100, func() { m.Visible(at(ms), at(ms), keys) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkVisible(b *testing.B) {
	m := NewMember(Defaults(), MemberOptions{Self: self}, at(0))
	req := m.SetLeader(at(0), "n0", 1)[0]
	m.Receive(at(ms), 1, grantFor(req, 1, 0))
	for i := range 100 {
		m.Pending(fs.Index(i+1), []fs.Key{{Kind: fs.KeyName, Ino: 1, Name: "some-file.php"}, {Kind: fs.KeyAttr, Ino: fs.Ino(i)}})
	}
	keys := []fs.Key{{Kind: fs.KeyName, Ino: 7, Name: "index.php"}, {Kind: fs.KeyAttr, Ino: 4711}}
	for b.Loop() {
		m.Visible(at(ms), at(ms), keys)
	}
}

func TestRevokeAndRelease(t *testing.T) {
	revoke := func(term, id uint64) Message {
		return Message{Kind: Revoke, From: ID{Node: "n0", Session: 1}, To: "n1", Term: term, ID: id}
	}
	t.Run("released after the caches are dropped", func(t *testing.T) {
		m := leased(t, MemberOptions{})
		if out := m.Receive(at(2*ms), 1, revoke(1, 1)); len(out) != 0 {
			t.Errorf("it answers before the caches are dropped: %+v", out)
		}
		if _, ok := m.Lease(at(2 * ms)); ok {
			t.Error("the lease outlives Revoke")
		}
		ticket, want := m.Drop()
		if !want || len(m.Dropped(at(3*ms), ticket+1)) != 0 {
			t.Fatal("Drop is not wanted, or an unknown ticket counts")
		}
		out := m.Dropped(at(3*ms), ticket)
		if len(out) != 1 || out[0].Kind != Released || out[0].ID != 1 || out[0].To != "n0" {
			t.Errorf("it answers %+v", out)
		}
	})
	t.Run("a late Revoke does not hit a newer lease", func(t *testing.T) {
		m := leased(t, MemberOptions{})
		m.Receive(at(2*ms), 1, revoke(1, 0))
		m.Receive(at(2*ms), 1, revoke(0, 9))
		if _, ok := m.Lease(at(2 * ms)); !ok {
			t.Error("the lease is gone")
		}
	})
	t.Run("a graceful stop", func(t *testing.T) {
		m := leased(t, MemberOptions{Clean: true})
		m.Release(at(2 * ms))
		if m.CleanExit(at(2 * ms)) {
			t.Error("clean before the caches are dropped")
		}
		ticket, _ := m.Drop()
		if out := m.Dropped(at(3*ms), ticket); len(out) != 1 || out[0].Kind != Released {
			t.Errorf("it says %+v", out)
		}
		if !m.CleanExit(at(3*ms)) || len(m.Tick(at(time.Minute))) != 0 {
			t.Error("not clean, or it asks for a lease again")
		}
	})
}

// TestYoungDaemon: what an earlier daemon handed to the kernel is waited out
// before AdoptAck, and before a mark of a clean exit is left (R13b).
func TestYoungDaemon(t *testing.T) {
	m, _ := newMember(t, MemberOptions{})
	ping := Message{Kind: Ping, From: ID{Node: "n0", Session: 1}, To: "n1", Term: 2}
	if out := m.Receive(at(ms), 2, ping); len(out) != 0 {
		t.Errorf("a young daemon answers Ping by %+v", out)
	}
	adopt := Message{Kind: Adopt, From: ID{Node: "n0", Session: 1}, To: "n1", Term: 2}
	m.Receive(at(ms), 2, adopt)
	ticket, _ := m.Drop()
	for _, o := range m.Dropped(at(ms), ticket) {
		if o.Kind == AdoptAck {
			t.Error("a young daemon sends AdoptAck")
		}
	}
	out := m.Receive(at(2*ms), 2, adopt)
	if _, again := m.Drop(); again || len(out) != 0 {
		t.Errorf("a repeated Adopt drops the caches again, or is answered: %+v", out)
	}
	m.SetLeader(at(2*ms), "", 0)
	adult := 3300 * ms
	if d := m.Next(at(2 * ms)); d != adult-2*ms {
		t.Errorf("the next tick is due after %v", d)
	}
	if out := m.Tick(at(adult)); len(out) != 1 || out[0].Kind != AdoptAck {
		t.Errorf("a grown daemon says %+v", out)
	}
	if out := m.Receive(at(adult), 2, ping); len(out) != 1 || out[0].Kind != Pong {
		t.Errorf("a grown daemon answers Ping by %+v", out)
	}
	young, _ := newMember(t, MemberOptions{})
	young.Release(at(ms))
	ticket, _ = young.Drop()
	young.Dropped(at(ms), ticket)
	if young.CleanExit(at(ms)) || !young.CleanExit(at(adult)) {
		t.Error("the mark of a clean exit is left too early, or never")
	}
}

func TestVoter(t *testing.T) {
	round := func(term, id uint64) Message {
		return Message{Kind: Round, From: ID{Node: "n0", Session: 1}, To: "n1", Term: term, ID: id, Lease: Defaults().Lease}
	}
	ask := func(m *Member, now time.Duration, raftTerm uint64, msg Message) Message {
		t.Helper()
		out := m.Receive(at(now), raftTerm, msg)
		if len(out) != 1 || out[0].Kind != RoundAck || out[0].ID != msg.ID || out[0].VoterTerm != raftTerm {
			t.Fatalf("it answers %+v", out)
		}
		return out[0]
	}
	m, _ := newMember(t, MemberOptions{})
	m.SetServers(at(0), 3, []Server{{"n1", true}})
	steps := []struct {
		name  string
		do    func() Message
		age   time.Duration
		noAge bool
	}{
		{name: "since the start", do: func() Message { return ask(m, 2*time.Second, 1, round(1, 1)) }, age: 2 * time.Second},
		{name: "its own support does not count", do: func() Message { return ask(m, 3*time.Second, 1, round(1, 2)) }, age: 3 * time.Second},
		{name: "a newer raft term is told", do: func() Message { return ask(m, 4*time.Second, 2, round(1, 3)) }, noAge: true},
		{name: "since the last support of a lower term", do: func() Message { return ask(m, 5*time.Second, 2, round(2, 1)) }, age: 2 * time.Second},
		{name: "since the voters changed", do: func() Message {
			m.SetServers(at(6*time.Second), 8, []Server{{"n1", true}, {"n2", true}})
			return ask(m, 7*time.Second, 2, round(2, 2))
		}, age: time.Second},
		{name: "the same voters change nothing", do: func() Message {
			m.SetServers(at(8*time.Second), 9, []Server{{"n1", true}, {"n2", true}, {"n3", false}})
			return ask(m, 9*time.Second, 2, round(2, 3))
		}, age: 3 * time.Second},
	}
	for _, s := range steps {
		ack := s.do()
		if ack.Age != s.age || (ack.Conf == 0) != s.noAge {
			t.Errorf("%s: age %v of configuration %d, want %v", s.name, ack.Age, ack.Conf, s.age)
		}
	}
	odd := round(2, 9)
	odd.Lease++
	if out := m.Receive(at(10*time.Second), 2, odd); len(out) != 0 {
		t.Errorf("a leader with another lease gets %+v", out)
	}
}

func TestWitnessAsksForNothing(t *testing.T) {
	m := NewMember(Defaults(), MemberOptions{Self: self, Witness: true}, at(0))
	if out := append(m.SetLeader(at(0), "n0", 1), m.Tick(at(time.Hour))...); len(out) != 0 {
		t.Errorf("a witness says %+v", out)
	}
}
