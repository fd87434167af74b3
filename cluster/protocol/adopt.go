package protocol

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// adoption is a new leader's way around the wait of R10: if every server shows
// a sign of life, all are asked to give up leases of former leaders. With one
// of them silent that would stop reads without sparing writers the wait, so it
// is not tried.
type adoption struct {
	phase   adoptPhase
	servers []fs.NodeID // all that may hold a lease of a former leader (R14)
	heardOf map[fs.NodeID]bool
	sent    time.Duration // Slow
	until   time.Duration // Slow: end of the pinging
}

type adoptPhase uint8

const (
	adoptOff adoptPhase = iota
	adoptStart
	adoptPing
	adoptAsk
)

func newAdoption(cfg Config, now Instant, servers []Server) adoption {
	a := adoption{heardOf: map[fs.NodeID]bool{}, until: now.Slow + cfg.AdoptTry}
	if cfg.AdoptTry > 0 {
		a.phase = adoptStart
	}
	for _, s := range servers {
		a.servers = append(a.servers, s.ID)
	}
	return a
}

func (a *adoption) heard(msg Message) {
	if msg.Kind == Pong && a.phase == adoptPing || msg.Kind == AdoptAck && a.phase == adoptAsk {
		a.heardOf[msg.From.Node] = true
	}
}

func (a *adoption) all() bool {
	for _, n := range a.servers {
		if !a.heardOf[n] {
			return false
		}
	}
	return true
}

// adopt moves the adoption on and returns its messages.
func (l *Leader) adopt() []Message {
	a := &l.adoption
	switch {
	case a.phase == adoptOff:
		return nil
	case l.now.Slow >= l.wait, a.phase == adoptPing && l.now.Slow > a.until:
		a.phase = adoptOff
		return nil
	case a.phase == adoptAsk && a.all():
		a.phase = adoptOff
		l.wait = min(l.wait, l.now.Slow)
		return nil
	case a.phase == adoptPing && a.all():
		a.phase = adoptAsk
		clear(a.heardOf)
	case a.phase == adoptStart:
		a.phase = adoptPing
	case l.now.Slow-a.sent < l.cfg.Resend:
		return nil
	}
	kind := Ping
	if a.phase == adoptAsk {
		kind = Adopt
	}
	a.sent = l.now.Slow
	var out []Message
	for _, n := range a.servers {
		if !a.heardOf[n] {
			out = append(out, Message{Kind: kind, From: l.self, To: n, Term: l.term})
		}
	}
	return out
}

// next is when adopt has something to send.
func (a *adoption) next(cfg Config) (time.Duration, bool) {
	return a.sent + cfg.Resend, a.phase == adoptPing || a.phase == adoptAsk
}
