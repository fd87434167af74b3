package lb

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned writes a certificate for the names and returns its files.
func selfSigned(t testing.TB, dir string, names ...string) CertificateFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := CertificateFiles{Cert: filepath.Join(dir, names[0]+".pem"), Key: filepath.Join(dir, names[0]+".key")}
	writeFile(t, f.Cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, f.Key, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kder})))
	return f
}

func withTLS(t testing.TB, mode HTTPSMode) func(*Config) {
	files := selfSigned(t, t.TempDir(), "shop.example", "www.shop.example")
	return func(c *Config) {
		c.HTTPS, c.HTTPSMode, c.Certificates = []string{"127.0.0.1:0"}, mode, []CertificateFiles{files}
	}
}

// TestHTTPS: HTTP/2 and HTTP/1 over TLS, the scheme told to PHP, HSTS once.
func TestHTTPS(t *testing.T) {
	f := startFront(t, backendsOf(startSite(t, 1)), func(c *Config) {
		withTLS(t, HTTPSAll)(c)
		c.HSTS = time.Hour
	})
	res, body := f.do("GET", f.tls+"/?hsts=1", nil)
	if res.ProtoMajor != 2 || !strings.Contains(body, `"HTTP_X_FORWARDED_PROTO":"https"`) || res.Header.Get("Strict-Transport-Security") != "max-age=3600" || len(res.Header.Values("Strict-Transport-Security")) != 1 {
		t.Errorf("%s, %v, %s", res.Proto, res.Header, body)
	}
	if e := f.ask("POST", f.tls+"/wp-admin/x", strings.NewReader(strings.Repeat("x", 1<<20))); e.Length != 1<<20 {
		t.Errorf("of an upload over HTTP/2 %d bytes arrived", e.Length)
	}
	f.hc.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	res, body = f.do("GET", f.tls+"/", nil)
	if res.ProtoMajor != 1 || !strings.Contains(body, `"HTTP_X_FORWARDED_PROTO":"https"`) {
		t.Errorf("%s, %s", res.Proto, body)
	}
	c, err := tls.Dial("tcp", strings.TrimPrefix(f.tls, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := rawOn(t, c, ambiguous["length and coding"]); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("smuggling over TLS: %.100q", got)
	}
	if got := (&front{t: t, url: "http" + strings.TrimPrefix(f.tls, "https")}).raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, "speaks HTTPS") {
		t.Errorf("plain HTTP on the TLS port: %q", got)
	}
}

// TestTLSVersions: 1.2 and 1.3, with forward secrecy.
func TestTLSVersions(t *testing.T) {
	f := startFront(t, []Backend{goBackend(t, "go", func(http.ResponseWriter, *http.Request) {})}, withTLS(t, HTTPSAll))
	dial := func(c *tls.Config) error {
		c.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", strings.TrimPrefix(f.tls, "https://"), c)
		if err == nil {
			conn.Close()
		}
		return err
	}
	for name, row := range map[string]struct {
		c  *tls.Config
		ok bool
	}{
		"1.3": {&tls.Config{MinVersion: tls.VersionTLS13}, true},
		"1.2": {&tls.Config{MaxVersion: tls.VersionTLS12}, true},
		"1.1": {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		"CBC": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		"RSA": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
	} {
		if err := dial(row.c); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRedirects: which plain requests go to HTTPS, and how.
func TestRedirects(t *testing.T) {
	nodes := startSite(t, 1)
	all := startFront(t, backendsOf(nodes), withTLS(t, HTTPSAll))
	classic := startFront(t, backendsOf(nodes), withTLS(t, HTTPSAdminOnly))
	behind := startFront(t, backendsOf(nodes), func(c *Config) {
		c.HTTPSMode, c.Trusted = HTTPSAll, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	bare := startFront(t, backendsOf(nodes), func(c *Config) { c.HTTPSMode = HTTPSAll })
	for _, row := range []struct {
		f            *front
		method, path string
		headers      []string
		want         int
	}{
		{all, "GET", "/", nil, 301}, {all, "HEAD", "/a?b=c", nil, 301}, {all, "POST", "/", nil, 308}, {all, "PUT", "/wp-json/x", nil, 308},
		{all, "GET", "/", []string{"X-Forwarded-Proto", "https"}, 301}, // anybody can say that
		{classic, "GET", "/", nil, 200}, {classic, "GET", "/wp-admin/", nil, 301}, {classic, "POST", "/wp-login.php", nil, 308},
		{classic, "POST", "/wp-admin/admin-ajax.php", nil, 200}, {classic, "GET", "/wp-admin/load-styles.php", nil, 200}, {classic, "GET", "/wp-admin/css/x.css", nil, 200},
		{behind, "GET", "/", nil, 301}, {behind, "GET", "/", []string{"X-Forwarded-Proto", "https"}, 200},
		{bare, "GET", "/", nil, 200},
	} {
		res, _ := row.f.do(row.method, row.path, nil, append(row.headers, "Host", "shop.example")...)
		if res.StatusCode != row.want {
			t.Errorf("%s %s: %s, want %d", row.method, row.path, res.Status, row.want)
		}
		if want := "https://shop.example" + row.path; res.StatusCode > 300 && res.Header.Get("Location") != want {
			t.Errorf("%s %s leads to %q, want %q", row.method, row.path, res.Header.Get("Location"), want)
		}
	}
	s := &settings{Config: Config{HTTPS: []string{":8443"}}}
	for host, want := range map[string]string{"a": "a", "a:80": "a:8443", "a:8080": "a:8443", "[::1]:8080": "[::1]:8443"} {
		if got := s.httpsHost(host); got != want {
			t.Errorf("%s becomes %s, want %s", host, got, want)
		}
	}
}

// TestCertificates: by name, by wildcard, else the first; a changed file counts
// without a restart, a broken one does not.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	a, b := selfSigned(t, dir, "shop.example"), selfSigned(t, dir, "x.example", "*.x.example")
	var s certStore
	if err := s.load([]CertificateFiles{a, b}); err != nil {
		t.Fatal(err)
	}
	name := func(server string) string {
		c, err := s.get(&tls.ClientHelloInfo{ServerName: server})
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.Subject.CommonName
	}
	for server, want := range map[string]string{"shop.example": "shop.example", "SHOP.example.": "shop.example", "a.x.example": "x.example", "a.b.x.example": "shop.example", "": "shop.example", "other": "shop.example"} {
		if got := name(server); got != want {
			t.Errorf("%q gets the certificate of %s, want %s", server, got, want)
		}
	}
	serial := func() string { c, _ := s.get(&tls.ClientHelloInfo{}); return c.Leaf.SerialNumber.String() }
	before := serial()
	selfSigned(t, dir, "shop.example")
	touch(t, a.Cert, time.Now().Add(time.Minute))
	if err := s.reload(); err != nil || serial() == before {
		t.Errorf("a new certificate is not used: %v", err)
	}
	before = serial()
	writeFile(t, a.Cert, "broken")
	touch(t, a.Cert, time.Now().Add(2*time.Minute))
	if err := s.reload(); err == nil || !strings.Contains(err.Error(), a.Cert) || serial() != before {
		t.Errorf("a broken certificate: %v", err)
	}
	if err := s.load([]CertificateFiles{{Cert: "/none", Key: "/none"}}); err == nil || serial() != before {
		t.Errorf("a missing certificate: %v", err)
	}
}

func touch(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// TestValidate: each rule names its field.
func TestValidate(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"listen:":            func(c *Config) { c.HTTP = nil },
		"listen: each":       func(c *Config) { c.HTTP = []string{"80"} },
		"listen_tls":         func(c *Config) { c.HTTPS = []string{"443"} },
		"certificates":       func(c *Config) { c.HTTPS = []string{":443"} },
		"twice":              func(c *Config) { c.Backends = []Backend{{ID: "a", Addr: "h:1"}, {ID: "a", Addr: "h:2"}} },
		"upstreams":          func(c *Config) { c.Backends = []Backend{{ID: "a b", Addr: ":1", Weight: -1, Health: "ftp://x"}} },
		"affinity":           func(c *Config) { c.Affinity = "x" },
		"cookie_key_file":    func(c *Config) { c.Affinity = AffinityCookie },
		"https:":             func(c *Config) { c.HTTPSMode = "x" },
		"hsts":               func(c *Config) { c.HSTS = -1 },
		"access_log_format":  func(c *Config) { c.LogFormat = "x" },
		"proxy_protocol":     func(c *Config) { c.ProxyProtocol = true },
		"health_path":        func(c *Config) { c.Health.Path = "x" },
		"health:":            func(c *Config) { c.Health.Rise = 0 },
		"connect_timeout":    func(c *Config) { c.Timeouts.Connect = 0 },
		"max_upstream_conns": func(c *Config) { c.Limits.UpstreamConns = -1 },
		"rules":              func(c *Config) { c.Rules = []Rule{{Path: "x"}} },
	} {
		c := Defaults()
		c.HTTP = []string{":80"}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestListen: a port in use is named, and nothing stays open.
func TestListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := Defaults()
	free := freePort(t)
	c.HTTP = []string{free, l.Addr().String()}
	b, err := New(Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("%v", err)
	}
	if again, err := net.Listen("tcp", free); err != nil {
		t.Errorf("the other port stays open: %v", err)
	} else {
		again.Close()
	}
}
