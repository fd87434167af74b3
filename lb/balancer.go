package lb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a Balancer is made of, beside its configuration.
type Options struct {
	Config Config
	Source Source        // nil: NoSource
	Store  Store         // shared by all balancers, for ACME; nil: no ACME
	Access *AccessLog    // nil: no access log
	Logger *slog.Logger  // nil: none
	Drain  time.Duration // how long requests in flight may take when Run ends; 0: 30 s
}

// Balancer takes requests and passes them to upstreams. New starts nothing;
// Listen opens the ports, Run does the work. Its other methods may be called at
// any time from any goroutine and do not block on the network.
type Balancer struct {
	log    *slog.Logger
	access *AccessLog
	source Source
	drain  time.Duration

	set     atomic.Pointer[settings]
	pool    *pool
	admin   adminPool
	limits  *limiters
	budget  retryBudget
	conns   *connCounter
	stats   stats
	certs   certStore
	maint   atomic.Bool
	reloads chan struct{} // Run looks again

	listeners []*listener // of Listen; Run owns them
}

// settings is a configuration ready for use. It is replaced, never changed.
type settings struct {
	Config
	rules []matcher
	page  []byte
	proxy http.Handler
	out   transports
}

// New checks the configuration and reads the certificates.
func New(o Options) (*Balancer, error) {
	b := &Balancer{
		log: o.Logger, access: o.Access, source: o.Source, drain: o.Drain,
		pool: newPool(), limits: newLimiters(), conns: newConnCounter(), reloads: make(chan struct{}, 1),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.source == nil {
		b.source = NoSource{}
	}
	if b.drain == 0 {
		b.drain = 30 * time.Second
	}
	if o.Store != nil {
		b.certs.acme = &acmeClient{store: newCertStorage(o.Store), log: b.log}
	}
	if err := b.adopt(o.Config); err != nil {
		return nil, err
	}
	b.pool.update(b.backends(), o.Config.Limits.UpstreamConns)
	return b, nil
}

func (b *Balancer) settings() *settings { return b.set.Load() }

// adopt makes c the configuration, if all of it is right.
func (b *Balancer) adopt(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if len(c.ACME.Names) > 0 && b.certs.acme == nil {
		return errors.New("acme_names: there is nowhere to keep certificates")
	}
	if err := b.certs.load(c.Certificates); err != nil {
		return err
	}
	s := &settings{Config: c, rules: compileRules(c.Rules), page: c.MaintenancePage}
	if s.page == nil {
		s.page = builtinPage
	}
	s.out = newTransports(&c)
	s.proxy = b.newProxy(s)
	old := b.set.Swap(s)
	if old != nil {
		old.out.closeIdle()
	}
	return nil
}

// Reload makes c the configuration of all requests that come from now on; those
// in flight end with the one they began with. On an error nothing has changed.
// What belongs to the ports cannot change: addresses, PROXY protocol, the times
// for a header and for an idle connection.
func (b *Balancer) Reload(c Config) error {
	now := b.settings()
	if !slices.Equal(c.HTTP, now.HTTP) {
		return fmt.Errorf("listen: cannot change from %v to %v in a running balancer; restart it", now.HTTP, c.HTTP)
	}
	if !slices.Equal(c.HTTPS, now.HTTPS) {
		return fmt.Errorf("listen_tls: cannot change from %v to %v in a running balancer; restart it", now.HTTPS, c.HTTPS)
	}
	if c.ProxyProtocol != now.ProxyProtocol {
		return errors.New("proxy_protocol: cannot change in a running balancer; restart it")
	}
	if c.Timeouts.Header != now.Timeouts.Header || c.Timeouts.Idle != now.Timeouts.Idle {
		return errors.New("header_timeout, idle_timeout: cannot change in a running balancer; restart it")
	}
	if err := b.adopt(c); err != nil {
		return err
	}
	select {
	case b.reloads <- struct{}{}:
	default: // Run will look anyway
	}
	return nil
}

// backends are the static ones, then those of the source that are in order.
func (b *Balancer) backends() []Backend {
	list := slices.Clone(b.settings().Backends)
	for _, s := range b.source.Backends() {
		if err := s.Validate(); err != nil {
			b.log.Warn("a member cannot be an upstream", "upstream", s.ID, "err", err)
			continue
		}
		list = append(list, s)
	}
	return list
}

// Listen opens the ports of the configuration. They are closed when Run returns,
// or by Close if it never ran.
func (b *Balancer) Listen() error {
	c := b.settings()
	open := func(addrs []string, tls bool) error {
		for _, a := range addrs {
			l, err := net.Listen("tcp", a)
			if err != nil {
				return errors.Join(fmt.Errorf("listen on %s: %w", a, err), b.Close())
			}
			b.listeners = append(b.listeners, b.newListener(l, tls))
		}
		return nil
	}
	if err := open(c.HTTP, false); err != nil {
		return err
	}
	return open(c.HTTPS, true)
}

// Close closes the ports of a balancer that does not run.
func (b *Balancer) Close() error {
	var errs []error
	for _, l := range b.listeners {
		errs = append(errs, l.Close())
	}
	b.listeners = nil
	return errors.Join(errs...)
}

// Addrs are the addresses that Listen opened, in the order of the configuration:
// in the clear, and with TLS.
func (b *Balancer) Addrs() (plain, tls []net.Addr) {
	for _, l := range b.listeners {
		if l.tls != nil {
			tls = append(tls, l.Addr())
		} else {
			plain = append(plain, l.Addr())
		}
	}
	return plain, tls
}

// Run serves until ctx ends; then it takes no new connection, lets requests in
// flight end for Options.Drain, and returns nil. An error means that it could
// not go on.
func (b *Balancer) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx while requests drain
	defer stop()
	failed := make(chan error, len(b.listeners))
	var servers []*http.Server
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, l := range b.listeners {
		srv := b.newServer(l)
		servers = append(servers, srv)
		wg.Go(func() { l.accept(work) })
		wg.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve on %s: %w", l.Addr(), err)
			}
		})
	}
	wg.Go(func() { b.follow(work) })
	wg.Go(func() { b.tick(work) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	b.finish(servers)
	stop()
	return err
}

// finish ends the servers in good order: keep-alive connections close after the
// request they have, upgraded ones when they end, all when the time is over.
func (b *Balancer) finish(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), b.drain)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			if err := s.Shutdown(ctx); err != nil {
				s.Close()
			}
		})
	}
	wg.Wait()
	b.stats.awaitIdle(ctx)
	b.conns.closeAll() // upgraded connections, which http.Server does not know any more
}

// follow keeps the upstreams equal to what source and configuration say.
func (b *Balancer) follow(ctx context.Context) {
	k := newChecker(b)
	defer k.wg.Wait()
	k.watch(ctx, b.pool.all(), nil)
	if b.certs.acme != nil {
		defer b.certs.acme.close()
	}
	for {
		if b.certs.acme != nil {
			b.certs.acme.work(ctx, b.settings().ACME)
		}
		changed := b.source.Changed() // before it is read, so that no change is missed
		added, removed := b.pool.update(b.backends(), b.settings().Limits.UpstreamConns)
		k.watch(ctx, added, removed)
		for _, u := range added {
			b.log.Info("new upstream", "upstream", u.id, "addr", u.backend.Load().Addr)
		}
		for _, u := range removed {
			b.log.Info("upstream is gone", "upstream", u.id)
		}
		select {
		case <-changed:
		case <-b.reloads:
		case <-ctx.Done():
			return
		}
	}
}

// tick does what has to be done now and then.
func (b *Balancer) tick(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for n := 0; ; n++ {
		if b.access != nil {
			b.access.Flush()
		}
		if n%certEvery == 0 {
			if err := b.certs.reload(); err != nil {
				b.log.Error("a changed certificate cannot be used; the former one stays", "err", err)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Abandon closes all connections at once, whatever is lost with them.
func (b *Balancer) Abandon() { b.conns.closeAll() }

// Maintenance answers every request with the maintenance page, or ends that.
// Clients in Config.MaintenanceAllow pass.
func (b *Balancer) Maintenance(on bool) { b.maint.Store(on) }

// Drain keeps new requests from an upstream, or lets them come again. Requests
// in flight end undisturbed; [Upstream].InFlight tells how many. An error means
// that there is no such upstream.
func (b *Balancer) Drain(id string, on bool) error {
	if !b.pool.drain(id, on) {
		var ids []string
		for _, u := range b.pool.all() {
			ids = append(ids, u.id)
		}
		return fmt.Errorf("there is no upstream %q; there are %v", id, ids)
	}
	return nil
}

// Restore takes over what a former process was told: maintenance mode, and the
// drained upstreams, which need not be there yet.
func (b *Balancer) Restore(maintenance bool, drained []string) {
	b.maint.Store(maintenance)
	b.pool.restore(drained)
}
