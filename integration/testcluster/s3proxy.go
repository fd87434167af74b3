package testcluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// S3Fault is what an [S3Proxy] does to requests.
type S3Fault struct {
	// Method it is about; "": all.
	Method string
	// Every so many-th request is hit; 0: each.
	Every int
	// One of these. Status answers with it and does nothing. Refuse closes the
	// connection at once, as a server that is gone does. Stall takes the request
	// and never answers. Lose carries it out and closes the connection instead of
	// answering. Cut ends the connection in the middle of the answer's body.
	// Slow delays the answer.
	Status int
	Refuse bool
	Stall  bool
	Lose   bool
	Cut    bool
	Slow   time.Duration
}

// S3Proxy stands between the agents and an [S3] and fails as networks, proxies
// and overloaded servers do. It runs in the test's own process.
type S3Proxy struct {
	s3    *S3
	addr  string
	srv   *http.Server
	ended chan error

	mu    sync.Mutex
	fault *S3Fault
	seen  int           // requests that the fault is about
	heal  chan struct{} // closed when stalled requests are let go

	hit, passed atomic.Int64
}

// StartProxy starts a proxy in front of the server, which may be stopped and
// started behind it.
func (s *Session) StartProxy(s3 *S3) (*S3Proxy, error) {
	n, _, _, err := s.next()
	if err != nil {
		return nil, err
	}
	p := &S3Proxy{s3: s3, addr: s.network(n) + ".251:7071", ended: make(chan error, 1), heal: make(chan struct{})}
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		return nil, err
	}
	target := &url.URL{Scheme: "http", Host: s3.Addr}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: p.cut,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { abort() },
	}
	p.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(pass, w, r) })}
	go func() { p.ended <- p.srv.Serve(ln) }()
	return p, nil
}

// Close ends the proxy and its connections.
func (p *S3Proxy) Close() error {
	p.Heal()
	err := p.srv.Close()
	if serr := <-p.ended; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// URL is object.url for the server's bucket through the proxy.
func (p *S3Proxy) URL() string {
	through := *p.s3
	through.Addr = p.addr
	return through.URL()
}

// Fail lets requests fail from now on.
func (p *S3Proxy) Fail(f S3Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = &f, 0
}

// Heal ends the fault. Requests that stall are closed.
func (p *S3Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = nil
	close(p.heal)
	p.heal = make(chan struct{})
}

// Counts tells how many requests were hit by a fault and how many passed.
func (p *S3Proxy) Counts() (hit, passed int64) { return p.hit.Load(), p.passed.Load() }

// meets is the fault that a request meets, if any.
func (p *S3Proxy) meets(r *http.Request) (*S3Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fault
	if f == nil || f.Method != "" && f.Method != r.Method {
		return nil, nil
	}
	if p.seen++; f.Every > 1 && p.seen%f.Every != 0 {
		return nil, nil
	}
	return f, p.heal
}

// cutKey marks the requests whose answers are cut.
type cutKey struct{}

func (p *S3Proxy) serve(pass http.Handler, w http.ResponseWriter, r *http.Request) {
	f, heal := p.meets(r)
	if f == nil {
		p.passed.Add(1)
		pass.ServeHTTP(w, r)
		return
	}
	p.hit.Add(1)
	switch {
	case f.Status != 0:
		_, _ = io.Copy(io.Discard, r.Body) // else the client sees a broken pipe instead of the status
		w.WriteHeader(f.Status)
	case f.Refuse:
		abort()
	case f.Stall:
		select {
		case <-heal:
		case <-r.Context().Done():
		}
		abort()
	case f.Lose:
		pass.ServeHTTP(discard{http.Header{}}, r)
		abort()
	case f.Cut:
		pass.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), cutKey{}, true)))
	default:
		select {
		case <-time.After(f.Slow):
		case <-heal:
		case <-r.Context().Done():
		}
		pass.ServeHTTP(w, r)
	}
}

// abort closes the connection without an answer.
func abort() {
	panic(http.ErrAbortHandler)
}

// discard is an answer that nobody gets.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// cut lets the body of an answer break off half-way.
func (p *S3Proxy) cut(r *http.Response) error {
	if r.Request.Context().Value(cutKey{}) != nil && r.ContentLength > 1 {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r.Body, r.ContentLength/2), r.Body}
	}
	return nil
}
