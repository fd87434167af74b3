// Package protocol decides what a node may show and what a writer may be told:
// leases, the stable index S, keys in flight, strikes and re-admission. It is
// the consistency core of wpfs without I/O, clock or goroutine: every method is
// a step that is given the time and returns the messages to send.
//
// Its nouns: an [Instant] is a reading of the driver's clocks; a [Member] is
// the side that every daemon has (holder of a lease, voter, reader, applier);
// a [Leader] is the side that exists while a node leads one Raft term (grants,
// S, holders); a [Message] travels between the two, also on the leading node
// itself, which holds a lease like everybody else (rule R12).
//
// # What a driver must do
//
//   - One mutex per Member and one per Leader. No method blocks or calls back.
//     Read the clock, and for [Member.Receive] Raft's current term, while
//     holding the mutex, so that steps see them in order.
//   - Send every returned message, in any order, at least zero times: loss,
//     delay, duplication and reordering are all survived. A message to the own
//     node goes back through Receive as well. Message.ForLeader says to which
//     side; one for a Leader that does not exist is dropped.
//   - Call Tick when Next has passed; later is safe but slower.
//   - Apply in log order: Closing, kernel invalidation, Pending, switch of the
//     state, Applied. After a restart or a restored snapshot nothing is known
//     about keys in flight; the Member then holds back everything until S has
//     passed the index it came up with.
//   - Read in this order: clock, state, clock, Visible with both readings.
//   - Answer a writer when CanAnswer says so.
//   - Drop the Leader at step-down. That it happens late, or never, is safe.
//
// Rules R1 to R22 and invariants I1 to I9 are explained in docs/protocol.md.
package protocol
