package lb

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// listener gives http.Server connections that are ready to be served: counted,
// their PROXY header read, TLS negotiated, and HTTP/1 under guard. A client that
// dawdles over these keeps nobody else waiting.
type listener struct {
	net.Listener
	b     *Balancer
	tls   *tls.Config // nil: in the clear
	ready chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (b *Balancer) newListener(l net.Listener, withTLS bool) *listener {
	if b.settings().ProxyProtocol {
		l = &proxyproto.Listener{Listener: l, ReadHeaderTimeout: b.settings().Timeouts.Header, ConnPolicy: b.proxyPolicy}
	}
	out := &listener{Listener: l, b: b, ready: make(chan net.Conn), done: make(chan struct{})}
	if withTLS {
		out.tls = b.certs.tlsConfig()
	}
	return out
}

// proxyPolicy: trusted proxies must say whom they speak for. From others a PROXY
// header is not HTTP, and is answered as such.
func (b *Balancer) proxyPolicy(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
	if contains(b.settings().Trusted, addrOf(o.Upstream.String())) {
		return proxyproto.REQUIRE, nil
	}
	return proxyproto.SKIP, nil
}

// accept takes connections until the listener is closed; ctx ends those that are
// not ready by then.
func (l *listener) accept(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			select {
			case <-l.done:
				return
			case <-time.After(10 * time.Millisecond): // out of descriptors, say: it may pass
				l.b.log.Warn("a connection cannot be accepted", "err", err)
				continue
			}
		}
		wg.Go(func() { l.prepare(ctx, c) })
	}
}

// prepare makes the connection ready and hands it over.
func (l *listener) prepare(ctx context.Context, c net.Conn) {
	client := clientNet(addrOf(c.RemoteAddr().String())) // reads the PROXY header
	counted, ok := l.b.conns.add(c, client, l.b.exempt(client), &l.b.settings().Limits)
	if !ok {
		l.b.stats.connsRefused.Add(1)
		c.Close()
		return
	}
	ready, err := l.guard(ctx, counted)
	if err != nil {
		counted.Close()
		return
	}
	select {
	case l.ready <- ready:
	case <-l.done:
		ready.Close()
	}
}

// guard negotiates TLS. HTTP/2 has its own unambiguous framing.
func (l *listener) guard(ctx context.Context, c net.Conn) (net.Conn, error) {
	if l.tls == nil {
		return &guardConn{Conn: c, refused: &l.b.stats.refused}, nil
	}
	t := tls.Server(c, l.tls)
	ctx, cancel := context.WithTimeout(ctx, l.b.settings().Timeouts.Header)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		l.b.stats.handshakes.Add(1)
		if re, ok := err.(tls.RecordHeaderError); ok && re.Conn != nil {
			io.WriteString(re.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks HTTPS.\n")
		}
		return nil, err
	}
	if t.ConnectionState().NegotiatedProtocol == "h2" {
		return t, nil
	}
	return &guardTLS{guardConn: &guardConn{Conn: t, refused: &l.b.stats.refused}, tls: t}, nil
}

// Accept implements net.Listener for http.Server.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

func (b *Balancer) newServer(l *listener) *http.Server {
	t := b.settings().Timeouts
	srv := &http.Server{
		Handler:                      b,
		ReadHeaderTimeout:            t.Header,
		IdleTimeout:                  t.Idle,
		MaxHeaderBytes:               headerBytesMax,
		DisableGeneralOptionsHandler: true, // OPTIONS * is answered like the rest
		ErrorLog:                     log.New(serverLog{b}, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		// A large upload over a long way fills the window of one stream; the
		// default of 64 KiB would bind it to that much per round trip.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 4 << 20, MaxConcurrentStreams: 128},
	}
	if l.tls != nil {
		srv.TLSConfig = l.tls
	}
	return srv
}

type connKey struct{}

// exempt clients are bound by no limit per client: trusted proxies speak for
// many, and the upstreams themselves call the site (cron, Site Health, the
// editor's loopback).
func (b *Balancer) exempt(a netip.Addr) bool {
	if contains(b.settings().Trusted, a) {
		return true
	}
	for _, u := range b.pool.all() {
		if clientNet(addrOf(u.backend.Load().Addr)) == a {
			return true
		}
	}
	return false
}

// serverLog makes debug lines of what http.Server says about clients.
type serverLog struct{ b *Balancer }

func (s serverLog) Write(p []byte) (int, error) {
	s.b.log.Debug(string(p), "from", "http")
	return len(p), nil
}

// connCounter counts open connections, in all and by client.
type connCounter struct {
	mu       sync.Mutex
	byClient map[netip.Addr]int
	open     map[*countedConn]bool
}

func newConnCounter() *connCounter {
	return &connCounter{byClient: map[netip.Addr]int{}, open: map[*countedConn]bool{}}
}

// countedConn gives its place back when it is closed.
type countedConn struct {
	net.Conn
	n      *connCounter
	client netip.Addr
	once   sync.Once
}

func (n *connCounter) add(c net.Conn, client netip.Addr, exempt bool, l *Limits) (*countedConn, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.Conns > 0 && len(n.open) >= l.Conns || !exempt && l.ConnsPerClient > 0 && n.byClient[client] >= l.ConnsPerClient {
		return nil, false
	}
	cc := &countedConn{Conn: c, n: n, client: client}
	n.byClient[client]++
	n.open[cc] = true
	return cc, true
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		delete(c.n.open, c)
		if c.n.byClient[c.client]--; c.n.byClient[c.client] == 0 {
			delete(c.n.byClient, c.client)
		}
	})
	return c.Conn.Close()
}

func (n *connCounter) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.open)
}

func (n *connCounter) closeAll() {
	n.mu.Lock()
	var list []*countedConn
	for c := range n.open {
		list = append(list, c)
	}
	n.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}
