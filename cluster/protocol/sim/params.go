package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
)

// params are what a seed chooses before anything happens. Each seed turns some
// faults off altogether, so that others are met in pure form (swarm testing).
type params struct {
	nodes, voters, keys int
	lease               time.Duration
	margin              float64 // of the lease
	drift               float64 // clock rates are within 1 ± drift
	kernel              bool    // timeouts above 0
	adopt               bool
	rates               bool // R3 is on, and drift is small enough for it
	codec               bool // every message is encoded and decoded
	small               bool // limits are so small that they are met
	witness             bool // the last voter shows nothing and has no lease

	delay     time.Duration // usual delay of a message
	loss, dup float64
	slowLink  float64       // share of messages that take up to slowMax
	slowMax   time.Duration // beyond a lease: old messages meet new leases

	slowStep float64       // share of a daemon's steps that take up to stepMax
	stepMax  time.Duration // between reading and replying, closing and switching
	think    time.Duration // between two calls of applications
	writes   float64       // share of writes

	// mean times between faults; 0: none of this kind
	freeze, crash, power, stop, cut, campaign, jump, reconf, swap time.Duration
	faultMax                                                      time.Duration
	stepDown                                                      float64 // chance that a rejected leader takes notice
	election                                                      time.Duration
	healAt                                                        time.Duration
	quietAt                                                       time.Duration // no new calls from here on
}

func (p params) String() string {
	return fmt.Sprintf("%d nodes, %d voters, lease %v, drift %.3f, kernel %v, adopt %v, small %v, witness %v, delay %v loss %.2f dup %.2f slow %.2f<%v, step %.2f<%v, think %v writes %.2f, freeze %v crash %v power %v stop %v cut %v campaign %v jump %v config %v swap %v up to %v, heal at %v",
		p.nodes, p.voters, p.lease, p.drift, p.kernel, p.adopt, p.small, p.witness, p.delay, p.loss, p.dup, p.slowLink, p.slowMax,
		p.slowStep, p.stepMax, p.think, p.writes, p.freeze, p.crash, p.power, p.stop, p.cut, p.campaign, p.jump, p.reconf, p.swap, p.faultMax, p.healAt)
}

// choose draws a run's parameters.
func choose(r *rand.Rand, virtual time.Duration) params {
	pick := func(ms ...int) time.Duration { return time.Duration(ms[r.IntN(len(ms))]) * time.Millisecond }
	maybe := func(chance, most float64) float64 {
		if v := r.Float64() * most; r.Float64() < chance {
			return v
		}
		return 0
	}
	p := params{
		nodes: 3 + r.IntN(5), voters: 3, keys: 1 + r.IntN(3),
		lease: pick(500, 800, 1500, 3000), margin: 0.1,
		kernel: r.Float64() < 0.7, adopt: r.Float64() < 0.7, codec: r.Float64() < 0.1,
		small: r.Float64() < 0.2, witness: r.Float64() < 0.2,
		delay: pick(1, 1, 5, 20), writes: 0.15 + 0.4*r.Float64(),
		stepDown: r.Float64(),
	}
	if p.nodes >= 5 && r.IntN(2) == 0 {
		p.voters = 5
	}
	if p.rates = r.Float64() < 0.1; p.rates {
		p.drift = 0.003 * r.Float64()
	} else if r.Float64() < 0.8 {
		p.drift = 0.01 // any two clocks then differ by 2 % at most
	}
	p.loss, p.dup = maybe(0.5, 0.2), maybe(0.5, 0.2)
	p.slowLink, p.slowMax = maybe(0.5, 0.1), draw(r, p.lease/10, 2*p.lease)
	p.slowStep, p.stepMax = maybe(0.7, 0.5), draw(r, time.Millisecond, p.lease/4)
	p.think = draw(r, 20*time.Millisecond, 80*time.Millisecond)

	p.election = draw(r, p.lease/8, p.lease)
	p.faultMax = draw(r, p.lease/4, 2*p.lease)
	span := p.faultMax + p.lease
	for _, f := range []*time.Duration{&p.freeze, &p.crash, &p.power, &p.stop, &p.cut, &p.campaign, &p.jump, &p.reconf, &p.swap} {
		if r.Float64() < 0.5 {
			*f = draw(r, span/2, 4*span)
		}
	}
	if p.reconf > 0 && r.Float64() < 0.5 {
		p.reconf = draw(r, p.lease/16, p.lease)
	}
	calm := 4*p.lease + 2*p.readmitMax() + 4*p.election + time.Second
	p.healAt = max(virtual-calm-p.lease, virtual/4)
	p.quietAt = virtual - 2*p.lease
	return p
}

func (p params) readmitMax() time.Duration { return 2 * p.lease }

// config scales the defaults to the run's lease.
func (p params) config() protocol.Config {
	c := protocol.Defaults()
	scale := func(d *time.Duration) {
		*d = time.Duration(float64(*d) * float64(p.lease) / float64(3*time.Second))
	}
	for _, d := range []*time.Duration{&c.Renew, &c.Retry, &c.JoinMax, &c.LagWindow, &c.KernelMax, &c.KernelSlack, &c.ReplyGap, &c.AdoptTry} {
		scale(d)
	}
	c.Lease, c.Margin = p.lease, time.Duration(float64(p.lease)*p.margin)
	c.Resend = max(c.Resend*p.lease/(3*time.Second), 2*p.delay)
	c.LagMax = max(c.LagMax*p.lease/(3*time.Second), 6*p.delay)
	c.ReadmitMin, c.ReadmitMax = p.lease/4, p.readmitMax()
	c.RateWindow = 0
	if p.rates {
		c.RateWindow = 20 * time.Second
	}
	if !p.adopt {
		c.AdoptTry = 0
	}
	if !p.kernel {
		c.KernelMax = 0
	}
	if p.small {
		c.PendingMax, c.JoiningMax, c.JoinLag = 2, 1, 4
	}
	return c
}

// focuses bend a seed's parameters towards faults that the swarm brings together
// too rarely.
var focuses = map[string]func(*params){
	"none": nil,
	// Daemons die, return and stop in quick succession; leaders take over by Adopt.
	"clean": func(p *params) {
		p.kernel, p.adopt, p.witness = true, true, false
		p.crash, p.stop, p.swap = p.lease, p.lease, p.lease/2
		p.loss, p.freeze, p.cut, p.campaign, p.power, p.slowLink = 0, 0, 0, 0, 0, 0
	},
	// Nodes are removed while leaders take over by Adopt.
	"remove": func(p *params) {
		p.nodes, p.adopt, p.witness = 7, true, false
		p.reconf, p.swap = p.lease/4, p.lease/2
		p.loss, p.freeze, p.cut, p.campaign, p.power, p.slowLink = 0, 0, 0, 0, 0, 0
	},
}
