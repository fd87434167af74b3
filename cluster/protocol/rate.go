package protocol

import "time"

// clockRate compares the rates of another machine's clocks and our own (R3).
// Delays make a reading look older, never newer, so within each quarter of the
// window only the sample with the least delay counts. A difference is believed
// when three of four quarters show it in one direction: a step, as of a guest
// that was stopped for a moment, shows in one.
//
// Dangerous are a holder that counts too slowly and a voter (or future leader)
// that counts too fast, so their Fast is held against our Slow, and their Slow
// against our Fast. Steps of REALTIME then never look like a rate.
type clockRate struct {
	bad     bool
	began   time.Duration // Slow, start of the current quarter
	slow    extreme       // their Fast − our Slow
	fast    extreme       // their Slow − our Fast
	history [4]rateSign
	filled  int
}

// extreme is the sample with the least delay of one quarter, and of the last.
type extreme struct {
	now, last sample
}

type sample struct {
	ok     bool
	offset time.Duration
	at     time.Duration // our clock
}

type rateSign int8

const (
	rateFine rateSign = iota
	rateSlow
	rateFast
)

func (e *extreme) add(theirs, ours time.Duration) {
	if o := theirs - ours; !e.now.ok || o > e.now.offset {
		e.now = sample{true, o, ours}
	}
}

// close ends a quarter and tells the growth of the offset per unit of our time.
func (e *extreme) close() (slope float64, ok bool) {
	ok = e.now.ok && e.last.ok && e.now.at > e.last.at
	if ok {
		slope = float64(e.now.offset-e.last.offset) / float64(e.now.at-e.last.at)
	}
	e.last, e.now = e.now, sample{}
	return slope, ok
}

// sample takes the readings that came with msg.
func (c *clockRate) sample(cfg Config, now Instant, msg Message) {
	if cfg.RateWindow <= 0 {
		return
	}
	quarter := cfg.RateWindow / 4
	switch {
	case c.began == 0 || now.Slow-c.began > 2*quarter: // the first, or after a silence
		*c = clockRate{bad: c.bad, began: now.Slow}
	case now.Slow-c.began >= quarter:
		c.turn(cfg)
		c.began = now.Slow
	}
	c.slow.add(msg.Fast, now.Slow)
	c.fast.add(msg.Slow, now.Fast)
}

// turn judges the quarter that has ended.
func (c *clockRate) turn(cfg Config) {
	slow, ok1 := c.slow.close()
	fast, ok2 := c.fast.close()
	if !ok1 || !ok2 {
		return
	}
	sign := rateFine
	switch {
	case slow < -cfg.RateMax:
		sign = rateSlow
	case fast > cfg.RateMax:
		sign = rateFast
	}
	copy(c.history[1:], c.history[:])
	c.history[0] = sign
	if c.filled++; c.filled < len(c.history) {
		return
	}
	count := [3]int{}
	for _, s := range c.history {
		count[s]++
	}
	c.bad = count[rateSlow] >= 3 || count[rateFast] >= 3
}
