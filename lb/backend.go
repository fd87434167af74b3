package lb

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
)

// Backend is a web server that requests can be sent to, as its Source tells of
// it. It is a value: a changed one comes anew.
type Backend struct {
	ID       string  // unique among the backends; in logs, metrics and the affinity cookie
	Addr     string  // host:port of its web server, plain HTTP
	Weight   float64 // its share against the others'; 0 means 1
	Zone     string
	Health   string // URL that answers 200 while the node may serve (the agent's /healthz); "": none
	Draining bool   // it takes no new request
}

var idRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Validate names what is wrong with b.
func (b Backend) Validate() error {
	var bad []error
	if !idRule.MatchString(b.ID) {
		bad = append(bad, fmt.Errorf("the id must be 1 to 63 letters, digits, dots, dashes or underscores, is %q", b.ID))
	}
	if !hostPort(b.Addr) || b.Addr[0] == ':' {
		bad = append(bad, fmt.Errorf("the addr of %q must be host:port, is %q", b.ID, b.Addr))
	}
	if !(b.Weight >= 0 && b.Weight <= 1000) {
		bad = append(bad, fmt.Errorf("the weight of %q must be 0 to 1000, is %v", b.ID, b.Weight))
	}
	if u, err := url.Parse(b.Health); b.Health != "" && (err != nil || u.Scheme != "http" || u.Host == "") {
		bad = append(bad, fmt.Errorf("the health of %q must be an http:// URL, is %q", b.ID, b.Health))
	}
	return errors.Join(bad...)
}

// Source tells which backends there are: the cluster's members, say. It is read
// by level: Backends is how it is now, and the channel that Changed returned
// before is closed when that may have changed. Neither blocks.
type Source interface {
	Backends() []Backend
	Changed() <-chan struct{}
}

// NoSource is the Source of a balancer with static backends only.
type NoSource struct{}

var _ Source = NoSource{}

// Backends are none.
func (NoSource) Backends() []Backend { return nil }

// Changed is never closed.
func (NoSource) Changed() <-chan struct{} { return nil }
