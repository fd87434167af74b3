package protocol

import (
	"fmt"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
	"github.com/wpfs/wpfs/fs"
)

// Config holds the protocol's figures. Lease and Margin are the cluster's: all
// nodes must agree on them, and they may change only while the whole cluster
// is stopped for longer than their sum.
type Config struct {
	Lease  time.Duration // L: how long a granted lease lasts
	Margin time.Duration // M: what the leader waits beyond L, for clocks that drift apart
	Renew  time.Duration // a holder asks again this long after the request that was granted
	Retry  time.Duration // an unanswered request is sent again after this
	Resend time.Duration // the leader repeats Stable, Round and Adopt after this

	JoinMax    time.Duration // how long S may be held for a node that is not yet a holder (R9)
	JoiningMax int           // nodes that may catch up for a lease at one time (R17)
	JoinLag    fs.Index      // a node further behind than this is told to catch up first

	LagMax     time.Duration // an ack later than this is a lag incident (R15)
	LagWindow  time.Duration // two incidents within this lead to Revoke
	LagBytes   int64         // so does being this far behind
	ReadmitMin time.Duration // how long a revoked node is refused; doubles each time
	ReadmitMax time.Duration // up to this; a node without incident for that long starts anew

	KernelMax   time.Duration // R4: longest timeout handed to the kernel
	KernelSlack time.Duration // R4: a kernel timeout ends this long before the lease
	ReplyGap    time.Duration // R5: longer than this between Timeout and the reply: see Late

	AdoptTry   time.Duration // how long a new leader waits for a sign of life of all servers; 0: never Adopt
	RateWindow time.Duration // R3: clock rates are compared over this; 0: never
	RateMax    float64       // R3: largest accepted difference of two clocks' rates
	PendingMax int           // keys in flight that are remembered one by one

	mutant mutant.Mutant
}

// Defaults returns the figures of consistency.md section 6.
func Defaults() Config {
	return Config{
		Lease: 3 * time.Second, Margin: 300 * time.Millisecond, Renew: 750 * time.Millisecond,
		Retry: 150 * time.Millisecond, Resend: 50 * time.Millisecond,
		JoinMax: 300 * time.Millisecond, JoiningMax: 4, JoinLag: 4096,
		LagMax: 250 * time.Millisecond, LagWindow: 10 * time.Second, LagBytes: 4 << 20,
		ReadmitMin: time.Second, ReadmitMax: 60 * time.Second,
		KernelMax: 2500 * time.Millisecond, KernelSlack: 50 * time.Millisecond, ReplyGap: 40 * time.Millisecond,
		AdoptTry: 500 * time.Millisecond, RateWindow: 60 * time.Second, RateMax: 0.01,
		PendingMax: 1 << 16,
	}
}

// rateAssumed is the largest difference of two machines' clock rates that the
// protocol is safe with (R3); Margin must cover it with room to spare.
const rateAssumed = 0.02

// Validate names the first field that breaks a rule, and refuses every mutant.
func (c Config) Validate() error {
	positive := []struct {
		name string
		d    time.Duration
	}{
		{"Lease", c.Lease}, {"Margin", c.Margin}, {"Renew", c.Renew}, {"Retry", c.Retry},
		{"Resend", c.Resend}, {"JoinMax", c.JoinMax}, {"LagMax", c.LagMax}, {"LagWindow", c.LagWindow},
		{"ReadmitMin", c.ReadmitMin}, {"ReplyGap", c.ReplyGap}, {"RateWindow", c.RateWindow},
	}
	for _, p := range positive {
		if p.d <= 0 {
			return fmt.Errorf("protocol config: %s is %v, must be positive", p.name, p.d)
		}
	}
	rules := []struct {
		ok   bool
		text string
	}{
		{c.mutant == mutant.None, "a mutant is for the simulator only"},
		{float64(c.Margin) >= 2.5*rateAssumed*float64(c.Lease), "Margin must be at least 5 % of Lease"},
		{c.Renew <= c.Lease/2, "Renew must be at most half of Lease"},
		{c.Retry <= c.Renew, "Retry must be at most Renew"},
		{c.JoiningMax >= 1, "JoiningMax must be at least 1"},
		{c.JoinLag >= 1, "JoinLag must be at least 1"},
		{c.LagBytes >= 1, "LagBytes must be at least 1"},
		{c.ReadmitMax >= c.ReadmitMin, "ReadmitMax must be at least ReadmitMin"},
		{c.KernelMax >= 0, "KernelMax must not be negative"},
		{c.KernelSlack > c.ReplyGap, "KernelSlack must be more than ReplyGap"},
		{c.AdoptTry >= 0, "AdoptTry must not be negative"},
		{c.RateMax > 0 && c.RateMax < rateAssumed, "RateMax must be above 0 and below 0.02"},
		{c.PendingMax >= 1, "PendingMax must be at least 1"},
	}
	for _, r := range rules {
		if !r.ok {
			return fmt.Errorf("protocol config: %s", r.text)
		}
	}
	return nil
}

// Late reports rule R5: the reply whose timeout was computed at computed went
// out so late that the kernel may keep it past the lease. The caller then
// invalidates at once what it has just handed out.
func (c Config) Late(computed, written Instant) bool {
	return written.Fast-computed.Fast > c.ReplyGap
}

// Mutated returns c with one rule broken. Only the simulator calls it; Validate
// refuses the result.
func (c Config) Mutated(m mutant.Mutant) Config {
	c.mutant = m
	return c
}

// Mutant tells which rule is broken in c: none, outside the simulator.
func (c Config) Mutant() mutant.Mutant { return c.mutant }
