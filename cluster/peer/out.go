package peer

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	classMessages = 0
	classCalls    = 1
)

// outbox sends the one-way messages for one peer. Its goroutine ends with the hub.
type outbox struct {
	hub    *Hub
	addr   string
	queue  chan frame
	urgent chan frame // leases and acknowledgements: never behind a burst of proposals
}

func (o *outbox) run(ctx context.Context) {
	var warned bool
	for ctx.Err() == nil {
		c, _, err := o.hub.connect(ctx, o.addr, classMessages)
		if err != nil {
			if errors.Is(err, ErrOtherCluster) || errors.Is(err, ErrVersion) {
				if !warned {
					o.hub.o.Logger.Error("cannot talk to a peer", "addr", o.addr, "err", err)
					warned = true
				}
			}
			o.drop(ctx)
			continue
		}
		warned = false
		o.pump(ctx, c)
		o.hub.untrack(c)
	}
}

// drop waits a moment and forgets what was queued meanwhile: after a pause old
// protocol messages are worth nothing, and what matters is repeated.
func (o *outbox) drop(ctx context.Context) {
	t := time.NewTimer(redialPause)
	defer t.Stop()
	for {
		select {
		case <-o.queue:
		case <-o.urgent:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// pump writes until the connection fails: everything queued goes out in one write.
func (o *outbox) pump(ctx context.Context, c net.Conn) {
	broken := make(chan struct{})
	go func() { // the peer sends nothing on this connection: a read returns when it is gone
		defer close(broken)
		var b [1]byte
		c.Read(b[:])
	}()
	defer func() { c.Close(); <-broken }()
	batch := make([]frame, 0, batchMax)
	for {
		select {
		case f := <-o.urgent:
			batch = append(batch[:0], f)
		case f := <-o.queue:
			batch = append(batch[:0], f)
		case <-broken:
			return
		case <-ctx.Done():
			return
		}
		batch = o.more(batch)
		if writeFrames(c, batch...) != nil {
			return
		}
	}
}

// One write takes at most so many messages, and stops taking large ones beyond
// so many bytes: an urgent one that comes next waits for no more than that.
const (
	batchMax   = 64
	batchBytes = 256 << 10
)

func (o *outbox) more(batch []frame) []frame {
	bytes := len(batch[0].body)
	for len(batch) < batchMax && bytes < batchBytes {
		var f frame
		select {
		case f = <-o.urgent:
		default:
			select {
			case f = <-o.queue:
			default:
				return batch
			}
		}
		batch, bytes = append(batch, f), bytes+len(f.body)
	}
	return batch
}

// caller makes the calls to one peer, many at a time over one connection.
type caller struct {
	hub  *Hub
	addr string

	mu sync.Mutex
	cc *callConn // nil: none
}

// callConn is one connection with its unanswered calls.
type callConn struct {
	conn net.Conn

	wmu sync.Mutex // one call is written at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan frame // closed when the connection is gone
	dead    bool
}

var errBroken = errors.New("connection lost before the answer")

func (c *caller) call(ctx, run context.Context, m Method, body []byte) ([]byte, error) {
	cc, err := c.connection(run)
	if err != nil {
		return nil, &fs.Error{Op: "connect", Kind: fs.ErrIO, Err: err}
	}
	id, ch, err := cc.send(m, body)
	if err != nil {
		return nil, err
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

// connection returns the open connection or makes one. Callers of one dead
// peer wait for one attempt together.
func (c *caller) connection(run context.Context) (*callConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cc != nil && !c.cc.isDead() {
		return c.cc, nil
	}
	conn, r, err := c.hub.connect(run, c.addr, classCalls)
	if err != nil {
		return nil, err
	}
	cc := &callConn{conn: conn, waiting: map[uint64]chan frame{}}
	c.cc = cc
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if run.Err() != nil { // Run may already wait for the group
		conn.Close()
		return nil, run.Err()
	}
	c.hub.wg.Go(func() { defer c.hub.untrack(conn); cc.read(r) })
	return cc, nil
}

func (cc *callConn) isDead() bool {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.dead
}

func (cc *callConn) send(m Method, body []byte) (uint64, chan frame, error) {
	cc.mu.Lock()
	if cc.dead {
		cc.mu.Unlock()
		return 0, nil, &fs.Error{Op: "call", Kind: fs.ErrIO, Err: errBroken}
	}
	cc.next++
	id, ch := cc.next, make(chan frame, 1)
	cc.waiting[id] = ch
	cc.mu.Unlock()
	cc.wmu.Lock()
	defer cc.wmu.Unlock()
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

// Once makes a single call over a connection of its own, without a Hub: for a
// node that must ask something before it takes part.
func Once(ctx context.Context, dial func(context.Context, string) (net.Conn, error), addr string, me Identity, m Method, body []byte) ([]byte, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	if _, err := c.Write(me.appendHello(nil, classCalls)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	other, _, err := readHello(r)
	if err == nil {
		err = me.admits(other)
	}
	if err != nil {
		return nil, err
	}
	if err := writeFrames(c, frame{kind: frameCall, method: m, id: 1, body: body}); err != nil {
		return nil, err
	}
	f, err := readFrame(r)
	switch {
	case err != nil:
		return nil, err
	case f.kind == frameError:
		return nil, decodeError(f.body)
	}
	return f.body, nil
}
