package protocol

import "time"

// Instant is a reading of the two composite clocks of one machine, since an
// arbitrary start (rule R2). Between two readings Fast grows by the largest
// and Slow by the smallest of the growths of BOOTTIME, MONOTONIC_RAW and
// REALTIME, never by less than 0. Whoever must stop early counts with Fast
// (holders of leases), whoever must wait long enough counts with Slow (the
// leader that waits for leases to end, and voters' ages). Instants of
// different machines are never compared.
type Instant struct{ Fast, Slow time.Duration }

// later returns the larger reading of each clock. Steps may arrive with
// readings that overtook each other on the way to the driver's mutex; going
// back in time could end a count early.
func (a Instant) later(b Instant) Instant {
	return Instant{Fast: max(a.Fast, b.Fast), Slow: max(a.Slow, b.Slow)}
}
