package lb

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// goBackend is an upstream that only Go can be: it looks at bytes and breaks.
func goBackend(t testing.TB, id string, h http.HandlerFunc) Backend {
	t.Helper()
	if h == nil {
		h = func(http.ResponseWriter, *http.Request) {}
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Backend{ID: id, Addr: s.Listener.Addr().String()}
}

// TestHeaders: what upstreams hear about the client is ours, and nothing that PHP
// could mistake for it passes.
func TestHeaders(t *testing.T) {
	f := startFront(t, backendsOf(startSite(t, 1)), nil)
	e := f.ask("GET", "/a%2Fb/?x=1;y=%zz&z", nil,
		"Host", "shop.example", "X-Forwarded-For", "1.2.3.4", "X-Real-IP", "1.2.3.4", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil",
		"Forwarded", "for=1.2.3.4", "X-Forwarded-Port", "443", "Client-Ip", "9.9.9.9", "X_Forwarded_For", "1.2.3.4", "X_Real_IP", "1.2.3.4",
		"Proxy", "http://evil", "True-Client-IP", "1.2.3.4", "X-Original-URL", "/wp-admin/", "Connection", "X-Secret, keep-alive", "X-Secret", "1",
		"Authorization", "Basic QQ==", "X-WP-Nonce", "n", "X-HTTP-Method-Override", "PUT", "Traceparent", "00-ab-cd-01", "TE", "gzip")
	want := map[string]string{
		"HTTP_HOST": "shop.example", "HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_X_REAL_IP": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "http",
		"HTTP_X_FORWARDED_HOST": "shop.example", "HTTP_FORWARDED": `for=127.0.0.1;host="shop.example";proto=http`,
		"HTTP_AUTHORIZATION": "Basic QQ==", "HTTP_X_WP_NONCE": "n", "HTTP_X_HTTP_METHOD_OVERRIDE": "PUT", "HTTP_TRACEPARENT": "00-ab-cd-01",
		"HTTP_CLIENT_IP": "9.9.9.9",
	}
	for k, v := range want {
		if e.Server[k] != v {
			t.Errorf("%s is %q, want %q", k, e.Server[k], v)
		}
	}
	for _, k := range []string{"HTTP_PROXY", "HTTP_TRUE_CLIENT_IP", "HTTP_X_FORWARDED_PORT", "HTTP_X_ORIGINAL_URL", "HTTP_X_SECRET", "HTTP_TE", "HTTP_CONNECTION"} {
		if v, there := e.Server[k]; there && v != "" {
			t.Errorf("%s came through: %q", k, v)
		}
	}
	if e.URI != "/a%2Fb/?x=1;y=%zz&z" {
		t.Errorf("the path and query became %s", e.URI)
	}
	// nginx drops some of these too; a web server that does not must not get them.
	seen := make(chan http.Header, 1)
	f = startFront(t, []Backend{goBackend(t, "go", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })}, nil)
	f.do("GET", "/", nil, "Proxy", "http://evil", "X_Forwarded_For", "1.2.3.4", "X-Real-IP", "1.2.3.4", "X-Accel-Redirect", "/secret")
	h := <-seen
	for _, name := range []string{"Proxy", "X_Forwarded_For", "X_forwarded_for", "X-Accel-Redirect"} {
		if v, there := h[name]; there {
			t.Errorf("%s came through: %q", name, v)
		}
	}
	if h.Get("X-Real-Ip") != "127.0.0.1" {
		t.Errorf("X-Real-IP is %q", h.Get("X-Real-Ip"))
	}
}

// TestTrustedProxies: their word counts, right to left; nobody else's does.
func TestTrustedProxies(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, backendsOf(nodes), func(c *Config) {
		c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	})
	for _, row := range []struct{ xff, client, chain string }{
		{"203.0.113.7", "203.0.113.7", "203.0.113.7, 127.0.0.1"},
		{"6.6.6.6, 203.0.113.7, 10.1.1.1", "203.0.113.7", "6.6.6.6, 203.0.113.7, 10.1.1.1, 127.0.0.1"},
		{"203.0.113.7, nonsense", "127.0.0.1", "203.0.113.7, nonsense, 127.0.0.1"},
		{"[2001:db8::7]:4711", "2001:db8::7", "[2001:db8::7]:4711, 127.0.0.1"},
		{"10.9.9.9", "10.9.9.9", "10.9.9.9, 127.0.0.1"},
		{"", "127.0.0.1", "127.0.0.1"},
	} {
		var h []string
		if row.xff != "" {
			h = []string{"X-Forwarded-For", row.xff}
		}
		e := f.ask("GET", "/", nil, append(h, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "www.example")...)
		if e.Server["HTTP_X_REAL_IP"] != row.client || e.Server["HTTP_X_FORWARDED_FOR"] != row.chain {
			t.Errorf("%q: client %q, chain %q", row.xff, e.Server["HTTP_X_REAL_IP"], e.Server["HTTP_X_FORWARDED_FOR"])
		}
		if e.Server["HTTP_X_FORWARDED_PROTO"] != "https" || e.Server["HTTP_X_FORWARDED_HOST"] != "www.example" {
			t.Errorf("%q: proto %q, host %q", row.xff, e.Server["HTTP_X_FORWARDED_PROTO"], e.Server["HTTP_X_FORWARDED_HOST"])
		}
	}
}

// TestProxyProtocol: v1 and v2 of a trusted peer name the client; without one the
// connection is of no use.
func TestProxyProtocol(t *testing.T) {
	f := startFront(t, backendsOf(startSite(t, 1)), func(c *Config) {
		c.ProxyProtocol, c.Trusted = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	const get = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xcb\x00\x71\x08" + "\x0a\x00\x00\x01" + "\x12\x67\x00\x50"
	for name, row := range map[string]struct{ head, want string }{
		"v1":   {"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n", `"HTTP_X_REAL_IP":"203.0.113.7"`},
		"v2":   {v2, `"HTTP_X_FORWARDED_FOR":"203.0.113.8"`},
		"none": {"", ""},
	} {
		if got := f.raw(row.head + get); !strings.Contains(got, row.want) || row.want == "" && strings.Contains(got, " 200 ") {
			t.Errorf("%s: %.600q", name, got)
		}
	}
}

// TestPaths: one decoding decides the route, the upstream gets what the client
// sent, and what leads out of the site gets nowhere.
func TestPaths(t *testing.T) {
	nodes := startSite(t, 2)
	f := startFront(t, backendsOf(nodes), func(c *Config) { c.Admin = []string{"web2"} })
	for _, p := range []string{"/wp-admin/x", "//wp-admin//x", "/blog/wp-admin/x", "/wp%2dadmin/x", "/a/%2e%2e/wp-admin/x", "/./wp-admin/x"} {
		got := f.raw("GET " + p + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, `"node":"web2"`) || !strings.Contains(got, `"uri":"`+strings.ReplaceAll(p, "/", `\/`)+`"`) {
			t.Errorf("%s: %.400q", p, got)
		}
	}
	for _, p := range []string{"/../etc/passwd", "/a/../../b", "/%2e%2e/%2e%2e/x", "/..%5c..%5cx", "/a%00b", "/%zz", "/%", "*", "x"} {
		if got := f.raw("GET " + p + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %.100q", p, got)
		}
	}
	for _, m := range []string{"TRACE / ", "CONNECT a:80 ", "OPTIONS * "} {
		if got := f.raw(m + "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %.100q", m, got)
		}
	}
	if got := f.raw("GET / HTTP/1.0\r\n\r\n"); !strings.Contains(got, "names no host") {
		t.Errorf("no host: %.100q", got)
	}
}

// TestUploads: bodies of both kinds arrive whole, none is stored here.
func TestUploads(t *testing.T) {
	f := startFront(t, backendsOf(startSite(t, 1)), nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	sum := md5.Sum(big)
	for name, body := range map[string]io.Reader{"of known length": bytes.NewReader(big), "chunked": struct{ io.Reader }{bytes.NewReader(big)}} {
		e := f.ask("POST", "/wp-admin/async-upload.php", body)
		if e.Length != len(big) || e.MD5 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %d bytes arrived", name, e.Length)
		}
	}
	f2 := startFront(t, f.settings().Backends, func(c *Config) { c.Limits.Body = 1000 })
	for name, body := range map[string]io.Reader{"of known length": bytes.NewReader(big), "chunked": struct{ io.Reader }{bytes.NewReader(big)}} {
		if res, _ := f2.do("POST", "/", body); res.StatusCode != 413 {
			t.Errorf("too large, %s: %s", name, res.Status)
		}
	}
}

// TestExpectContinue: the client is told to go on only when an upstream has been
// found; without one nothing of the upload is sent.
func TestExpectContinue(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, backendsOf(nodes), nil)
	const ask = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, ask)
	r := bufio.NewReader(c)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	io.WriteString(c, "hello")
	rest, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(rest), `"length":5`) {
		t.Errorf("%q, %v", rest, err)
	}
	nodes[0].kill()
	if got := f.raw(ask); strings.Contains(got, "100 Continue") || !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("nobody is there: %.200q", got)
	}
}

// TestPassThrough: what HTTP has beside plain answers comes through.
func TestPassThrough(t *testing.T) {
	b := goBackend(t, "go", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hints":
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(200)
		case "/trailer":
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
		case "/notmodified":
			w.Header().Set("Etag", `"1"`)
			w.WriteHeader(http.StatusNotModified)
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	f := startFront(t, append(backendsOf(startSite(t, 1)), b), func(c *Config) {
		c.Admin = []string{"go"}
		c.Rules = []Rule{{Path: "~^/(hints|trailer|notmodified|events)$", Pool: PoolAdmin}}
	})
	t.Run("1xx", func(t *testing.T) {
		var link string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				link = h.Get("Link")
			}
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, "GET", f.url+"/hints", nil)
		res, err := f.hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || link == "" {
			t.Errorf("%s, Link %q", res.Status, link)
		}
	})
	t.Run("trailers", func(t *testing.T) {
		res, body := f.do("GET", "/trailer", nil)
		if body != "body" || res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%q, %v", body, res.Trailer)
		}
	})
	t.Run("304", func(t *testing.T) {
		if res, body := f.do("GET", "/notmodified", nil, "If-None-Match", `"1"`); res.StatusCode != 304 || body != "" || res.Header.Get("Etag") != `"1"` {
			t.Errorf("%s %q", res.Status, body)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if res, body := f.do("HEAD", "/hello.txt", nil); res.StatusCode != 200 || res.ContentLength < 1000 || body != "" {
			t.Errorf("%s, %d, %q", res.Status, res.ContentLength, body)
		}
	})
	t.Run("Range", func(t *testing.T) {
		if res, body := f.do("GET", "/hello.txt", nil, "Range", "bytes=0-4"); res.StatusCode != 206 || body != "hello" {
			t.Errorf("%s %q", res.Status, body)
		}
	})
	t.Run("events", func(t *testing.T) {
		req, _ := http.NewRequest("GET", f.url+"/events", nil)
		res, err := f.hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if err != nil || line != "data: 1\n" {
			t.Errorf("%q, %v", line, err)
		}
	})
}

// TestUpgrade: a WebSocket is a plain stream in both directions, without the
// times that requests have.
func TestUpgrade(t *testing.T) {
	b := goBackend(t, "go", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.Copy(c, rw)
	})
	f := startFront(t, []Backend{b}, func(c *Config) { c.Timeouts.Stall, c.Timeouts.Header = 200*time.Millisecond, 200*time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	time.Sleep(500 * time.Millisecond) // longer than any of the times
	const frames = "\x81\x05hello\n\n\x00\r\n"
	io.WriteString(c, frames)
	got := make([]byte, len(frames))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != frames {
		t.Errorf("%q, %v", got, err)
	}
	c.Close()
	within(t, "the log has it", func() error {
		if l := f.accessLog(); !strings.Contains(l, `"GET / HTTP/1.1" 101 `) {
			return errors.New(l)
		}
		return nil
	})
}

// TestSlowReader: an upstream is done although the client does not read. The
// answer is larger than what the kernel's buffers hold.
func TestSlowReader(t *testing.T) {
	var done atomic.Int64
	const size = 40 << 20
	b := goBackend(t, "go", func(w http.ResponseWriter, r *http.Request) {
		for range size >> 16 {
			w.Write(make([]byte, 1<<16))
		}
		http.NewResponseController(w).Flush()
		done.Add(1)
	})
	run := func(ahead int64) (*front, net.Conn) {
		f := startFront(t, []Backend{b}, func(c *Config) { c.Limits.ReadAhead = ahead })
		d := net.Dialer{Control: smallBuffer}
		c, err := d.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		return f, c
	}
	f, c := run(size + 1)
	within(t, "the upstream is done", func() error {
		if done.Load() == 0 || f.Status().Upstreams[0].InFlight != 0 {
			return errors.New("it waits for the client")
		}
		return nil
	})
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	within(t, "what was read ahead is given back", func() error {
		if n := f.Stats().ReadAheadBytes; n != 0 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
}

// TestSlowloris: a header, or a body, that does not arrive in time ends the
// connection; so does a client that does not read.
func TestSlowloris(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, backendsOf(nodes), func(c *Config) { c.Timeouts.Header, c.Timeouts.Stall = 300*time.Millisecond, 300*time.Millisecond })
	closes := func(name, begin string, drip func(c net.Conn)) {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, begin)
		if drip != nil {
			go drip(c)
		}
		c.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	closes("a header", "GET / HTTP/1.1\r\nHost: a\r\n", func(c net.Conn) {
		for i := 0; i < 200; i++ {
			if _, err := fmt.Fprintf(c, "X-%d: 1\r\n", i); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	closes("a body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello", nil)
	closes("nothing", "", nil)
	got := f.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello")
	if !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("a body that stalls: %.100q", got)
	}
	// A client that does not read: the answer is larger than all buffers.
	d := net.Dialer{Control: smallBuffer}
	c, err := d.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /?size=50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
	within(t, "the request is in flight", func() error {
		if f.Status().InFlight == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	within(t, "the request of a client that does not read ends", func() error {
		if s := f.Status(); s.Connections > 0 || s.InFlight > 0 {
			return fmt.Errorf("%d connections, %d requests", s.Connections, s.InFlight)
		}
		return nil
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestConnLimits: so many connections of one client, and no more; others get in.
func TestConnLimits(t *testing.T) {
	f := startFront(t, []Backend{goBackend(t, "go", func(http.ResponseWriter, *http.Request) {})}, func(c *Config) { c.Limits.ConnsPerClient = 3 })
	// Upstreams are exempt, and this one is at 127.0.0.1.
	open := func(from string) bool {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		return err == nil
	}
	for i := range 5 {
		if got, want := open("127.0.0.9"), i < 3; got != want {
			t.Errorf("connection %d: served %v, want %v", i+1, got, want)
		}
	}
	for range 5 {
		if !open("127.0.0.1") {
			t.Error("an upstream's own request was refused")
		}
	}
	if !open("127.0.0.8") {
		t.Error("another client was refused")
	}
	if f.Stats().ConnsRefused != 2 {
		t.Errorf("refused %d", f.Stats().ConnsRefused)
	}
}
