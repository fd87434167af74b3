package protocol

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// MemberOptions tell a new Member who it is and what it comes up with.
type MemberOptions struct {
	Self    ID
	Applied fs.Index // last index in the state that this daemon starts from
	// Clean: the last daemon of this node ended by Release, or the machine was
	// booted since. Otherwise its mount may still answer from the kernel's
	// cache, and AdoptAck waits for L+M (R13b).
	Clean bool
	Seed  uint64 // for the jitter of renewals; different on each node
}

// Member is what every daemon has: the lease of this node, the keys in flight,
// and the voter's answers to rounds.
type Member struct{}

// Verdict is the answer to "may I show what I have just read?".
type Verdict uint8

// The verdicts.
const (
	// Show: the values may be shown.
	Show Verdict = iota + 1
	// WaitStable: a key is in flight. Wait until Stable reaches the index that
	// came with the verdict, then read again.
	WaitStable
	// NoLease: there is no valid lease. Wait for one, then read again; after a
	// second the node's policy decides (R18).
	NoLease
)

// NewMember returns the member side of a daemon that starts at now.
func NewMember(cfg Config, opt MemberOptions, now Instant) *Member { panic("unwritten") }

// SetLeader tells which node the driver believes to lead term ("" if unknown).
// A wrong belief costs time, never safety. It returns a LeaseReq at once when
// the leader is new.
func (m *Member) SetLeader(now Instant, leader fs.NodeID, term uint64) []Message {
	panic("unwritten")
}

// SetServers tells the configuration that this node has seen committed at
// index, also at start. Until it was called the node's RoundAcks carry no
// usable age, so a new leader waits the full time.
func (m *Member) SetServers(now Instant, index fs.Index, servers []Server) { panic("unwritten") }

// Tick sends what is due.
func (m *Member) Tick(now Instant) []Message { panic("unwritten") }

// Next tells how long after now Tick is wanted; 0 is at once.
func (m *Member) Next(now Instant) time.Duration { panic("unwritten") }

// Receive handles a message for which ForLeader is false and which is addressed
// to this node. raftTerm is Raft's current term, read after the message arrived
// and while holding the driver's mutex: a Round is answered with it (R8).
func (m *Member) Receive(now Instant, raftTerm uint64, msg Message) []Message { panic("unwritten") }

// Closing marks keys that entry index is about to change, before the kernel's
// caches are invalidated: they are still shown, in their old state, but Timeout
// is 0 for them, so that nothing is handed out behind the invalidation's back.
// A driver whose timeouts are all 0 need not call it.
func (m *Member) Closing(index fs.Index, keys []fs.Key) { panic("unwritten") }

// Pending marks keys as changed by entry index. The driver calls it before the
// state switches to index (and after the kernel was invalidated: a handler that
// waits for S ≥ index must not be in the invalidation's way, I9). From then on
// Visible holds them back until S reaches index. Calls come in log order; keys
// is not kept.
func (m *Member) Pending(index fs.Index, keys []fs.Key) { panic("unwritten") }

// Applied tells that the state is at index and the kernel holds nothing older.
// It returns the ack; acks are cumulative, so one call for a batch is enough.
func (m *Member) Applied(now Instant, index fs.Index) []Message { panic("unwritten") }

// Restored tells that the whole state was replaced by one at index (a
// snapshot), after the kernel's caches were dropped. Which of its keys are in
// flight is unknown: Visible holds back all of them until S reaches index. Like
// Pending it must be called before readers can see the new state.
func (m *Member) Restored(now Instant, index fs.Index) []Message { panic("unwritten") }

// Visible decides whether values of keys that were read from the state before
// now may be shown: the lease is still valid and no key is in flight. With
// WaitStable comes the index to wait for. It does not allocate.
func (m *Member) Visible(now Instant, keys []fs.Key) (Verdict, fs.Index) { panic("unwritten") }

// Timeout is the longest time that the kernel may cache what was read of keys
// (R4): 0 without lease and for keys in flight. Call it after Visible, and see
// Config.Late for what to do after the reply was written.
func (m *Member) Timeout(now Instant, keys []fs.Key) time.Duration { panic("unwritten") }

// CanAnswer reports whether the writer of entry index may get its answer: this
// node has applied it, and it is stable. The leader's result carries the proof
// of the second; pass it to LearnStable. Failed operations obey the same rule
// (R20, R21).
func (m *Member) CanAnswer(index fs.Index) bool { panic("unwritten") }

// LearnStable tells that a leader said S ≥ index elsewhere than in a Message,
// such as beside the result of a command. Once true it is true for ever.
func (m *Member) LearnStable(index fs.Index) { panic("unwritten") }

// Lease tells how much of the lease is left; ok is false without a valid one.
func (m *Member) Lease(now Instant) (left time.Duration, ok bool) { panic("unwritten") }

// Stable is the highest S that this node knows of. It only grows.
func (m *Member) Stable() fs.Index { panic("unwritten") }

// AppliedIndex is the index last passed to Applied or Restored.
func (m *Member) AppliedIndex() fs.Index { panic("unwritten") }

// Term is the highest term whose Grant or Adopt this node has honoured.
func (m *Member) Term() uint64 { panic("unwritten") }

// Refused tells why the leader refused the last request, 0 if it did not.
func (m *Member) Refused() Why { panic("unwritten") }

// Release gives the lease back for a graceful stop (R16) and asks for no other.
// The driver then drops the kernel's caches as Drop says and sends what Dropped
// returns.
func (m *Member) Release(now Instant) { panic("unwritten") }

// Drop reports whether the kernel's caches must be dropped (after Revoke, Adopt
// or Release; the lease is already gone) and the ticket to hand to Dropped.
func (m *Member) Drop() (ticket uint64, want bool) { panic("unwritten") }

// Dropped tells that all kernel caches were dropped after Drop returned ticket.
// It returns Released or AdoptAck. An old ticket does nothing.
func (m *Member) Dropped(now Instant, ticket uint64) []Message { panic("unwritten") }
