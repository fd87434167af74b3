package lb

import (
	"net/netip"
	"time"
)

// Affinity is how a client stays with its upstream.
type Affinity string

// The kinds of affinity.
const (
	AffinityIP     Affinity = "ip"     // by the client's address: IPv4 whole, IPv6 its /64
	AffinityCookie Affinity = "cookie" // by a signed cookie that names the upstream, by the address without one
	AffinityNone   Affinity = "none"   // each request anew
)

// HTTPSMode says which plain requests are sent to HTTPS.
type HTTPSMode string

// The modes.
const (
	HTTPSAll       HTTPSMode = "all"        // every one
	HTTPSAdminOnly HTTPSMode = "admin-only" // those of rules with HTTPS: login and administration
	HTTPSOff       HTTPSMode = "off"        // none
)

// LogFormat is how the access log looks.
type LogFormat string

// The formats of the access log.
const (
	LogCombined LogFormat = "combined" // Apache's, with upstream and time in seconds behind
	LogJSON     LogFormat = "json"
)

// Config is what an operator decides. Zero durations and counts mean what the
// field says; [Defaults] has good values for all. A Balancer never changes one.
type Config struct {
	HTTP  []string // host:port to listen on in the clear
	HTTPS []string // host:port to listen on with TLS; needs Certificates or ACME

	Backends []Backend // static upstreams; those of the Source come on top
	Zone     string    // upstreams of this zone are preferred while one of them is healthy

	Affinity      Affinity
	CookieKey     []byte   // secret of the affinity cookie, the same on all balancers; 32 bytes or more
	Admin         []string // ids of upstreams that the admin pool prefers, best first
	LoggedInAdmin bool     // logged-in users go to the admin pool with every page, not only with those that rules name
	Rules         []Rule   // before the built-in ones; the first that matches decides

	HTTPSMode    HTTPSMode
	HSTS         time.Duration // max-age of Strict-Transport-Security on HTTPS answers; 0: none
	Certificates []CertificateFiles
	ACME         ACME // needs Options.Store

	Trusted       []netip.Prefix // proxies whose X-Forwarded-For, -Proto and -Host are believed
	ProxyProtocol bool           // connections from Trusted begin with a PROXY protocol header (v1 or v2)

	Health   Health
	Timeouts Timeouts
	Limits   Limits

	MaintenancePage  []byte         // HTML instead of the built-in page; nil: that
	MaintenanceAllow []netip.Prefix // clients that maintenance mode lets through

	LogFormat LogFormat
}

// CertificateFiles are two PEM files: the chain, the leaf first, and its key.
type CertificateFiles struct{ Cert, Key string }

// Health is how upstreams are watched.
type Health struct {
	Path     string        // asked of each upstream's web server; 2xx and 3xx are good; "": a TCP connect must do
	Host     string        // Host header of that request; "": the upstream's address
	Every    time.Duration // between two checks of one upstream
	Timeout  time.Duration // of one check
	Rise     int           // good checks in a row until an upstream is up
	Fall     int           // bad checks in a row until it is down
	Hold     time.Duration // how long a returned upstream must stay up before clients come back to it
	SlowFor  time.Duration // how long its share then grows from a tenth to the whole
	FailMax  int           // failures of requests in a row that eject an upstream
	EjectFor time.Duration // how long the first time; doubled each time in a row, up to 8 times this
	FailBack time.Duration // how long a better admin upstream must be up before the admin pool goes back to it
}

// Timeouts are of requests and connections.
type Timeouts struct {
	Header   time.Duration // the whole request header must have arrived
	Stall    time.Duration // a body, in either direction, must move on
	Idle     time.Duration // a keep-alive connection without a request
	Connect  time.Duration // to an upstream
	Response time.Duration // until an upstream begins its answer, from the end of the request
	Long     time.Duration // the same for rules with Long (an update of WordPress takes up to 300 s)
	Queue    time.Duration // a request may wait for a free slot of its upstream
}

// Limits bound what clients can take. 0 means no limit.
type Limits struct {
	Conns           int   // connections in all
	ConnsPerClient  int   // connections of one address (IPv6: /64)
	UpstreamConns   int   // requests in flight to one upstream
	Body            int64 // bytes of a request body
	LoginPerMinute  int   // POSTs to wp-login.php of one address, and for one user name
	XMLRPCPerMinute int   // calls of xmlrpc.php of one address; a multicall counts as each of its calls
	CommentPerMin   int   // comments of one address
	ReadAhead       int64 // bytes of an answer that are taken from the upstream before the client reads them
}

// Fixed limits.
const (
	headerBytesMax   = 64 << 10
	attemptsMax      = 3
	loadFactor       = 1.25 // bounded load: an upstream takes so many times its share
	loadFloor        = 16   // requests in flight that an upstream always may have
	retryBudgetPart  = 10   // one retry for so many requests
	retryBudgetFloor = 10   // retries in 10 s that are always allowed
)

// Defaults is a configuration that needs listen addresses and upstreams only.
func Defaults() Config {
	return Config{
		Affinity:  AffinityIP,
		HTTPSMode: HTTPSAll,
		Health: Health{
			Every: time.Second, Timeout: time.Second, Rise: 2, Fall: 2,
			Hold: 10 * time.Second, SlowFor: 30 * time.Second,
			FailMax: 3, EjectFor: 5 * time.Second, FailBack: time.Minute,
		},
		Timeouts: Timeouts{
			Header: 10 * time.Second, Stall: time.Minute, Idle: 75 * time.Second, Connect: 1500 * time.Millisecond,
			Response: time.Minute, Long: 6 * time.Minute, Queue: 10 * time.Second,
		},
		Limits: Limits{
			Conns: 20000, ConnsPerClient: 256, UpstreamConns: 512,
			LoginPerMinute: 10, XMLRPCPerMinute: 60, CommentPerMin: 20, ReadAhead: 1 << 20,
		},
		LogFormat: LogCombined,
	}
}
