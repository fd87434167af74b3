package lb

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// exchange is one request and its answer on their way through the balancer.
type exchange struct {
	b      *Balancer
	s      *settings
	o      origin
	rule   Rule
	key    uint64    // of affinity
	pinned *upstream // by cookie
	writes bool      // the request changes something
	begin  time.Time

	body   *requestBody // nil without one
	tried  []*upstream
	up     *upstream // the last that was tried
	holds  *place    // at up
	heldBy *place    // of an answer that waits for a better one
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// ServeHTTP is one request. Everything that can be said without an upstream is
// said here.
func (b *Balancer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b.stats.inflight.Add(1)
	defer b.stats.inflight.Add(-1)
	x := &exchange{b: b, s: b.settings(), begin: time.Now()}
	w := newRecorder(rw, r, x.s.Timeouts.Stall)
	x.o = originOf(r, x.s.Trusted)
	defer x.finish(w, r)
	if why := malformed(r); why != "" {
		b.stats.refused.Add(1)
		answerText(w, http.StatusBadRequest, why)
		return
	}
	a := askOf(r)
	x.rule = route(x.s.rules, a)
	if a.loggedIn && x.s.LoggedInAdmin && x.rule.Pool == PoolAny && !isFile(a.path) {
		x.rule.Pool = PoolAdmin
	}
	x.writes = r.Method != get && r.Method != head && r.Method != http.MethodOptions
	if r.ContentLength != 0 {
		x.body = newRequestBody(w, r, x.s.Timeouts.Stall, x.s.Limits.Body)
		r.Body = x.body
	}
	if x.answered(w, r) {
		return
	}
	if x.o.https && x.s.HSTS > 0 {
		w.Header().Set("Strict-Transport-Security", x.s.hsts())
	}
	x.proxy(w, r)
}

// isFile is a path that names a file other than a script.
func isFile(p string) bool {
	name := p[strings.LastIndexByte(p, '/')+1:]
	return strings.Contains(name, ".") && !strings.HasSuffix(name, ".php")
}

// answered answers what needs no upstream: refusals, redirects, maintenance.
func (x *exchange) answered(w *recorder, r *http.Request) bool {
	switch {
	case x.b.certs.acme != nil && x.b.certs.acme.challenged(w, r):
	case x.s.Limits.Body > 0 && r.ContentLength > x.s.Limits.Body:
		answerText(w, http.StatusRequestEntityTooLarge, "The request is larger than this site allows.")
	case x.s.toHTTPS(x.o, x.rule):
		x.s.redirectHTTPS(w, r)
	case x.rule.Deny:
		answerText(w, http.StatusForbidden, "This address is closed on this site.")
	case x.b.maint.Load() && !contains(x.s.MaintenanceAllow, x.o.client):
		x.b.stats.maintenance.Add(1)
		x.s.answerUnavailable(w, r, x.rule, maintenanceRetry)
	default:
		return x.limited(w, r)
	}
	return true
}

func (x *exchange) limited(w *recorder, r *http.Request) bool {
	if x.rule.Limit == LimitNone || x.b.exempt(clientNet(x.o.client)) {
		return false
	}
	ok, err := x.b.limits.allow(r, x.rule.Limit, x.o.client, &x.s.Limits)
	switch {
	case err != nil:
		answerText(w, http.StatusBadRequest, "The request broke off.")
	case !ok:
		x.b.stats.limited.Add(1)
		w.Header().Set("Retry-After", "60")
		answerText(w, http.StatusTooManyRequests, "Too many requests. Try again in a minute.")
	}
	return err != nil || !ok
}

// proxy passes the request to an upstream and its answer to the client.
func (x *exchange) proxy(w *recorder, r *http.Request) {
	x.b.budget.count(x.begin)
	x.key = affinityKey(x.o.client)
	switch x.s.Affinity {
	case AffinityNone:
		x.key = mix(uint64(x.begin.UnixNano()))
	case AffinityCookie:
		x.pinned = x.b.pool.find(cookieUpstream(r, x.s.CookieKey))
	}
	ctx := r.Context()
	if x.rule.Pool == PoolAdmin && x.writes {
		// A client that goes away does not stop an update half way: PHP would be
		// told, and end. What it still says is read and dropped.
		ctx = context.WithoutCancel(ctx)
		w.finish = true
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, exchangeKey{}, x))
	w.cancel = cancel
	defer cancel()
	defer x.leave()
	x.s.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// newProxy is the ReverseProxy of a configuration.
func (b *Balancer) newProxy(s *settings) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      roundTripper{},
		BufferPool:     bufferPool{},
		ModifyResponse: passAnswer,
		ErrorHandler:   answerFailure,
		ErrorLog:       newServerLog(b),
	}
}

// roundTripper hands over to the request's exchange.
type roundTripper struct{}

func (roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	return exchangeOf(r.Context()).RoundTrip(r)
}

// passAnswer wraps the body of an answer, and pins the client if that is wanted.
func passAnswer(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	if x.s.Affinity == AffinityCookie && x.rule.Pool == PoolAny && x.pinned != x.up {
		res.Header.Add("Set-Cookie", affinityCookie(x.up.id, x.s.CookieKey, x.o.https).String())
	}
	if x.s.HSTS > 0 && x.o.https {
		res.Header.Del("Strict-Transport-Security") // ours is there; two are one too many (RFC 6797, 8.1)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	p := x.holds
	limit := x.s.Timeouts.Response
	if x.rule.Long || isStream(res) {
		limit = x.s.Timeouts.Long
	}
	body := &answerBody{ReadCloser: res.Body, done: p.give}
	body.stall = stall{limit: limit, over: func() { body.ReadCloser.Close() }}
	res.Body = body
	if x.s.Limits.ReadAhead > 0 && (res.ContentLength < 0 || res.ContentLength > smallBody) {
		res.Body = newReadAhead(body, x.s.Limits.ReadAhead, &x.b.stats.readAhead)
	}
	return nil
}

func isStream(res *http.Response) bool {
	return strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}

// clientFault reports whether the client's body broke, not the upstream.
func (x *exchange) clientFault() bool { return x.body.failure() != nil }

var errTooLarge = errors.New("the body is larger than allowed")

// answerFailure is for requests that no upstream answered.
func answerFailure(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	rec := w.(*recorder)
	var timeout net.Error
	switch bodyErr := x.body.failure(); {
	case errors.Is(bodyErr, errTooLarge):
		answerText(w, http.StatusRequestEntityTooLarge, "The request is larger than this site allows.")
	case bodyErr != nil && x.body.stall.fired.Load():
		answerText(w, http.StatusRequestTimeout, "The request did not arrive in time.")
	case bodyErr != nil:
		answerText(w, http.StatusBadRequest, "The request broke off.")
	case r.Context().Err() != nil:
		rec.status = statusClientGone // nobody hears an answer
	case errors.Is(err, errNobody):
		x.b.log.Warn("no upstream answered", "path", r.URL.Path, "err", err)
		x.b.stats.nobody.Add(1)
		x.s.answerUnavailable(rec, r, x.rule, nobodyRetry)
	case errors.Is(err, errNoSlots):
		x.b.stats.noSlots.Add(1)
		w.Header().Set("Retry-After", "5")
		answerText(w, http.StatusServiceUnavailable, "The site is busy. Try again in a moment.")
	case errors.As(err, &timeout) && timeout.Timeout():
		answerText(w, http.StatusGatewayTimeout, "The site did not answer in time. What you sent may have been done all the same.")
	default:
		x.b.log.Warn("an upstream broke off", "path", r.URL.Path, "err", err)
		answerText(w, http.StatusBadGateway, "The connection to the site broke off. What you sent may have been done all the same.")
	}
}

// statusClientGone is nginx's 499.
const statusClientGone = 499

// recorder is the ResponseWriter of a request. It remembers what was answered,
// and ends what stalls.
type recorder struct {
	http.ResponseWriter
	rc     *http.ResponseController
	major  int
	limit  time.Duration
	stall  stall
	status int
	bytes  int64
	finish bool // the answer is taken to its end even if nobody reads it
	gone   bool // nobody does
	cancel context.CancelFunc
	raw    bool // upgraded
}

func newRecorder(w http.ResponseWriter, r *http.Request, limit time.Duration) *recorder {
	rec := &recorder{ResponseWriter: w, rc: http.NewResponseController(w), major: r.ProtoMajor, limit: limit}
	rec.stall = stall{limit: limit, over: func() { rec.rc.SetWriteDeadline(past) }}
	if rec.major == 1 {
		rec.rc.SetWriteDeadline(time.Time{}) // of the request before
	}
	return rec
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if w.gone {
		return len(p), nil
	}
	w.stall.begin()
	n, err := w.ResponseWriter.Write(p)
	w.stall.end()
	w.bytes += int64(n)
	return w.orGone(len(p), n, err)
}

func (w *recorder) orGone(all, n int, err error) (int, error) {
	if err != nil && w.finish {
		w.gone = true
		return all, nil
	}
	return n, err
}

// FlushError implements what ResponseController looks for.
func (w *recorder) FlushError() error {
	if w.gone {
		return nil
	}
	w.stall.begin()
	err := w.rc.Flush()
	w.stall.end()
	_, err = w.orGone(0, 0, err)
	return err
}

// Hijack hands the connection over; it is HTTP no longer.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.rc.Hijack()
	if err == nil {
		w.raw, w.status = true, http.StatusSwitchingProtocols // which goes past WriteHeader
		if g, ok := c.(interface{ pass() }); ok {
			g.pass()
		}
	}
	return c, rw, err
}

// Unwrap gives ResponseController the rest.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// finish ends a request: what is left in buffers goes out within a time, and the
// log has its line.
func (x *exchange) finish(w *recorder, r *http.Request) {
	if w.major == 1 && !w.raw {
		w.rc.SetWriteDeadline(time.Now().Add(w.limit))
	}
	if w.status == 0 {
		w.status = statusClientGone
	}
	x.b.stats.observe(w.status, time.Since(x.begin))
	if x.b.access != nil {
		x.b.access.write(x.entry(w, r))
	}
}
