package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wpfs/wpfs/lb"
)

// WebConfig is this machine's web server, as balancers of the cluster see it.
type WebConfig struct {
	Addr   string `key:"addr" doc:"host:port of this machine's web server (nginx, Apache) for the cluster's balancers; an empty host is the one of cluster.advertise. Empty: this node is no upstream."`
	Zone   string `key:"zone" doc:"Zone of this node; balancers with the same lb.zone prefer it."`
	Weight int    `key:"weight" doc:"Its share of the requests against the other nodes', 1 to 1000."`
}

// LBConfig is the balancer role.
type LBConfig struct {
	Listen       []string        `key:"listen" doc:"host:port to take HTTP at. Neither this nor lb.listen_tls: this node has no balancer."`
	ListenTLS    []string        `key:"listen_tls" doc:"host:port to take HTTPS at; needs lb.certificates or lb.acme_names."`
	Certificates []LBCertificate `key:"certificates" doc:"cert and key each (as text: CERT|KEY,…): PEM files, the chain with the leaf first. Changed files are used within 10 s. The first is for clients that name no host, or one that no certificate has."`
	ACMENames    []string        `key:"acme_names" doc:"Host names whose certificates are fetched and renewed by ACME. Port 80 of each must lead to the balancers."`
	ACMEEmail    string          `key:"acme_email" doc:"Address that the CA may write to."`
	ACMECA       string          `key:"acme_ca" doc:"URL of the CA's ACME directory. Default: Let's Encrypt. By using it you agree to the CA's terms."`
	ACMECARoots  string          `key:"acme_ca_roots" doc:"PEM file with the roots that the CA's own HTTPS is checked against, for a private CA."`
	ACMEDir      string          `key:"acme_dir" doc:"Where wpfs lb run keeps certificates. An agent keeps them in the cluster, so that all balancers share them, and needs none."`
	HTTPS        string          `key:"https" doc:"Which plain requests are sent to HTTPS: all, admin-only (login and administration) or off. Without lb.listen_tls only those of a trusted proxy that says so are."`
	HSTS         time.Duration   `key:"hsts" doc:"max-age of Strict-Transport-Security on HTTPS answers. Browsers remember it: begin with 5m. 0: none."`

	Upstreams     []LBUpstream  `key:"upstreams" doc:"Web servers beside those of the cluster's nodes (web.addr): id, addr, and if wanted weight, zone, health (a URL that answers 200) each (as text: id=host:port,…)."`
	Zone          string        `key:"zone" doc:"Upstreams of this zone are preferred while one of them is up."`
	Affinity      string        `key:"affinity" doc:"How a client stays with its upstream: ip (IPv4 whole, IPv6 its /64), cookie or none."`
	CookieKeyFile string        `key:"cookie_key_file" doc:"File with the secret of the affinity cookie, 32 bytes or more, the same on all balancers."`
	Admin         []string      `key:"admin" doc:"Ids of the upstreams that administration prefers, best first. Without: one that all balancers agree on."`
	LoggedInAdmin bool          `key:"logged_in_admin" doc:"Send every page of logged-in users to the administration's upstream. Customers of a shop are logged in too."`
	Rules         []LBRule      `key:"rules" doc:"Rules before the built-in ones (docs/BALANCER.md): path, methods, query, who, pool, https, long, json, limit, deny each (as text: 'PATH pool=admin methods=POST|PUT deny', …)."`
	Trusted       []string      `key:"trusted_proxies" doc:"Addresses or networks (CIDR) whose X-Forwarded-For, -Proto and -Host are believed."`
	ProxyProtocol bool          `key:"proxy_protocol" doc:"Connections from lb.trusted_proxies begin with a PROXY protocol header, v1 or v2."`
	HealthPath    string        `key:"health_path" doc:"Path asked of each web server beside the node's own health, such as a small PHP page; 2xx and 3xx are good. Empty: a TCP connection must do."`
	HealthHost    string        `key:"health_host" doc:"Host header of that request. Empty: the upstream's address."`
	HealthEvery   time.Duration `key:"health_every" doc:"Time between two checks of an upstream."`
	HealthTimeout time.Duration `key:"health_timeout" doc:"Time for one check."`

	HeaderTimeout   time.Duration `key:"header_timeout" doc:"A request's header must have arrived by then."`
	StallTimeout    time.Duration `key:"stall_timeout" doc:"A body must move on within this time, in either direction. There is no limit for the whole of it."`
	IdleTimeout     time.Duration `key:"idle_timeout" doc:"How long a connection without a request is kept."`
	ConnectTimeout  time.Duration `key:"connect_timeout" doc:"Time to connect to an upstream."`
	ResponseTimeout time.Duration `key:"response_timeout" doc:"Time for an upstream to begin its answer, and between two pieces of it."`
	LongTimeout     time.Duration `key:"long_timeout" doc:"The same for administration; WordPress allows its updates 300 s."`
	QueueTimeout    time.Duration `key:"queue_timeout" doc:"How long a request waits for a place at its upstream, before 503."`
	DrainTimeout    time.Duration `key:"drain_timeout" doc:"How long requests in flight may take when the balancer stops."`

	MaxConns          int   `key:"max_conns" doc:"Connections of clients. 0: no limit, here and below."`
	MaxConnsPerClient int   `key:"max_conns_per_client" doc:"Connections of one client (IPv6: /64). Trusted proxies and upstreams are exempt, here and below."`
	MaxUpstreamConns  int   `key:"max_upstream_conns" doc:"Requests in flight to one upstream; more wait. Twice the number of PHP workers is a good value."`
	MaxBody           Bytes `key:"max_body" doc:"Size of a request's body."`
	LoginPerMinute    int   `key:"login_per_minute" doc:"Logins of one client, and for one user name. Each balancer counts for itself."`
	XMLRPCPerMinute   int   `key:"xmlrpc_per_minute" doc:"Calls of xmlrpc.php of one client; a multicall counts as each of its calls."`
	CommentPerMinute  int   `key:"comment_per_minute" doc:"Comments of one client."`
	ReadAhead         Bytes `key:"read_ahead" doc:"How much of an answer is taken from the upstream before the client reads it, so that a slow client keeps no PHP worker."`

	MaintenancePage  string   `key:"maintenance_page" doc:"HTML file instead of the built-in page."`
	MaintenanceAllow []string `key:"maintenance_allow" doc:"Addresses or networks that maintenance mode lets through."`
	StateFile        string   `key:"state_file" doc:"File that keeps drained upstreams and maintenance mode across restarts. Default on an agent: lb.json below node.data_dir."`
	AccessLog        string   `key:"access_log" doc:"File for one line per request; - is standard output. Empty: none. SIGHUP opens it anew."`
	AccessLogFormat  string   `key:"access_log_format" doc:"combined (with upstream and seconds behind) or json."`
}

// enabled tells that there is a balancer.
func (c *LBConfig) enabled() bool { return len(c.Listen)+len(c.ListenTLS) > 0 }

func defaultLBConfig() LBConfig {
	d := lb.Defaults()
	return LBConfig{
		HTTPS: string(d.HTTPSMode), Affinity: string(d.Affinity),
		HealthEvery: d.Health.Every, HealthTimeout: d.Health.Timeout,
		HeaderTimeout: d.Timeouts.Header, StallTimeout: d.Timeouts.Stall, IdleTimeout: d.Timeouts.Idle, ConnectTimeout: d.Timeouts.Connect,
		ResponseTimeout: d.Timeouts.Response, LongTimeout: d.Timeouts.Long, QueueTimeout: d.Timeouts.Queue, DrainTimeout: 10 * time.Second,
		MaxConns: d.Limits.Conns, MaxConnsPerClient: d.Limits.ConnsPerClient, MaxUpstreamConns: d.Limits.UpstreamConns, MaxBody: Bytes(d.Limits.Body),
		LoginPerMinute: d.Limits.LoginPerMinute, XMLRPCPerMinute: d.Limits.XMLRPCPerMinute, CommentPerMinute: d.Limits.CommentPerMin,
		ReadAhead: Bytes(d.Limits.ReadAhead), AccessLogFormat: string(d.LogFormat),
	}
}

// LBCertificate is a certificate's two files.
type LBCertificate struct {
	Cert string `key:"cert"`
	Key  string `key:"key"`
}

// UnmarshalText reads CERT|KEY.
func (c *LBCertificate) UnmarshalText(b []byte) error {
	cert, key, ok := strings.Cut(string(b), "|")
	if !ok {
		return fmt.Errorf("%q is not CERT|KEY", b)
	}
	c.Cert, c.Key = strings.TrimSpace(cert), strings.TrimSpace(key)
	return nil
}

// LBUpstream is a static upstream.
type LBUpstream struct {
	ID     string  `key:"id"`
	Addr   string  `key:"addr"`
	Weight float64 `key:"weight"`
	Zone   string  `key:"zone"`
	Health string  `key:"health"`
}

// UnmarshalText reads id=host:port.
func (u *LBUpstream) UnmarshalText(b []byte) error {
	var p Peer
	if err := p.UnmarshalText(b); err != nil {
		return err
	}
	u.ID, u.Addr = p.ID, p.Addr
	return nil
}

// LBRule is an lb.Rule in the file.
type LBRule struct {
	Path    string   `key:"path"`
	Methods []string `key:"methods"`
	Query   []string `key:"query"`
	Who     string   `key:"who"`
	Pool    string   `key:"pool"`
	HTTPS   bool     `key:"https"`
	Long    bool     `key:"long"`
	JSON    bool     `key:"json"`
	Limit   string   `key:"limit"`
	Deny    bool     `key:"deny"`
}

// UnmarshalText reads "PATH word …", where a word is pool=P, methods=A|B,
// query=A|B, who=W, limit=L, https, long, json or deny.
func (r *LBRule) UnmarshalText(b []byte) error {
	words := strings.Fields(string(b))
	if len(words) == 0 {
		return errors.New("a rule is empty")
	}
	r.Path = words[0]
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "pool":
			r.Pool = value
		case "methods":
			r.Methods = strings.Split(value, "|")
		case "query":
			r.Query = strings.Split(value, "|")
		case "who":
			r.Who = value
		case "limit":
			r.Limit = value
		case "https":
			r.HTTPS = true
		case "long":
			r.Long = true
		case "json":
			r.JSON = true
		case "deny":
			r.Deny = true
		default:
			return fmt.Errorf("a rule for %s has %q%s", r.Path, w, suggestion(name, listKeys["lb.rules"]))
		}
	}
	return nil
}

func (c *Config) validateWeb(rule ruleFunc) {
	rule(c.Web.Addr == "" || isHostPort(c.Web.Addr), "web.addr", "must be host:port or empty, is %q", c.Web.Addr)
	rule(c.Web.Weight >= 1 && c.Web.Weight <= 1000, "web.weight", "must be 1 to 1000, is %d", c.Web.Weight)
	rule(len(c.Web.Zone) <= nodeIDMax, "web.zone", "must be at most %d bytes long", nodeIDMax)
}

// validateLB checks the section, if there is a balancer.
func (c *Config) validateLB(rule ruleFunc) {
	if !c.LB.enabled() {
		return
	}
	_, err := c.LB.options()
	for _, err := range unjoin(err) {
		key, why, _ := strings.Cut(err.Error(), ": ")
		rule(false, "lb."+key, "%s", why)
	}
	rule(c.LB.DrainTimeout > 0, "lb.drain_timeout", "must be more than 0, is %v", c.LB.DrainTimeout)
	rule(c.LB.AccessLog == "" || c.LB.AccessLog == "-" || filepath.IsAbs(c.LB.AccessLog), "lb.access_log", "must be an absolute path or -, is %q", c.LB.AccessLog)
	rule(c.LB.ACMEDir == "" || filepath.IsAbs(c.LB.ACMEDir), "lb.acme_dir", "must be an absolute path, is %q", c.LB.ACMEDir)
	u, uerr := url.Parse(c.LB.ACMECA)
	rule(c.LB.ACMECA == "" || uerr == nil && u.Scheme == "https" && u.Host != "", "lb.acme_ca", "must be an https:// URL, is %q", c.LB.ACMECA)
	rule(c.LB.StateFile == "" || filepath.IsAbs(c.LB.StateFile), "lb.state_file", "must be an absolute path, is %q", c.LB.StateFile)
}

// unjoin takes apart what errors.Join made, and only that.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	many, joined := err.(interface{ Unwrap() []error })
	if !joined {
		return []error{err}
	}
	var all []error
	for _, e := range many.Unwrap() {
		all = append(all, unjoin(e)...)
	}
	return all
}

// options is the balancer's configuration, its files read. Every error begins
// with the key it is about.
func (c *LBConfig) options() (lb.Config, error) {
	o := lb.Defaults()
	var bad []error
	o.HTTP, o.HTTPS, o.Zone = c.Listen, c.ListenTLS, c.Zone
	o.Affinity, o.Admin, o.LoggedInAdmin = lb.Affinity(c.Affinity), c.Admin, c.LoggedInAdmin
	o.HTTPSMode, o.HSTS, o.ProxyProtocol = lb.HTTPSMode(c.HTTPS), c.HSTS, c.ProxyProtocol
	o.Health.Path, o.Health.Host, o.Health.Every, o.Health.Timeout = c.HealthPath, c.HealthHost, c.HealthEvery, c.HealthTimeout
	o.Timeouts = lb.Timeouts{Header: c.HeaderTimeout, Stall: c.StallTimeout, Idle: c.IdleTimeout, Connect: c.ConnectTimeout,
		Response: c.ResponseTimeout, Long: c.LongTimeout, Queue: c.QueueTimeout}
	o.Limits = lb.Limits{Conns: c.MaxConns, ConnsPerClient: c.MaxConnsPerClient, UpstreamConns: c.MaxUpstreamConns, Body: int64(c.MaxBody),
		LoginPerMinute: c.LoginPerMinute, XMLRPCPerMinute: c.XMLRPCPerMinute, CommentPerMin: c.CommentPerMinute, ReadAhead: int64(c.ReadAhead)}
	o.LogFormat = lb.LogFormat(c.AccessLogFormat)
	for _, x := range c.Certificates {
		o.Certificates = append(o.Certificates, lb.CertificateFiles(x))
	}
	for _, u := range c.Upstreams {
		o.Backends = append(o.Backends, lb.Backend{ID: u.ID, Addr: u.Addr, Weight: u.Weight, Zone: u.Zone, Health: u.Health})
	}
	for _, r := range c.Rules {
		o.Rules = append(o.Rules, lb.Rule{Path: r.Path, Methods: r.Methods, Query: r.Query, Who: r.Who, Pool: lb.Pool(r.Pool),
			HTTPS: r.HTTPS, Long: r.Long, JSON: r.JSON, Limit: lb.Limit(r.Limit), Deny: r.Deny})
	}
	var err error
	o.ACME = lb.ACME{Names: c.ACMENames, Email: c.ACMEEmail, CA: c.ACMECA}
	if c.ACMECARoots != "" {
		if o.ACME.Roots, err = os.ReadFile(c.ACMECARoots); err != nil {
			bad = append(bad, fmt.Errorf("acme_ca_roots: %w", err))
		}
	}
	if o.Trusted, err = prefixes("trusted_proxies", c.Trusted); err != nil {
		bad = append(bad, err)
	}
	if o.MaintenanceAllow, err = prefixes("maintenance_allow", c.MaintenanceAllow); err != nil {
		bad = append(bad, err)
	}
	if c.MaintenancePage != "" {
		if o.MaintenancePage, err = os.ReadFile(c.MaintenancePage); err != nil {
			bad = append(bad, fmt.Errorf("maintenance_page: %w", err))
		}
	}
	if c.CookieKeyFile != "" {
		if o.CookieKey, err = os.ReadFile(c.CookieKeyFile); err != nil {
			bad = append(bad, fmt.Errorf("cookie_key_file: %w", err))
		}
	}
	return o, errors.Join(append(bad, o.Validate())...)
}

// prefixes reads addresses and networks.
func prefixes(key string, list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	var bad []error
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %q is no address and no network such as 10.0.0.0/8", key, s))
			continue
		}
		out = append(out, p.Masked())
	}
	return out, errors.Join(bad...)
}

// reachable is addr with the host that other nodes reach this one at, where addr
// leaves it open; "" for a loopback address that they cannot reach.
func (c *Config) reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	own, _, _ := net.SplitHostPort(c.Cluster.Advertise)
	ip, ownIP := net.ParseIP(host), net.ParseIP(own)
	switch {
	case host == "", ip != nil && ip.IsUnspecified():
		host = own
	case ip != nil && ip.IsLoopback() && (ownIP == nil || !ownIP.IsLoopback()):
		return ""
	}
	return net.JoinHostPort(host, port)
}
