// Package mutant lists deliberately wrong variants of the protocol. The
// simulator must catch each one; that is the proof that it looks. The package
// is internal so that nothing outside cluster/protocol can name a variant.
package mutant

// Mutant is one wrong variant, or None.
type Mutant uint8

// The thirteen variants of the model-checked list (consistency reference 4.7)
// in its order, then our own, each for a rule the model did not cover.
const (
	None               Mutant = iota
	NoWait                    // R10: a new leader acknowledges at once
	AckEarly                  // 4.4: Applied is sent before the kernel is invalidated
	LeaseFromReceipt          // R1: the lease counts from the receipt of the Grant
	NoRound                   // R8: grants without a quorum round
	StaleRound                // R8: a round that began before the request counts
	NoCatchUp                 // R9: grants to nodes behind S and the barrier
	Expose                    // R22: an applied entry is shown at once
	KernelUnbounded           // R4: kernel timeouts do not end with the lease
	NoMargin                  // R3: the leader counts L, not L+M
	StrikeEarly               // R13: a silent holder is struck before its lease ends
	AnyGrant                  // 4.4: a Grant for another request is accepted
	AdoptKeepsKernel          // R10: AdoptAck without dropping kernel caches
	LargestAge                // R10: the largest instead of the smallest age counts
	NonVotersCount            // R8: acks of non-voters count for a round
	MergeIncarnations         // R13b: acks and holders are keyed by node alone
	YoungAdopts               // R13b: a young daemon sends AdoptAck at once
	AgeForgotten              // R10: a restarted voter claims it never supported anybody
	AnswerUnstable            // R20: a writer is answered before S reached its entry
	RestartForgets            // R22: a restarted node forgets that its last entries may be unstable
	ReleasedAnyRequest        // R16: a late Released strikes a newer lease
	LeaseAfterRead            // 4.4: a lease that is valid after the read is enough
	RemoveEarly               // R14: a node may be removed while it holds a lease
	YoungCleanExit            // R13b: a young daemon leaves the mark of a clean exit
	End                       // one past the last
)

var names = [...]string{
	None: "none", NoWait: "no-wait", AckEarly: "ack-early", LeaseFromReceipt: "lease-from-receipt",
	NoRound: "no-round", StaleRound: "stale-round", NoCatchUp: "no-catch-up", Expose: "expose",
	KernelUnbounded: "kernel-unbounded", NoMargin: "no-margin", StrikeEarly: "strike-early",
	AnyGrant: "any-grant", AdoptKeepsKernel: "adopt-keeps-kernel", LargestAge: "largest-age",
	NonVotersCount: "non-voters-count", MergeIncarnations: "merge-incarnations",
	YoungAdopts: "young-adopts", AgeForgotten: "age-forgotten", AnswerUnstable: "answer-unstable",
	RestartForgets: "restart-forgets", ReleasedAnyRequest: "released-any-request",
	LeaseAfterRead: "lease-after-read",
	RemoveEarly:    "remove-early", YoungCleanExit: "young-clean-exit",
}

func (m Mutant) String() string {
	if m < End {
		return names[m]
	}
	return "unknown"
}
