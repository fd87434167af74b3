package lb

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// What is read of a request's body to judge it. Longer ones are judged by what
// was read.
const peekMax = 64 << 10

// limiters are the rate limits, each per key: an address or a user name.
type limiters struct {
	login, loginName, xmlrpc, comment *windows
}

func newLimiters() *limiters {
	return &limiters{login: newWindows(), loginName: newWindows(), xmlrpc: newWindows(), comment: newWindows()}
}

// allow takes the request's cost from its limit and reports whether it fits. It
// may read the beginning of the body, and puts it back.
func (l *limiters) allow(r *http.Request, kind Limit, client netip.Addr, c *Limits) (bool, error) {
	now := time.Now()
	b := clientNet(client).As16()
	ip := xxhash.Sum64(b[:])
	switch kind {
	case LimitLogin:
		head, err := peek(r)
		if err != nil {
			return false, err
		}
		ok := l.login.take(ip, 1, c.LoginPerMinute, now)
		if name := loginName(r, head); name != "" {
			ok = l.loginName.take(xxhash.Sum64String(name), 1, c.LoginPerMinute, now) && ok
		}
		return ok, nil
	case LimitXMLRPC:
		head, err := peek(r)
		if err != nil {
			return false, err
		}
		// A multicall names its calls in members called methodName.
		cost := max(1, bytes.Count(head, []byte("<methodName>"))+bytes.Count(head, []byte("<name>methodName</name>"))-1)
		return l.xmlrpc.take(ip, cost, c.XMLRPCPerMinute, now), nil
	case LimitComment:
		return l.comment.take(ip, 1, c.CommentPerMin, now), nil
	}
	return true, nil
}

// peek reads up to peekMax bytes of the body and puts them back.
func peek(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, peekMax))
	if err != nil {
		return nil, err
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), r.Body), r.Body}
	return b, nil
}

// loginName is the user that a login form is about, as WordPress compares names.
func loginName(r *http.Request, body []byte) string {
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/x-www-form-urlencoded" {
		return ""
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(form.Get("log") + form.Get("user_login")))
}

// windowsMax bounds the keys that are kept of one minute. Beyond it new keys are
// not limited: an attacker with so many addresses is not held up by a limit per
// address, and users must not be.
const windowsMax = 1 << 16

// windows counts by key and minute. The last minute counts with the part of it
// that lies within the last sixty seconds (Cloudflare's sliding window).
type windows struct {
	mu        sync.Mutex
	minute    int64
	now, last map[uint64]int
}

func newWindows() *windows { return &windows{now: map[uint64]int{}, last: map[uint64]int{}} }

// take counts cost for key and reports whether the key stays within limit a
// minute. What is refused is not counted. A limit of 0 bounds nothing.
func (w *windows) take(key uint64, cost, limit int, t time.Time) bool {
	if limit == 0 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := t.Unix() / 60; {
	case m == w.minute+1:
		w.last, w.now, w.minute = w.now, map[uint64]int{}, m
	case m != w.minute:
		w.last, w.now, w.minute = map[uint64]int{}, map[uint64]int{}, m
	}
	within := 1 - float64(t.Unix()%60)/60
	if float64(w.last[key])*within+float64(w.now[key]+cost) > float64(limit) {
		return false
	}
	if _, known := w.now[key]; known || len(w.now) < windowsMax {
		w.now[key] += cost
	}
	return true
}
