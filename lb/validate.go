package lb

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Validate checks each field against its rule. The error joins one line for each
// field that breaks its rule: the field, the rule and the value. Fields are named
// as keys below lb of the configuration file.
func (c *Config) Validate() error {
	var bad []error
	rule := func(ok bool, field, format string, a ...any) {
		if !ok {
			bad = append(bad, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, a...)))
		}
	}
	rule(len(c.HTTP)+len(c.HTTPS) > 0, "listen", "needs an address, or listen_tls does")
	for _, a := range c.HTTP {
		rule(hostPort(a), "listen", "each must be host:port, one is %q", a)
	}
	for _, a := range c.HTTPS {
		rule(hostPort(a), "listen_tls", "each must be host:port, one is %q", a)
	}
	rule(len(c.HTTPS) == 0 || len(c.Certificates)+len(c.ACME.Names) > 0, "certificates", "listen_tls needs at least one certificate, or acme_names")
	if err := c.ACME.validate(); err != nil {
		rule(false, "acme_names", "%v", err)
	}
	rule(len(c.ACME.Names) == 0 || len(c.HTTP) > 0 && len(c.HTTPS) > 0, "acme_names", "needs listen, where the CA asks, and listen_tls")
	rule(c.ACME.Roots == nil || x509.NewCertPool().AppendCertsFromPEM(c.ACME.Roots), "acme_ca_roots", "has no certificate in it")
	c.validateBackends(rule)
	rule(c.Affinity == AffinityIP || c.Affinity == AffinityCookie || c.Affinity == AffinityNone, "affinity", "must be ip, cookie or none, is %q", c.Affinity)
	rule(c.Affinity != AffinityCookie || len(c.CookieKey) >= 32, "cookie_key_file", "affinity cookie needs a key of 32 bytes or more, has %d", len(c.CookieKey))
	rule(c.HTTPSMode == HTTPSAll || c.HTTPSMode == HTTPSAdminOnly || c.HTTPSMode == HTTPSOff, "https", "must be all, admin-only or off, is %q", c.HTTPSMode)
	rule(c.HSTS >= 0, "hsts", "must not be negative, is %v", c.HSTS)
	rule(c.LogFormat == LogCombined || c.LogFormat == LogJSON, "access_log_format", "must be combined or json, is %q", c.LogFormat)
	rule(!c.ProxyProtocol || len(c.Trusted) > 0, "proxy_protocol", "needs trusted_proxies: nobody else may say where a connection comes from")
	rule(c.Health.Path == "" || c.Health.Path[0] == '/', "health_path", "must begin with /, is %q", c.Health.Path)
	rule(c.Health.Rise > 0 && c.Health.Fall > 0 && c.Health.FailMax > 0, "health", "rise, fall and the failures that eject must be positive")
	for _, d := range []struct {
		field string
		d     time.Duration
	}{
		{"health_every", c.Health.Every}, {"health_timeout", c.Health.Timeout}, {"header_timeout", c.Timeouts.Header},
		{"stall_timeout", c.Timeouts.Stall}, {"idle_timeout", c.Timeouts.Idle}, {"connect_timeout", c.Timeouts.Connect},
		{"response_timeout", c.Timeouts.Response}, {"long_timeout", c.Timeouts.Long}, {"queue_timeout", c.Timeouts.Queue},
	} {
		rule(d.d > 0, d.field, "must be more than 0, is %v", d.d)
	}
	for _, n := range []struct {
		field string
		n     int64
	}{
		{"max_conns", int64(c.Limits.Conns)}, {"max_conns_per_client", int64(c.Limits.ConnsPerClient)}, {"max_upstream_conns", int64(c.Limits.UpstreamConns)},
		{"max_body", c.Limits.Body}, {"login_per_minute", int64(c.Limits.LoginPerMinute)}, {"xmlrpc_per_minute", int64(c.Limits.XMLRPCPerMinute)},
		{"comment_per_minute", int64(c.Limits.CommentPerMin)}, {"read_ahead", c.Limits.ReadAhead},
	} {
		rule(n.n >= 0, n.field, "must not be negative, is %d", n.n)
	}
	for _, r := range c.Rules {
		if err := r.validate(); err != nil {
			rule(false, "rules", "%v", err)
		}
	}
	return errors.Join(bad...)
}

func (c *Config) validateBackends(rule func(ok bool, field, format string, a ...any)) {
	seen := map[string]bool{}
	for _, b := range c.Backends {
		if err := b.Validate(); err != nil {
			rule(false, "upstreams", "%v", err)
		}
		rule(!seen[b.ID], "upstreams", "lists the id %q twice", b.ID)
		seen[b.ID] = true
	}
}

// hostPort wants a port from 0 (the system chooses) to 65535; the host may be
// empty (all addresses).
func hostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	return err == nil && perr == nil && n >= 0 && n <= 65535
}
