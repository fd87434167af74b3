package lb

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// origin is where a request comes from, as far as it can be believed.
type origin struct {
	peer    netip.Addr // other end of the connection
	client  netip.Addr // the browser: the peer, or what trusted proxies say
	trusted bool       // the peer is a trusted proxy
	https   bool       // the browser spoke HTTPS
	host    string     // what the browser asked for
}

// originOf believes X-Forwarded-* only of trusted peers.
func originOf(r *http.Request, trusted []netip.Prefix) origin {
	o := origin{peer: addrOf(r.RemoteAddr), https: r.TLS != nil, host: r.Host}
	o.client = o.peer
	o.trusted = contains(trusted, o.peer)
	if !o.trusted {
		return o
	}
	o.client = clientOf(o.peer, r.Header.Values("X-Forwarded-For"), trusted)
	if p := r.Header.Values("X-Forwarded-Proto"); len(p) == 1 {
		o.https = strings.EqualFold(strings.TrimSpace(p[0]), "https")
	}
	return o
}

// clientOf walks X-Forwarded-For from the right, where the nearest proxy wrote,
// and stops at the first address that is no trusted proxy: what stands left of
// it, anybody may have written. Something that is no address ends the walk too.
func clientOf(peer netip.Addr, lines []string, trusted []netip.Prefix) netip.Addr {
	client := peer
	hops := strings.Split(strings.Join(lines, ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a := addrOf(strings.TrimSpace(hops[i]))
		if !a.IsValid() {
			return client
		}
		client = a
		if !contains(trusted, a) {
			return client
		}
	}
	return client
}

// addrOf reads an address with or without a port or brackets; the zero Addr if
// there is none. IPv4 in IPv6 is IPv4, zones are dropped.
func addrOf(s string) netip.Addr {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// clientNet is what counts as one client: an IPv4 address whole, of an IPv6
// address the /64, which is what a provider gives to one customer (RFC 6177) and
// within which a device changes its address at will (RFC 8981).
func clientNet(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// affinityKey is the same on every balancer.
func affinityKey(a netip.Addr) uint64 {
	b := clientNet(a).As16()
	return xxhash.Sum64(b[:])
}
