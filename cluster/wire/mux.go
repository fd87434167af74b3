// Package wire puts everything that nodes say to each other on one TCP port.
//
// The noun it adds is the [Stream]: the first byte of a connection selects
// what the rest of it carries (the raft transport, or the RPC between nodes),
// so an operator opens one port and one certificate guards it. Plain TCP is
// used when Options.TLS is nil; that is the place where mutual TLS goes.
package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stream selects what a connection carries. It is the first byte sent.
type Stream byte

// The streams. A new protocol version gets a new byte.
const (
	Raft Stream = 'R' // hashicorp/raft's network transport
	Peer Stream = 'P' // package cluster/peer
)

// Limits.
const (
	selectTimeout = 5 * time.Second // for the first byte, and the TLS handshake before it
	userTimeout   = 4 * time.Second // unacknowledged bytes for so long: the peer is gone, cut the connection
	acceptBacklog = 64              // connections accepted but not yet taken, per stream
)

// Options of a Mux.
type Options struct {
	Bind string      // host:port to listen on
	TLS  *tls.Config // nil: plain TCP
}

// Mux listens on one port and hands each connection to its stream's listener.
type Mux struct {
	ln      net.Listener
	tls     *tls.Config
	streams map[Stream]*listener

	mu      sync.Mutex
	waiting map[net.Conn]struct{} // connections whose first byte has not come
	closed  bool
}

// Listen opens the port. It accepts nothing until Run is called. The error
// wraps the system's, so errors.Is(err, syscall.EADDRINUSE) works.
func Listen(o Options) (*Mux, error) {
	ln, err := net.Listen("tcp", o.Bind)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for other nodes: %w", o.Bind, err)
	}
	m := &Mux{ln: ln, tls: o.TLS, streams: map[Stream]*listener{}, waiting: map[net.Conn]struct{}{}}
	for _, s := range []Stream{Raft, Peer} {
		m.streams[s] = &listener{addr: ln.Addr(), conns: make(chan net.Conn, acceptBacklog), done: make(chan struct{})}
	}
	return m, nil
}

// Addr is the address the port is bound to.
func (m *Mux) Addr() net.Addr { return m.ln.Addr() }

// Listener gives the connections of one stream. Its Close closes only the stream.
func (m *Mux) Listener(s Stream) net.Listener { return m.streams[s] }

// Run accepts connections until ctx ends, then closes the port, the listeners
// and the connections that belong to no stream yet. Connections already handed
// out belong to those who took them.
func (m *Mux) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, m.close)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer m.close()
	for {
		c, err := m.ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			if sleep(ctx, 10*time.Millisecond) != nil { // out of descriptors, say: others may close some
				return ctx.Err()
			}
			continue
		}
		wg.Go(func() { m.route(c) })
	}
}

// Close closes the port of a Mux that was never run.
func (m *Mux) Close() error { m.close(); return nil }

func (m *Mux) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	m.ln.Close()
	for c := range m.waiting {
		c.Close()
	}
	for _, l := range m.streams {
		l.Close()
	}
}

func (m *Mux) route(c net.Conn) {
	bound(c)
	if m.tls != nil {
		c = tls.Server(c, m.tls)
	}
	if !m.track(c) {
		c.Close()
		return
	}
	c.SetDeadline(time.Now().Add(selectTimeout))
	var first [1]byte
	_, err := c.Read(first[:])
	m.untrack(c)
	l := m.streams[Stream(first[0])]
	if err != nil || l == nil || c.SetDeadline(time.Time{}) != nil || !l.give(c) {
		c.Close()
	}
}

func (m *Mux) track(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.waiting[c] = struct{}{}
	return true
}

func (m *Mux) untrack(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, c)
}

// Dial connects to the stream s of the node at addr. It blocks until connected
// or ctx ends; the connection belongs to the caller.
func (m *Mux) Dial(ctx context.Context, addr string, s Stream) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	bound(c)
	if m.tls != nil {
		c = tls.Client(c, m.tls)
	}
	if dl, ok := ctx.Deadline(); ok {
		c.SetDeadline(dl)
	}
	if _, err := c.Write([]byte{byte(s)}); err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// unsentMax is how much the kernel takes before it has been sent: what is urgent
// waits for no more than that on a slow link.
const unsentMax = 128 << 10

// bound makes the kernel give a silent peer up after userTimeout. Without it a
// connection to a machine that lost its power takes a quarter of an hour to fail
// (tcp(7), TCP_USER_TIMEOUT).
func bound(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMax)
		})
	}
}

// listener is the net.Listener of one stream.
type listener struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) give(c net.Conn) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.conns <- c:
		return true
	case <-l.done:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
