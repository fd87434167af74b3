package cluster

import "context"

// StepAside hands leadership over if this node leads and another one can: a
// leader writes the log for all, and should have a disk that takes it. Raft may
// elect this node again, when the others are no better or cannot be reached; so
// call it again while there is a reason. It blocks until the transfer is decided
// or ctx ends.
func (n *Node) StepAside(ctx context.Context) error {
	if !n.leads() || !n.otherVoters() {
		return nil
	}
	return await(ctx, n.raft().LeadershipTransfer())
}
