package lb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// ACME is where certificates come from that are no files (RFC 8555). All balancers
// that share a Store share them: one of them gets each, any of them answers the
// CA's challenge (HTTP-01, so port 80 must lead to them).
type ACME struct {
	Names []string      // hosts, without wildcards; none: no ACME
	Email string        // for the CA; may be empty
	CA    string        // URL of the CA's directory; "": Let's Encrypt
	Roots []byte        // PEM: whom to believe to be the CA; nil: the system's
	Every time.Duration // between two looks at what must be renewed; 0: 10 min
}

func (a *ACME) validate() error {
	for _, n := range a.Names {
		if n != strings.ToLower(n) || strings.ContainsAny(n, "*:/ ") || !strings.Contains(n, ".") {
			return errors.New("each must be a host name in small letters, without wildcard or port, one is \"" + n + "\"")
		}
	}
	return nil
}

// acmeClient gets certificates and keeps them fresh.
type acmeClient struct {
	store *certStorage
	log   *slog.Logger
	now   atomic.Pointer[acmeState]
}

// acmeState is a configuration at work.
type acmeState struct {
	ACME
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer
	stop   context.CancelFunc
}

// work takes over a configuration, if it is another one: the certificates of its
// names are read from the store, or asked for, in the background, until ctx ends.
func (a *acmeClient) work(ctx context.Context, c ACME) {
	old := a.now.Load()
	if old != nil && slices.Equal(old.Names, c.Names) && old.Email == c.Email && old.CA == c.CA && string(old.Roots) == string(c.Roots) {
		return
	}
	if old == nil && len(c.Names) == 0 {
		return
	}
	s := a.begin(ctx, c)
	a.now.Store(s)
	if old != nil {
		old.end()
	}
}

func (a *acmeClient) begin(ctx context.Context, c ACME) *acmeState {
	ctx, stop := context.WithCancel(ctx)
	s := &acmeState{ACME: c, stop: stop}
	log := zap.NewNop() // what matters comes as an event
	s.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return s.config, nil },
		RenewCheckInterval: c.Every, Logger: log,
	})
	s.config = certmagic.New(s.cache, certmagic.Config{Storage: a.store, Logger: log, OnEvent: a.event})
	s.issuer = certmagic.NewACMEIssuer(s.config, certmagic.ACMEIssuer{
		CA: c.CA, Email: c.Email, Agreed: true, DisableTLSALPNChallenge: true, TrustedRoots: rootPool(c.Roots), Logger: log,
	})
	s.config.Issuers = []certmagic.Issuer{s.issuer}
	if err := s.config.ManageAsync(ctx, c.Names); err != nil {
		a.log.Error("certificates cannot be managed", "names", c.Names, "err", err)
	}
	return s
}

// event logs what becomes of certificates.
func (a *acmeClient) event(_ context.Context, event string, data map[string]any) error {
	switch event {
	case "cert_obtained":
		a.log.Info("a certificate was issued", "name", data["identifier"], "renewal", data["renewal"])
	case "cert_failed":
		a.log.Error("a certificate could not be had; it is tried again", "name", data["identifier"], "renewal", data["renewal"], "err", data["error"])
	}
	return nil
}

func (s *acmeState) end() {
	s.stop()
	s.cache.Stop()
}

// close ends the work.
func (a *acmeClient) close() {
	if s := a.now.Swap(nil); s != nil {
		s.end()
	}
}

func rootPool(pem []byte) *x509.CertPool {
	if pem == nil {
		return nil
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p
}

// certificate is the one for the host that a client asks for, if it is one of
// ours and there already.
func (a *acmeClient) certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	s := a.now.Load()
	if s == nil || !slices.Contains(s.Names, strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))) {
		return nil
	}
	c, err := s.config.GetCertificate(hello)
	if err != nil {
		a.log.Debug("there is no certificate yet", "name", hello.ServerName, "err", err)
		return nil
	}
	return c
}

// challenged answers the CA's question, whoever asked for the certificate.
func (a *acmeClient) challenged(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		return false
	}
	s := a.now.Load()
	return s != nil && s.issuer.HandleHTTPChallenge(w, r)
}
