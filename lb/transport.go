package lb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Idle connections to upstreams. A web server closes its own after a while (nginx
// 75 s, Apache 5 s); a request that meets such a close may be repeated only if it
// changes nothing, so others use only connections that were busy a moment ago.
const (
	idleRead  = 4 * time.Second
	idleWrite = time.Second
	idleConns = 256 // per upstream
)

// transports are the connections to upstreams, by what a request may meet on them.
type transports struct {
	read, write, long *http.Transport
}

func newTransports(c *Config) transports {
	make := func(idle, answer time.Duration) *http.Transport {
		d := net.Dialer{Timeout: c.Timeouts.Connect, KeepAlive: 15 * time.Second}
		return &http.Transport{
			DialContext:            d.DialContext,
			DisableCompression:     true, // what the client accepts is the client's matter
			MaxIdleConnsPerHost:    idleConns,
			IdleConnTimeout:        idle,
			ResponseHeaderTimeout:  answer,
			ExpectContinueTimeout:  time.Second,
			ReadBufferSize:         16 << 10,
			WriteBufferSize:        16 << 10,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}
	return transports{
		read:  make(idleRead, c.Timeouts.Response),
		write: make(idleWrite, c.Timeouts.Response),
		long:  make(idleWrite, c.Timeouts.Long),
	}
}

func (t transports) of(r *http.Request, rule Rule) *http.Transport {
	switch {
	case rule.Long:
		return t.long
	case r.Method == get || r.Method == head:
		return t.read
	}
	return t.write
}

func (t transports) closeIdle() {
	t.read.CloseIdleConnections()
	t.write.CloseIdleConnections()
	t.long.CloseIdleConnections()
}

// What is wrong when no upstream gave an answer.
var (
	errNobody  = errors.New("no upstream answered")
	errNoSlots = errors.New("the upstream has too many requests in flight")
)

// RoundTrip sends the request to the upstream of its exchange, and to others
// while that can do no harm: nothing was sent yet, or the request only reads and
// the budget for repeating has room. A repeated request that finds nobody better
// gets the first one's answer.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	var held *http.Response
	var last error
	for try := 0; try < attemptsMax; try++ {
		u := x.choose()
		if u == nil {
			break
		}
		if try > 0 {
			x.b.stats.retries.Add(1)
			u.stats.retried.Add(1)
		}
		x.tried = append(x.tried, u)
		if err := x.enter(r.Context(), u); err != nil {
			return x.orHeld(held, err)
		}
		res, err := x.send(r, u)
		if err == nil {
			if res.StatusCode == http.StatusBadGateway && held == nil && x.mayRepeat(r) {
				held = res
				x.heldBy = x.holds
				x.holds = nil
				continue
			}
			drop(held, x.heldBy)
			return res, nil
		}
		x.leave()
		last = err
		if r.Context().Err() != nil || !unsent(err) && !x.mayRepeat(r) {
			return x.orHeld(held, err)
		}
	}
	if last == nil {
		last = errNobody
	} else if unsent(last) {
		last = fmt.Errorf("%w: %w", errNobody, last)
	}
	return x.orHeld(held, last)
}

// orHeld is the answer that is held, or the error without one.
func (x *exchange) orHeld(held *http.Response, err error) (*http.Response, error) {
	if held == nil {
		return nil, err
	}
	x.holds, x.heldBy = x.heldBy, nil
	x.up = x.holds.u
	return held, nil
}

func drop(held *http.Response, by *place) {
	if held != nil {
		held.Body.Close()
		by.give()
	}
}

// unsent reports whether no byte of the request left: there was no connection.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// mayRepeat reports whether the request may be sent again although an upstream
// has got it, and takes it from the budget.
func (x *exchange) mayRepeat(r *http.Request) bool {
	return (r.Method == get || r.Method == head) && r.Body == nil && len(x.tried) < len(x.b.pool.all()) && x.b.budget.take(time.Now())
}

// choose is the next upstream for the request.
func (x *exchange) choose() *upstream {
	all, now := x.b.pool.all(), time.Now()
	if x.rule.Pool == PoolAdmin {
		return x.b.admin.pick(all, x.tried, &x.s.Config, now)
	}
	if u := x.pinned; u != nil && !slices.Contains(x.tried, u) {
		if t, _ := u.standing(&x.s.Health, now); t <= tierReturning {
			return u
		}
	}
	return pick(x.key, all, x.tried, &x.s.Config, now)
}

// place is what a request in flight takes up at its upstream.
type place struct {
	u     *upstream
	slots chan struct{} // nil without a bound
	write bool
	once  sync.Once
}

func (p *place) give() {
	if p == nil {
		return
	}
	p.once.Do(func() {
		p.u.inflight.Add(-1)
		if p.write {
			p.u.writes.Add(-1)
		}
		if p.slots != nil {
			<-p.slots
		}
	})
}

// enter waits for a slot of u, for as long as the configuration allows.
func (x *exchange) enter(ctx context.Context, u *upstream) error {
	p := &place{u: u, write: x.writes}
	if c := *u.slots.Load(); cap(c) > 0 {
		select {
		case c <- struct{}{}:
		default:
			t := time.NewTimer(x.s.Timeouts.Queue)
			defer t.Stop()
			select {
			case c <- struct{}{}:
			case <-t.C:
				return errNoSlots
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p.slots = c
	}
	u.inflight.Add(1)
	if p.write {
		u.writes.Add(1)
	}
	x.holds = p
	return nil
}

// leave gives the place back. It may be called more than once.
func (x *exchange) leave() {
	x.holds.give()
	x.holds = nil
}

// send is one attempt.
func (x *exchange) send(r *http.Request, u *upstream) (*http.Response, error) {
	out, to := *r, *r.URL
	to.Scheme, to.Host = "http", u.backend.Load().Addr
	out.URL = &to
	if r.Body != nil {
		out.Body = io.NopCloser(r.Body) // the transport closes it when it cannot connect; the next attempt needs it
	}
	begin := time.Now()
	res, err := x.s.out.of(r, x.rule).RoundTrip(&out)
	u.stats.requests.Add(1)
	x.up = u
	if err != nil {
		if r.Context().Err() == nil && !x.clientFault() {
			x.b.upstreamFailed(u, err.Error())
		}
		return nil, err
	}
	u.stats.observe(x.rule.Pool, res.StatusCode, time.Since(begin))
	if isFailure(res) {
		x.b.upstreamFailed(u, "answered "+res.Status)
	} else {
		u.succeeded()
	}
	return res, nil
}

// isFailure is an answer that says that nobody behind the web server is there. A
// 503 with Retry-After is WordPress's own maintenance mode, and no failure.
func isFailure(res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	case http.StatusServiceUnavailable:
		return res.Header.Get("Retry-After") == ""
	}
	return false
}

func (b *Balancer) upstreamFailed(u *upstream, why string) {
	u.stats.failures.Add(1)
	h := &b.settings().Health
	if u.failed(h, why) && b.pool.eject(u, h) {
		b.log.Warn("upstream is ejected for a while: requests fail on it", "upstream", u.id, "err", why)
	}
}

// retryBudget bounds the repeated requests to a part of all, so that an overload
// is not multiplied (Google, Site Reliability Engineering, 21).
type retryBudget struct {
	mu                sync.Mutex
	window            int64
	requests, retries int
}

const budgetWindow = 10 // seconds

func (b *retryBudget) roll(now time.Time) {
	if w := now.Unix() / budgetWindow; w != b.window {
		b.window, b.requests, b.retries = w, 0, 0
	}
}

func (b *retryBudget) count(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roll(now)
	b.requests++
}

func (b *retryBudget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roll(now)
	if b.retries >= max(retryBudgetFloor, b.requests/retryBudgetPart) {
		return false
	}
	b.retries++
	return true
}
