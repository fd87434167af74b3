package peer

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Handler answers for a node. Both methods may be called from many goroutines.
type Handler interface {
	// Message takes a one-way message. It runs on the connection's reader, in
	// the order the peer sent, so it must not wait for anything.
	Message(from Identity, m Method, body []byte)
	// Call answers a call, on a goroutine of its own. body belongs to it.
	Call(ctx context.Context, from Identity, m Method, body []byte) ([]byte, error)
}

// Options of a Hub.
type Options struct {
	Identity func() Identity // asked at each connection: the cluster's UUID is learnt late
	Listener net.Listener
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	Handler  Handler
	Logger   *slog.Logger
}

// Limits.
const (
	queueMax     = 4096            // messages waiting for one peer; more are dropped
	callsMax     = 64              // calls of one peer served at a time
	dialTimeout  = 2 * time.Second // one attempt
	redialPause  = 50 * time.Millisecond
	writeTimeout = 10 * time.Second // a peer that takes nothing for so long is cut off
)

// Hub holds one node's conversations with all others.
type Hub struct {
	o Options

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	outs    map[string]*outbox
	callers map[string]*caller
	conns   map[net.Conn]struct{}
	wg      sync.WaitGroup
}

// NewHub starts nothing.
func NewHub(o Options) *Hub {
	return &Hub{o: o, outs: map[string]*outbox{}, callers: map[string]*caller{}, conns: map[net.Conn]struct{}{}}
}

// Run serves until ctx ends; then it closes every connection and returns when
// all its goroutines have ended. Send and Call work only while it runs.
func (h *Hub) Run(ctx context.Context) error {
	h.mu.Lock()
	h.ctx = ctx
	h.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		h.o.Listener.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		for c := range h.conns {
			c.Close()
		}
	})
	defer stop()
	for {
		c, err := h.o.Listener.Accept()
		if err != nil {
			break
		}
		if h.track(c) {
			h.wg.Go(func() { defer h.untrack(c); h.serve(ctx, c) })
		}
	}
	h.mu.Lock()
	for c := range h.conns {
		c.Close()
	}
	h.mu.Unlock()
	<-ctx.Done()
	h.wg.Wait()
	return ctx.Err()
}

// track remembers c so that Run's end closes it; false (and closed) after that.
func (h *Hub) track(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx == nil || h.ctx.Err() != nil {
		c.Close()
		return false
	}
	h.conns[c] = struct{}{}
	return true
}

// goRun runs f on a goroutine that Run waits for; false once Run has ended.
func (h *Hub) goRun(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx == nil || h.ctx.Err() != nil {
		return false
	}
	h.wg.Go(f)
	return true
}

func (h *Hub) untrack(c net.Conn) {
	c.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

// connect dials addr and exchanges hellos.
func (h *Hub) connect(ctx context.Context, addr string, class uint8) (net.Conn, *bufio.Reader, error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := h.o.Dial(dctx, addr)
	if err != nil {
		return nil, nil, err
	}
	if !h.track(c) {
		return nil, nil, net.ErrClosed
	}
	me := h.o.Identity()
	c.SetDeadline(time.Now().Add(dialTimeout))
	r := bufio.NewReaderSize(c, 64<<10)
	other, err := func() (Identity, error) {
		if _, err := c.Write(me.appendHello(nil, class)); err != nil {
			return Identity{}, err
		}
		id, _, err := readHello(r)
		return id, err
	}()
	if err == nil {
		err = me.admits(other)
	}
	if err != nil {
		h.untrack(c)
		return nil, nil, fmt.Errorf("hello with %s: %w", addr, err)
	}
	c.SetDeadline(time.Time{})
	return c, r, nil
}

func (h *Hub) serve(ctx context.Context, c net.Conn) {
	r := bufio.NewReaderSize(c, 64<<10)
	c.SetDeadline(time.Now().Add(dialTimeout))
	from, _, err := readHello(r)
	if err != nil {
		return
	}
	me := h.o.Identity()
	// The answer goes out even to a stranger, so that both sides can say why.
	if _, err := c.Write(me.appendHello(nil, 0)); err != nil {
		return
	}
	if err := me.admits(from); err != nil {
		h.o.Logger.Warn("refused a peer", "remote", c.RemoteAddr(), "err", err)
		return
	}
	c.SetDeadline(time.Time{})
	a := &answerer{conn: c, slots: make(chan struct{}, callsMax)}
	defer a.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		switch f.kind {
		case frameMessage:
			h.o.Handler.Message(from, f.method, f.body)
		case frameCall:
			a.slots <- struct{}{}
			a.wg.Go(func() {
				defer func() { <-a.slots }()
				body, err := h.o.Handler.Call(ctx, from, f.method, f.body)
				a.answer(f, body, err)
			})
		default:
			return
		}
	}
}

// answerer writes the answers of one connection.
type answerer struct {
	slots chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex // one answer at a time
	conn  net.Conn
}

func (a *answerer) answer(f frame, body []byte, err error) {
	out := frame{kind: frameAnswer, method: f.method, id: f.id, body: body}
	if err != nil {
		out.kind, out.body = frameError, encodeError(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if writeFrames(a.conn, out) != nil {
		a.conn.Close() // its reader ends
	}
}

func writeFrames(c net.Conn, fs ...frame) error {
	bufs := make(net.Buffers, 0, 2*len(fs))
	for _, f := range fs {
		bufs = append(bufs, f.appendHeader(make([]byte, 0, frameHeader)), f.body)
	}
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := bufs.WriteTo(c)
	return err
}

// Send queues a one-way message for the node at addr and returns at once;
// urgent ones overtake the others, and each kind keeps its own order. It is
// lost if the queue is full (false) or the connection fails: whoever sends
// repeats what matters. The hub owns body from here on.
func (h *Hub) Send(addr string, urgent bool, m Method, body []byte) bool {
	h.mu.Lock()
	o := h.outs[addr]
	if o == nil {
		if h.ctx == nil || h.ctx.Err() != nil {
			h.mu.Unlock()
			return false
		}
		o = &outbox{hub: h, addr: addr, queue: make(chan frame, queueMax), urgent: make(chan frame, queueMax)}
		h.outs[addr] = o
		ctx := h.ctx
		h.wg.Go(func() { o.run(ctx) })
	}
	h.mu.Unlock()
	queue := o.queue
	if urgent {
		queue = o.urgent
	}
	select {
	case queue <- frame{kind: frameMessage, method: m, body: body}:
		return true
	default:
		return false
	}
}

// Call asks the node at addr and waits for the answer, an error of the other
// side (its kind preserved), a broken connection, or the end of ctx. It may
// have been carried out in any but the first case.
func (h *Hub) Call(ctx context.Context, addr string, m Method, body []byte) ([]byte, error) {
	h.mu.Lock()
	c := h.callers[addr]
	if c == nil {
		c = &caller{hub: h, addr: addr}
		h.callers[addr] = c
	}
	run := h.ctx
	h.mu.Unlock()
	if run == nil || run.Err() != nil {
		return nil, &fs.Error{Op: "call " + addr, Kind: fs.ErrIO, Err: net.ErrClosed}
	}
	b, err := c.call(ctx, run, m, body)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", addr, err)
	}
	return b, nil
}
