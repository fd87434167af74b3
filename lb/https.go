package lb

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// certEvery is how many seconds lie between two looks at the certificate files.
const certEvery = 10

// certStore has the certificates by name. Lookups take no lock.
type certStore struct {
	now  atomic.Pointer[certSet]
	acme *acmeClient // nil without a Store
	mu   sync.Mutex  // guards loading
}

type certSet struct {
	files  []CertificateFiles
	stamps []time.Time
	byName map[string]*tls.Certificate
	first  *tls.Certificate // for clients that name no host, or one that nobody has
}

// load reads all files. On an error the former certificates stay.
func (s *certStore) load(files []CertificateFiles) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := readCertificates(files)
	if err == nil {
		s.now.Store(set)
	}
	return err
}

// reload reads the files again if one of them is newer than what is in use.
func (s *certStore) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now.Load()
	changed := false
	for i, f := range now.files {
		stamp, err := newest(f)
		if err != nil {
			return err
		}
		changed = changed || !stamp.Equal(now.stamps[i])
	}
	if !changed {
		return nil
	}
	set, err := readCertificates(now.files)
	if err == nil {
		s.now.Store(set)
	}
	return err
}

func newest(f CertificateFiles) (time.Time, error) {
	c, cerr := os.Stat(f.Cert)
	k, kerr := os.Stat(f.Key)
	if err := errors.Join(cerr, kerr); err != nil {
		return time.Time{}, err
	}
	if k.ModTime().After(c.ModTime()) {
		return k.ModTime(), nil
	}
	return c.ModTime(), nil
}

func readCertificates(files []CertificateFiles) (*certSet, error) {
	set := &certSet{files: files, byName: map[string]*tls.Certificate{}}
	for _, f := range files {
		stamp, err := newest(f)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		c, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("certificates: %s and %s: %w", f.Cert, f.Key, err)
		}
		set.stamps = append(set.stamps, stamp)
		for _, name := range c.Leaf.DNSNames {
			if name = strings.ToLower(name); set.byName[name] == nil {
				set.byName[name] = &c
			}
		}
		if set.first == nil {
			set.first = &c
		}
	}
	return set, nil
}

// get is tls.Config.GetCertificate: the name's file, what ACME has for it, the file
// of its wildcard, or the first.
func (s *certStore) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := s.now.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if c := set.byName[name]; c != nil {
		return c, nil
	}
	if s.acme != nil {
		if c := s.acme.certificate(hello); c != nil {
			return c, nil
		}
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if c := set.byName["*."+parent]; c != nil {
			return c, nil
		}
	}
	if set.first == nil {
		return nil, fmt.Errorf("there is no certificate for %q (yet)", hello.ServerName)
	}
	return set.first, nil
}

// tlsConfig is for TLS 1.2 and newer with forward secrecy and authenticated
// encryption: Go's TLS 1.3 suites, and these of 1.2 (Mozilla's intermediate).
func (s *certStore) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.get,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}

// toHTTPS reports whether the request is redirected: it came in the clear, and
// the mode or its rule wants HTTPS. Without a TLS port of our own somebody else
// has to end TLS, and only a trusted proxy can say whether it did.
func (s *settings) toHTTPS(o origin, r Rule) bool {
	if o.https || len(s.HTTPS) == 0 && !o.trusted {
		return false
	}
	return s.HTTPSMode == HTTPSAll || s.HTTPSMode == HTTPSAdminOnly && r.HTTPS
}

// redirectHTTPS sends the client to the same URL with https. 301 would make a
// GET of a POST, 308 does not (RFC 9110, 15.4.9).
func (s *settings) redirectHTTPS(w http.ResponseWriter, r *http.Request) {
	code := http.StatusPermanentRedirect
	if r.Method == get || r.Method == head {
		code = http.StatusMovedPermanently
	}
	w.Header().Set("Location", "https://"+s.httpsHost(r.Host)+r.URL.RequestURI())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code)
}

// httpsHost is the host with the port that browsers reach HTTPS at.
func (s *settings) httpsHost(host string) string {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
		if strings.Contains(h, ":") {
			name = "[" + h + "]"
		}
	}
	if name == host || len(s.HTTPS) == 0 {
		return name // the standard port of http was asked for: the one of https is meant
	}
	if _, port, _ := net.SplitHostPort(s.HTTPS[0]); port != "443" && port != "0" {
		return name + ":" + port
	}
	return name
}

func (s *settings) hsts() string {
	return "max-age=" + strconv.FormatInt(int64(s.HSTS/time.Second), 10)
}
