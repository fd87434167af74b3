package peer

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"

	"github.com/wpfs/wpfs/fs"
)

// caller makes the calls to one peer, many at a time over one connection.
type caller struct {
	hub  *Hub
	addr string

	mu   sync.Mutex
	cc   *callConn // nil: none
	dial *dialing  // nil: nobody dials
}

// dialing is one attempt to connect that many calls wait for together.
type dialing struct {
	done chan struct{} // closed when cc and err are set
	cc   *callConn
	err  error
}

// callConn is one connection with its unanswered calls.
type callConn struct {
	conn  net.Conn
	write chan struct{} // one slot: who has it writes

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan frame // closed when the connection is gone
	dead    bool
}

var errBroken = errors.New("connection lost before the answer")

func (c *caller) call(ctx, run context.Context, m Method, body []byte) ([]byte, error) {
	cc, err := c.connection(ctx, run)
	if err != nil {
		return nil, &fs.Error{Op: "connect", Kind: fs.ErrIO, Err: err}
	}
	id, ch, err := cc.send(ctx, m, body)
	if err != nil {
		return nil, &fs.Error{Op: "call", Kind: fs.ErrIO, Err: err}
	}
	select {
	case f, ok := <-ch:
		switch {
		case !ok:
			return nil, &fs.Error{Op: "call", Kind: fs.ErrIO, Err: errBroken}
		case f.kind == frameError:
			return nil, decodeError(f.body)
		}
		return f.body, nil
	case <-ctx.Done():
		cc.forget(id)
		return nil, &fs.Error{Op: "call", Kind: fs.ErrIO, Err: ctx.Err()}
	}
}

// connection returns the open connection or waits, no longer than ctx, for the
// one that is being made. The attempt itself goes on for the others.
func (c *caller) connection(ctx, run context.Context) (*callConn, error) {
	c.mu.Lock()
	if c.cc != nil && !c.cc.isDead() {
		defer c.mu.Unlock()
		return c.cc, nil
	}
	if c.dial == nil && !c.beginDial(run) {
		defer c.mu.Unlock()
		return nil, net.ErrClosed
	}
	d := c.dial
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.cc, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// beginDial starts an attempt; false if the hub has ended. The caller holds c.mu.
func (c *caller) beginDial(run context.Context) bool {
	d := &dialing{done: make(chan struct{})}
	if !c.hub.goRun(func() { c.connect(run, d) }) {
		return false
	}
	c.dial = d
	return true
}

// connect ends the attempt d and, if it succeeded, reads the answers until the
// connection is gone.
func (c *caller) connect(run context.Context, d *dialing) {
	conn, r, err := c.hub.connect(run, c.addr, classCalls)
	if err == nil {
		d.cc = &callConn{conn: conn, write: make(chan struct{}, 1), waiting: map[uint64]chan frame{}}
	}
	d.err = err
	c.mu.Lock()
	c.cc, c.dial = d.cc, nil
	c.mu.Unlock()
	close(d.done)
	if err == nil {
		defer c.hub.untrack(conn)
		d.cc.read(r)
	}
}

func (cc *callConn) isDead() bool {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.dead
}

// send writes a call. It waits no longer than ctx for its turn, and for the
// write itself as long as the hub's write timeout.
func (cc *callConn) send(ctx context.Context, m Method, body []byte) (uint64, chan frame, error) {
	select {
	case cc.write <- struct{}{}:
		defer func() { <-cc.write }()
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
	cc.mu.Lock()
	if cc.dead {
		cc.mu.Unlock()
		return 0, nil, errBroken
	}
	cc.next++
	id, ch := cc.next, make(chan frame, 1)
	cc.waiting[id] = ch
	cc.mu.Unlock()
	if err := writeFrames(cc.conn, frame{kind: frameCall, method: m, id: id, body: body}); err != nil {
		cc.conn.Close() // the reader tells all who wait
	}
	return id, ch, nil
}

func (cc *callConn) forget(id uint64) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	delete(cc.waiting, id)
}

func (cc *callConn) read(r *bufio.Reader) {
	for {
		f, err := readFrame(r)
		if err != nil {
			break
		}
		cc.mu.Lock()
		ch := cc.waiting[f.id]
		delete(cc.waiting, f.id)
		cc.mu.Unlock()
		if ch != nil {
			ch <- f
		}
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cc.dead = true
	for id, ch := range cc.waiting {
		close(ch)
		delete(cc.waiting, id)
	}
	cc.conn.Close()
}
