package protocol

import (
	"time"

	"github.com/wpfs/wpfs/fs"
)

// ID names one run of one node's daemon. Holders and acks are kept per ID, not
// per node: a daemon that was killed and started again must not ack for its
// predecessor, whose mount still answers from the kernel's cache (R13b).
type ID struct {
	Node    fs.NodeID
	Session fs.SessionID
}

// Server is one member of Raft's configuration.
type Server struct {
	ID    fs.NodeID
	Voter bool
}

// Kind says what a Message means. Numbers never change: they are on the wire.
type Kind uint8

// The kinds, with the fields that count beside From, To and Term.
const (
	LeaseReq Kind = 1  // member → leader: ID (request), Index (applied), Stable, Lease, Fast, Slow
	Round    Kind = 2  // leader → voter: ID (round), Lease
	RoundAck Kind = 3  // voter → leader: ID, VoterTerm, Age, Conf, Fast, Slow
	Grant    Kind = 4  // leader → member: ID, Lease, Stable
	Deny     Kind = 5  // leader → member: ID, Why, Wait, Index (to be applied first), Stable
	Applied  Kind = 6  // member → leader: Index (applied), Stable
	Stable   Kind = 7  // leader → member: Stable, Again
	Revoke   Kind = 8  // leader → member: ID (of the last grant)
	Released Kind = 9  // member → leader: ID (no request up to it is of use any more)
	Adopt    Kind = 10 // leader → member
	AdoptAck Kind = 11 // member → leader: Index (applied)
	Ping     Kind = 12 // leader → member: is everybody there, so that Adopt is worth it?
	Pong     Kind = 13 // member → leader
)

// Why is the reason of a Deny.
type Why uint8

// The reasons.
const (
	WhyBehind    Why = 1 // has not applied enough yet (R9)
	WhyLag       Why = 2 // acked too late, too often (R15)
	WhyNotMember Why = 3 // not in the committed configuration (R14)
	WhyClock     Why = 4 // its clock's rate is off (R3)
	WhyBusy      Why = 5 // enough nodes are joining (R17)
	WhyConfig    Why = 6 // its Lease differs from the leader's
)

// Message is everything that members and leaders tell each other, flat. Which
// fields count depends on Kind; the others are zero. No wall-clock time is in
// it (R1): Fast and Slow serve only to compare rates (R3).
type Message struct {
	Kind      Kind
	Why       Why
	Again     bool // Stable: sent before; answer with Applied
	From      ID
	To        fs.NodeID
	ToSession fs.SessionID // 0: whichever daemon runs there now
	Term      uint64       // of the leader that sends or is meant
	ID        uint64
	Index     fs.Index
	Stable    fs.Index
	Conf      fs.Index // RoundAck: index of the configuration the voter knows
	VoterTerm uint64
	Lease     time.Duration
	Wait      time.Duration // Deny: do not ask again before
	Age       time.Duration // RoundAck: since the voter last supported a leader of a lower term
	Fast      time.Duration
	Slow      time.Duration
}

// ForLeader reports whether the message is for the Leader of the node To; the
// others are for its Member.
func (m Message) ForLeader() bool {
	switch m.Kind {
	case LeaseReq, RoundAck, Applied, Released, AdoptAck, Pong:
		return true
	}
	return false
}
