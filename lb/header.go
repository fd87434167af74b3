package lb

import (
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
)

// malformed names what is wrong with a request that no upstream should see, or "".
// net/http and guardConn have refused the rest.
func malformed(r *http.Request) string {
	switch {
	case r.Host == "":
		return "The request names no host."
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return "This method is not for web sites."
	case r.URL.Path == "*" && r.Method == http.MethodOptions:
		return "This is not the server itself."
	case !strings.HasPrefix(r.URL.Path, "/"):
		return "The path must begin with a slash."
	case strings.ContainsRune(r.URL.Path, 0):
		return "The path has a NUL in it."
	case climbs(r.URL.Path):
		return "The path leads out of the site."
	}
	return ""
}

// climbs reports whether dot segments of a decoded path lead above its root. A
// backslash is a slash to some.
func climbs(p string) bool {
	if !strings.Contains(p, "..") {
		return false
	}
	depth := 0
	for _, seg := range strings.FieldsFunc(p, func(c rune) bool { return c == '/' || c == '\\' }) {
		switch seg {
		case ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

// Headers that tell an upstream who and what the client is. Only we say that.
var ourHeaders = []string{
	"X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip",
	"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Prefix", "Forwarded", "Front-End-Https", "X-Url-Scheme",
	"X-Original-Url", "X-Rewrite-Url", "X-Accel-Redirect", "X-Sendfile",
}

// rewrite makes the request that goes to the upstream: host, path and query as
// they came, our own word on the client, and nothing that PHP could mistake for it.
func rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.Out.Context())
	p.Out.URL.RawQuery = p.In.URL.RawQuery // ReverseProxy drops what Go cannot parse; PHP might
	h := p.Out.Header
	for name := range h {
		if !plainName(name) {
			delete(h, name)
		}
	}
	delete(h, "Proxy") // CGI makes HTTP_PROXY of it (CVE-2016-5385)
	chain := x.forwardedFor(p.In)
	host := x.o.host
	if x.o.trusted {
		if f := p.In.Header.Values("X-Forwarded-Host"); len(f) == 1 && plainHost(f[0]) {
			host = f[0]
		}
	}
	for _, name := range ourHeaders {
		delete(h, name)
	}
	proto := "http"
	if x.o.https {
		proto = "https"
	}
	h["X-Real-Ip"] = []string{x.o.client.String()}
	h["X-Forwarded-For"] = []string{chain}
	h["X-Forwarded-Proto"] = []string{proto}
	h["X-Forwarded-Host"] = []string{host}
	h["Forwarded"] = []string{"for=" + forwardedNode(x.o.client) + `;host="` + host + `";proto=` + proto}
	if x.s.Affinity == AffinityCookie {
		dropCookie(h, cookieName)
	}
}

// forwardedFor is the chain that upstreams see: behind a trusted proxy its own
// with the proxy's address at the end, otherwise the client alone.
func (x *exchange) forwardedFor(in *http.Request) string {
	if before := in.Header.Values("X-Forwarded-For"); x.o.trusted && len(before) > 0 {
		return strings.Join(before, ", ") + ", " + x.o.peer.String()
	}
	return x.o.client.String()
}

// forwardedNode is RFC 7239's node.
func forwardedNode(a netip.Addr) string {
	if a.Is6() {
		return `"[` + a.String() + `]"`
	}
	return a.String()
}

// plainName: letters, digits and dashes. CGI makes an underscore of a dash, so
// X_Forwarded_For would be X-Forwarded-For to PHP.
func plainName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return name != ""
}

func plainHost(h string) bool {
	for i := 0; i < len(h); i++ {
		if c := h[i]; !plainName(string(c)) && !strings.ContainsRune(".:[]_", rune(c)) {
			return false
		}
	}
	return h != ""
}
