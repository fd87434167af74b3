// Package metatest has what tests of the metadata and of its users need: Local,
// a whole fs.Meta without a cluster, and Model, a toy file system of plain maps
// that knows the same rules, written independently of fs/meta.
package metatest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// localSession is the one session of a Local.
const localSession fs.SessionID = 1

// Local is an fs.Meta over one State: Do applies at once, with a counter as the
// index of the log, and Read reads. Every command and result takes the way
// through its encoding, as in a cluster.
type Local struct {
	state *meta.State
	clock func() fs.Time

	mu  sync.Mutex // one Do at a time
	seq uint64
}

var _ fs.Meta = (*Local)(nil)

// NewLocal opens a file system in memory and its session.
func NewLocal() (*Local, error) { return OpenLocal(meta.NewMemKV()) }

// OpenLocal opens the file system in kv, which Close closes.
func OpenLocal(kv meta.KV) (*Local, error) {
	s, err := meta.Open(kv)
	if err != nil {
		return nil, err
	}
	l := &Local{state: s, clock: func() fs.Time { return fs.TimeOf(time.Now()) }}
	// An earlier Local on the same store used at most one number per entry.
	l.seq = uint64(s.Applied())
	_, err = l.apply(fs.Command{Op: fs.OpenSession{Session: localSession, Node: "local"}})
	return l, err
}

// SetClock replaces the clock that stamps commands.
func (l *Local) SetClock(f func() fs.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = f
}

// State gives tests what is below.
func (l *Local) State() *meta.State { return l.state }

// Close closes the state.
func (l *Local) Close() error { return l.state.Close() }

// Read runs f on the latest state. Nobody hears of changes, so nothing may be kept.
func (l *Local) Read(ctx context.Context, f func(fs.View) error) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, &fs.Error{Op: "read", Kind: fs.ErrInterrupted, Err: err}
	}
	return 0, l.state.Read(f)
}

// Do applies op at once. The error is the result's kind.
func (l *Local) Do(ctx context.Context, op fs.Op) (fs.Result, error) {
	if err := ctx.Err(); err != nil {
		return fs.Result{}, &fs.Error{Op: meta.OpName(op), Kind: fs.ErrInterrupted, Err: err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	return l.apply(fs.Command{Session: localSession, Seq: l.seq, LowWater: l.seq, Op: op})
}

func (l *Local) apply(c fs.Command) (fs.Result, error) {
	c.Now = l.clock()
	batch, err := meta.DecodeBatch(meta.EncodeBatch([][]byte{meta.EncodeCommand(c)}))
	if err != nil {
		return fs.Result{}, fmt.Errorf("decode own command: %w", err)
	}
	results, _, err := l.state.Apply(l.state.Applied()+1, batch)
	if err != nil {
		return fs.Result{}, &fs.Error{Op: meta.OpName(c.Op), Kind: fs.ErrIO, Err: err}
	}
	r, err := meta.DecodeResult(meta.EncodeResult(results[0]))
	if err != nil {
		return fs.Result{}, fmt.Errorf("decode own result: %w", err)
	}
	return r, meta.ResultError(c.Op, r)
}
