package protocol

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// lagMeter knows when entries were committed, to tell how far behind a holder's
// acks are (R15).
type lagMeter struct {
	marks []mark // of entries above S, in order
	bytes int64  // of all entries so far
}

type mark struct {
	index fs.Index
	at    time.Duration // Slow
	bytes int64         // of all entries up to this one
}

// marksMax bounds the memory of a leader whose S stands still; entries beyond
// it are counted as if they had come with the last one.
const marksMax = 4096

func (g *lagMeter) commit(index fs.Index, at time.Duration, bytes int64) {
	g.bytes += bytes
	if len(g.marks) >= marksMax {
		last := &g.marks[len(g.marks)-1]
		last.index, last.bytes = index, g.bytes
		return
	}
	g.marks = append(g.marks, mark{index, at, g.bytes})
}

// settle forgets entries that S has passed.
func (g *lagMeter) settle(stable fs.Index) {
	n := 0
	for n < len(g.marks) && g.marks[n].index <= stable {
		n++
	}
	g.marks = append(g.marks[:0], g.marks[n:]...)
}

// behind tells since when the oldest entry that ack lacks is committed, and how
// many bytes were committed since that ack.
func (g *lagMeter) behind(ack fs.Index, now time.Duration) (time.Duration, int64) {
	lo, hi := 0, len(g.marks)
	for lo < hi {
		if mid := (lo + hi) / 2; g.marks[mid].index <= ack {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(g.marks) {
		return 0, 0
	}
	var before int64
	if lo > 0 {
		before = g.marks[lo-1].bytes
	} else {
		before = g.marks[0].bytes
	}
	return now - g.marks[lo].at, g.bytes - before
}

// damping keeps a node that lags again and again from costing writers a wait
// each time. It outlives the node's daemons.
type damping struct {
	incident time.Duration // Slow, of the last lag
	any      bool
	backoff  time.Duration
	extended time.Duration // Slow, when backoff grew last
	until    time.Duration // Slow: no lease before
}

func (l *Leader) damp(node fs.NodeID) *damping {
	d := l.damping[node]
	if d == nil {
		d = &damping{}
		l.damping[node] = d
	}
	return d
}

// extend refuses the node for twice as long as the last time.
func (d *damping) extend(cfg Config, now time.Duration) {
	if d.backoff == 0 || now-d.extended > cfg.ReadmitMax+d.backoff {
		d.backoff = cfg.ReadmitMin
	} else {
		d.backoff = min(2*d.backoff, cfg.ReadmitMax)
	}
	d.extended = now
	d.until = now + d.backoff
}

// incident notes lag of a holder and reports whether it is to be revoked. An
// ack that stays away counts once for each LagMax.
func (g *lagMeter) incident(l *Leader, p *peer) bool {
	late, bytes := g.behind(p.ack, l.now.Slow)
	d := l.damp(p.id.Node)
	again := d.any && l.now.Slow-d.incident <= l.cfg.LagWindow
	switch {
	case bytes > l.cfg.LagBytes:
	case late <= l.cfg.LagMax:
		return false
	case d.any && l.now.Slow-d.incident < l.cfg.LagMax:
		return false
	case !again:
		d.any, d.incident = true, l.now.Slow
		return false
	}
	d.any = false
	d.extend(l.cfg, l.now.Slow)
	return true
}
