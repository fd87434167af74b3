package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol"
	"github.com/wpfs/wpfs/fs"
)

var _ fs.Meta = (*Node)(nil)

// Figures of rule R18.
const (
	leaseWait  = time.Second     // a read waits so long for a lost lease before the policy decides,
	leaseHope  = 5 * time.Second // and so long while the leader is heard of: it is about to grant one
	leaseLook  = 50 * time.Millisecond
	changeWait = 4 * time.Second // without a lease for so long, changes are refused at once under LostStale
)

var errNoLease = errors.New("this node has no lease: it cannot reach a majority of the cluster, or the cluster has no leader")

// Read implements fs.Meta. The order is what makes it right: clock, state, clock
// again, then the verdict on the keys that were touched (package protocol).
func (n *Node) Read(ctx context.Context, f func(fs.View) error) (time.Duration, error) {
	r := recorders.Get().(*recorder)
	defer r.free()
	for {
		r.keys = r.keys[:0]
		// An earlier instant than now only makes the verdict stricter: this one is
		// no earlier than the grant of any lease that was there when it was read,
		// since each step of the protocol reads the clock; and after a verdict, no
		// earlier than that.
		began := n.clock.Last()
		err := n.store.read(func(v fs.View) error {
			r.View = v
			return f(r)
		})
		v := n.verdict(began, r.keys)
		var look <-chan time.Time
		switch {
		case v.verdict == protocol.Show:
			return v.keep, err
		case v.verdict == protocol.NoLease && v.leased:
			continue // it was granted after the read began: what was read may be older
		case v.verdict == protocol.NoLease && n.hopeless():
			return 0, n.withoutLease(err)
		case v.verdict == protocol.NoLease:
			look = time.After(leaseLook)
		}
		select {
		case <-v.changed:
		case <-look:
		case <-n.propose.ended:
			return 0, &fs.Error{Op: "read metadata", Kind: fs.ErrIO, Err: errEnded}
		case <-ctx.Done():
			return 0, &fs.Error{Op: "read metadata", Kind: fs.ErrInterrupted, Err: ctx.Err()}
		}
	}
}

// withoutLease is the answer of a node that lost its lease, to a read that
// ended with err.
func (n *Node) withoutLease(err error) error {
	if n.o.OnLost == LostStale {
		return err
	}
	return &fs.Error{Op: "read metadata", Kind: fs.ErrIO, Err: errNoLease}
}

// hopeless tells that there has been no lease for so long that the policy
// decides. A node that comes back (from a pause, say) is granted one within
// milliseconds to seconds of catching up, so while a leader talks to it reads
// wait rather than show something old. Once hopeless, each further read is
// answered at once: the wait is for the first ones, not for each call of an ls.
func (n *Node) hopeless() bool {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	if n.noLease == 0 {
		return false
	}
	now := n.clock.Now().Slow
	lost, silent := now-n.noLease, now-n.leaderSpoke
	return lost > leaseWait && silent > leaseWait || lost > leaseHope
}

// judgement is what package protocol says of a read, all of one moment.
type judgement struct {
	verdict protocol.Verdict
	keep    time.Duration // how long the kernel may cache what was read
	leased  bool          // there is a lease now
	changed <-chan struct{}
}

func (n *Node) verdict(began protocol.Instant, keys []fs.Key) judgement {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	now := n.clock.Now()
	v, _ := n.member.Visible(began, now, keys)
	n.announce(now)
	j := judgement{verdict: v, leased: n.seenL, changed: n.changed}
	if v == protocol.Show {
		j.keep = n.member.Timeout(now, keys)
	}
	return j
}

// Do implements fs.Meta.
func (n *Node) Do(ctx context.Context, op fs.Op) (fs.Result, error) {
	if err := n.mayChange(); err != nil {
		return fs.Result{}, err
	}
	res, err := n.propose.do(ctx, op, fs.TimeOf(time.Now()))
	if err != nil {
		return res, err
	}
	if err := n.awaitStable(ctx, res.Index); err != nil {
		return res, err
	}
	if res.Kind != fs.OK {
		return res, &fs.Error{Op: "apply", Kind: res.Kind}
	}
	return res, nil
}

// mayChange refuses changes on a node that has been without a lease for long.
// Within changeWait they are tried: a new leader may be about to grant one.
func (n *Node) mayChange() error {
	n.pmu.Lock()
	defer n.pmu.Unlock()
	now := n.clock.Now()
	n.announce(now)
	if n.noLease == 0 || now.Slow-n.noLease < changeWait {
		return nil
	}
	kind := fs.ErrReadOnly
	if n.o.OnLost == LostFail {
		kind = fs.ErrIO
	}
	return &fs.Error{Op: "change metadata", Kind: kind, Err: errNoLease}
}

// awaitStable waits until the writer of entry at may be answered (rules R20 to
// R22): applied here, and by every lease holder.
func (n *Node) awaitStable(ctx context.Context, at fs.Index) error {
	ctx, cancel := context.WithTimeout(ctx, doTimeout)
	defer cancel()
	for {
		n.pmu.Lock()
		ok, changed := n.member.CanAnswer(at), n.changed
		n.pmu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unknownOutcome(ctx.Err())
		case <-n.propose.ended:
			return unknownOutcome(errEnded)
		}
	}
}
