package cluster

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Limits of proposing.
const (
	doTimeout      = 30 * time.Second       // then the outcome is reported as unknown (rule R19)
	resendAfter    = time.Second            // an unanswered proposal is sent again; then after twice that, and so on
	resendMax      = 4 * time.Second        // at most
	proposalsMax   = 512                    // unanswered at a time; half the result window of a session
	proposeBytes   = 128 << 10              // of one message, and of one log entry
	seqDistance    = meta.SessionWindow - 1 // between the oldest unanswered proposal and the newest
	proposeOps     = 256                    // commands in one log entry
	leaderPoll     = 20 * time.Millisecond  // while there is no leader
	raftEnqueueMax = 2 * time.Second        // for raft to take an entry
)

// proposer owns this node's unanswered proposals. Each carries the session and
// a sequence number, so it is sent as often as needed, to whoever leads, until
// its result shows up: not in an answer from the leader, but in this node's own
// apply of the entry. Messages may therefore be lost at any point.
type proposer struct {
	send  func(leader fs.NodeID, encoded [][]byte) // must not block
	slots chan struct{}
	kick  chan struct{}
	ended chan struct{} // closed when the node has ended: nothing more will be answered

	mu      sync.Mutex
	session fs.SessionID // 0: not registered
	ready   chan struct{}
	seq     uint64
	queue   *list.List // of *proposal, in seq order
	bySeq   map[uint64]*list.Element
}

type proposal struct {
	seq     uint64
	encoded []byte
	epoch   uint64 // of the leader it was last sent to; 0: never sent
	sentAt  time.Time
	again   time.Duration // after sentAt
	expires time.Time     // then nobody waits any more
	done    chan struct{}
	result  fs.Result
	err     error
}

func newProposer(send func(fs.NodeID, [][]byte)) *proposer {
	return &proposer{
		send: send, slots: make(chan struct{}, proposalsMax), kick: make(chan struct{}, 1), ended: make(chan struct{}),
		ready: make(chan struct{}), queue: list.New(), bySeq: map[uint64]*list.Element{},
	}
}

// registered makes session the one that proposals belong to. Those of the
// session before end with an unknown outcome: it was expired, and whether their
// entries came first nobody can tell any more.
func (p *proposer) registered(session fs.SessionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endAll(&fs.Error{Op: "propose", Kind: fs.ErrIO, Err: errSessionLost})
	if p.session == 0 {
		close(p.ready)
	}
	p.session, p.seq = session, 0
}

var errSessionLost = errors.New("this node was away for too long and its session has ended; whether the operation happened is unknown")

// open tells whether a session is registered.
func (p *proposer) open() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session != 0
}

// unregistered makes proposals wait for a new session.
func (p *proposer) unregistered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != 0 {
		p.session, p.ready = 0, make(chan struct{})
	}
	p.endAll(&fs.Error{Op: "propose", Kind: fs.ErrIO, Err: errSessionLost})
}

func (p *proposer) endAll(err error) {
	for e := p.queue.Front(); e != nil; e = e.Next() {
		pr := e.Value.(*proposal)
		pr.err = err
		close(pr.done)
	}
	p.queue.Init()
	clear(p.bySeq)
}

// do gets op into the log and returns its result once this node has applied it.
func (p *proposer) do(ctx context.Context, op fs.Op, now fs.Time) (fs.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, doTimeout)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return fs.Result{}, unknownOutcome(ctx.Err())
	case <-p.ended:
		return fs.Result{}, unknownOutcome(errEnded)
	}
	pr, err := p.enqueue(ctx, op, now)
	if err != nil {
		return fs.Result{}, err
	}
	select {
	case <-pr.done:
		return pr.result, pr.err
	case <-ctx.Done(): // the proposal goes on until it expires: only the wait is abandoned
		return fs.Result{}, unknownOutcome(ctx.Err())
	case <-p.ended:
		return fs.Result{}, unknownOutcome(errEnded)
	}
}

var errEnded = errors.New("this node is stopping")

func unknownOutcome(err error) error {
	return &fs.Error{Op: "propose", Kind: fs.ErrIO, Err: fmt.Errorf("no answer from the cluster, the outcome is unknown: %w", err)}
}

func (p *proposer) enqueue(ctx context.Context, op fs.Op, now fs.Time) (*proposal, error) {
	for {
		p.mu.Lock()
		wait := p.mustWait()
		if wait == nil {
			break
		}
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, unknownOutcome(ctx.Err())
		case <-p.ended:
			return nil, unknownOutcome(errEnded)
		}
	}
	defer p.mu.Unlock()
	p.seq++
	pr := &proposal{seq: p.seq, done: make(chan struct{}), expires: time.Now().Add(doTimeout)}
	low := p.seq
	if front := p.queue.Front(); front != nil {
		low = front.Value.(*proposal).seq
	}
	pr.encoded = meta.EncodeCommand(fs.Command{Session: p.session, Seq: pr.seq, LowWater: low, Now: now, Op: op})
	p.bySeq[pr.seq] = p.queue.PushBack(pr)
	p.wake()
	return pr, nil
}

// mustWait tells what a new proposal has to wait for; nil: nothing. The oldest
// unanswered one may not fall out of the session's window of results, or a
// repetition of it would be refused although it never happened.
func (p *proposer) mustWait() <-chan struct{} {
	if p.session == 0 {
		return p.ready
	}
	if front := p.queue.Front(); front != nil && p.seq+1-front.Value.(*proposal).seq >= seqDistance {
		return front.Value.(*proposal).done
	}
	return nil
}

// owns tells whether session is the registered one.
func (p *proposer) owns(session fs.SessionID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return session == p.session
}

func (p *proposer) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// awaited tells whether somebody here waits for (session, seq).
func (p *proposer) awaited(session fs.SessionID, seq uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return session == p.session && p.bySeq[seq] != nil
}

// applied hands out the result of (session, seq). It does not block.
func (p *proposer) applied(session fs.SessionID, seq uint64, r fs.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.bySeq[seq]
	if session != p.session || e == nil {
		return
	}
	pr := e.Value.(*proposal)
	pr.result = r
	p.queue.Remove(e)
	delete(p.bySeq, seq)
	close(pr.done)
}

// waiting lists the unanswered sequence numbers, after a snapshot took the
// place of the entries that held their results.
func (p *proposer) waiting() (fs.SessionID, []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var seqs []uint64
	for e := p.queue.Front(); e != nil; e = e.Next() {
		seqs = append(seqs, e.Value.(*proposal).seq)
	}
	return p.session, seqs
}

// due collects what must go to the leader of epoch now: everything never sent
// to it, and what it has not answered in resendAfter.
func (p *proposer) due(epoch uint64, now time.Time) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out [][]byte
	for e := p.queue.Front(); e != nil; {
		pr, next := e.Value.(*proposal), e.Next()
		switch {
		case now.After(pr.expires):
			pr.err = unknownOutcome(context.DeadlineExceeded)
			p.queue.Remove(e)
			delete(p.bySeq, pr.seq)
			close(pr.done)
		case pr.epoch != epoch:
			pr.epoch, pr.sentAt, pr.again = epoch, now, resendAfter
			out = append(out, pr.encoded)
		case now.Sub(pr.sentAt) >= pr.again:
			pr.sentAt, pr.again = now, min(2*pr.again, resendMax)
			out = append(out, pr.encoded)
		}
		e = next
	}
	return out
}

// run sends proposals until ctx ends. leader tells who leads ("" nobody) and an
// epoch that changes when proposals must be sent again; changed closes when
// that may have happened.
func (p *proposer) run(ctx context.Context, leader func() (fs.NodeID, uint64, <-chan struct{})) {
	t := time.NewTicker(resendAfter / 4)
	defer t.Stop()
	for {
		id, epoch, changed := leader()
		if id != "" {
			if out := p.due(epoch, time.Now()); len(out) > 0 {
				p.send(id, out)
			}
		}
		tick := t.C
		if p.idle() {
			tick = nil // nothing to send again: a node without work does not wake for it
		}
		select {
		case <-p.kick:
		case <-changed:
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
}

// idle tells whether no proposal waits for its answer.
func (p *proposer) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.Len() == 0
}

// packProposals makes messages of at most about proposeBytes from encoded
// commands: a 4-byte length before each.
func packProposals(encoded [][]byte) [][]byte {
	var msgs [][]byte
	var msg []byte
	for _, c := range encoded {
		if len(msg) > 0 && len(msg)+4+len(c) > proposeBytes {
			msgs, msg = append(msgs, msg), nil
		}
		msg = binary.BigEndian.AppendUint32(msg, uint32(len(c)))
		msg = append(msg, c...)
	}
	return append(msgs, msg)
}

// unpackProposals undoes packProposals; the results share msg's memory.
func unpackProposals(msg []byte) ([][]byte, error) {
	var out [][]byte
	for len(msg) > 0 {
		if len(msg) < 4 {
			return nil, errTruncated
		}
		n := int(binary.BigEndian.Uint32(msg))
		msg = msg[4:]
		if n > len(msg) {
			return nil, errTruncated
		}
		out, msg = append(out, msg[:n:n]), msg[n:]
	}
	return out, nil
}

var errTruncated = errors.New("message is truncated")
