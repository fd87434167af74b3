package lb

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// memStore is a Store in one process, for several balancers in it.
type memStore struct {
	mu   sync.Mutex
	vals map[string][]byte
	dead bool // the network to it is gone
}

func newMemStore() *memStore { return &memStore{vals: map[string][]byte{}} }

var errDead = errors.New("the store is away")

func (m *memStore) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, errDead
	}
	return slices.Clone(m.vals[key]), nil
}

func (m *memStore) Keys(_ context.Context, prefix string) (keys []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.vals {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (m *memStore) Swap(_ context.Context, key string, old, now []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return false, errDead
	}
	if have, ok := m.vals[key]; ok != (old != nil) || string(have) != string(old) {
		return false, nil
	}
	if now == nil {
		delete(m.vals, key)
	} else {
		m.vals[key] = slices.Clone(now)
	}
	return true, nil
}

func (m *memStore) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

// oneSide is a balancer's own way to a shared store, which can break.
type oneSide struct {
	*memStore
	cut memStore
}

func (o *oneSide) Swap(ctx context.Context, key string, old, now []byte) (bool, error) {
	if _, err := o.cut.Get(ctx, ""); err != nil {
		return false, err
	}
	return o.memStore.Swap(ctx, key, old, now)
}

// TestCertStorage is what certmagic asks of a storage.
func TestCertStorage(t *testing.T) {
	ctx := t.Context()
	c := newCertStorage(newMemStore())
	for _, k := range []string{"certs/a/a.crt", "certs/a/a.key", "certs/b/b.crt", "certs/ab", "acme/x"} {
		if err := c.Store(ctx, k, []byte("of "+k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Store(ctx, "acme/x", []byte("again")); err != nil {
		t.Fatal(err)
	}
	if b, err := c.Load(ctx, "acme/x"); err != nil || string(b) != "again" {
		t.Errorf("load: %q, %v", b, err)
	}
	if _, err := c.Load(ctx, "acme/y"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load of nothing: %v", err)
	}
	if got, err := c.List(ctx, "certs", false); err != nil || !slices.Equal(got, []string{"certs/a", "certs/ab", "certs/b"}) {
		t.Errorf("list: %v, %v", got, err)
	}
	if got, err := c.List(ctx, "certs/a", true); err != nil || !slices.Equal(got, []string{"certs/a/a.crt", "certs/a/a.key"}) {
		t.Errorf("list of all below: %v, %v", got, err)
	}
	if i, err := c.Stat(ctx, "certs/a"); err != nil || i.IsTerminal {
		t.Errorf("stat of a directory: %+v, %v", i, err)
	}
	if i, err := c.Stat(ctx, "acme/x"); err != nil || !i.IsTerminal || i.Size != 5 || time.Since(i.Modified) > time.Minute {
		t.Errorf("stat: %+v, %v", i, err)
	}
	if err := c.Delete(ctx, "certs/a"); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]bool{"certs/a/a.crt": false, "certs/a": false, "certs/ab": true, "certs/b/b.crt": true} {
		if c.Exists(ctx, k) != want {
			t.Errorf("%s is there: %v", k, !want)
		}
	}
}

// TestCertLock: one at a time, whichever balancer; a holder that lives keeps it
// for as long as it wants; a dead one's is taken over, and it cannot give away
// what is not its own any more.
func TestCertLock(t *testing.T) {
	m := newMemStore()
	side := &oneSide{memStore: m}
	a, b := newCertStorage(side), newCertStorage(m)
	ctx := t.Context()
	if err := a.Lock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := b.Lock(short, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two have it: %v", err)
	}
	if err := b.Unlock(ctx, "x"); err == nil {
		t.Error("unlocked by somebody else")
	}
	if err := a.Unlock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if err := a.Lock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	took := make(chan time.Duration, 1)
	go func() {
		from := time.Now()
		if err := b.Lock(ctx, "x"); err != nil {
			t.Error(err)
		}
		took <- time.Since(from)
	}()
	time.Sleep(3 * lockBeat)
	side.cut.kill() // its beats do not arrive any more
	if d := <-took; d < lockDead {
		t.Errorf("taken from one that lived %v ago", d)
	}
	if err := a.Unlock(ctx, "x"); err == nil {
		t.Error("the dead one gave it away")
	}
	if err := b.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
}

// acmeServer is a real ACME server (pebble) that asks for challenges at a port of
// 127.0.0.1, whatever the name. Its certificates live for life.
type acmeServer struct {
	ACME
	db *db.MemoryStore
}

func startACME(t *testing.T, port string, life time.Duration) *acmeServer {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	p, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0)
	if testing.Verbose() {
		quiet = log.Default()
	}
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "d", ValidityPeriod: uint64(life / time.Second)}})
	validator := va.New(quiet, p, p, false, startDNS(t), store)
	front := wfe.New(quiet, store, validator, authority, []string{"pebble.test"}, false, false, 1, 1)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return &acmeServer{ACME: ACME{Names: []string{"shop.example"}, CA: srv.URL + wfe.DirectoryPath, Roots: roots, Every: 500 * time.Millisecond}, db: store}
}

// startDNS answers every question with 127.0.0.1.
func startDNS(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.ActivateAndServe() // ends with Shutdown
	}()
	t.Cleanup(func() { srv.Shutdown(); <-done })
	return l.Addr().String()
}

// serial is the serial number of the certificate that a balancer shows.
func (f *front) serial(name string) (string, error) {
	c, err := tls.Dial("tcp", strings.TrimPrefix(f.tls, "https://"), &tls.Config{InsecureSkipVerify: true, ServerName: name})
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// TestACME: two balancers and a real ACME server. The CA's question arrives at
// one, whichever asked; one certificate is issued, once, and both serve it. When
// one balancer dies, the other renews it.
func TestACME(t *testing.T) {
	challenge := freePort(t)
	_, port, _ := net.SplitHostPort(challenge)
	server := startACME(t, port, 25*time.Second)
	shared := newMemStore()
	backends := []Backend{goBackend(t, "go", nil)}
	change := func(plain string) func(*Config) {
		return func(c *Config) {
			c.HTTP, c.HTTPS, c.ACME, c.HTTPSMode = []string{plain}, []string{"127.0.0.1:0"}, server.ACME, HTTPSAll
		}
	}
	a := startFrontWith(t, backends, shared, change(challenge)) // here the CA asks
	b := startFrontWith(t, backends, shared, change("127.0.0.1:0"))
	var first string
	for i, f := range []*front{a, b} {
		within(t, fmt.Sprintf("balancer %d has the certificate", i+1), func() error {
			s, err := f.serial("shop.example")
			if err == nil && first == "" {
				first = s
			}
			if err == nil && s != first {
				err = fmt.Errorf("certificate %s, the other one has %s", s, first)
			}
			return err
		})
	}
	if _, err := b.serial("other.example"); err == nil {
		t.Error("a name that is not ours has a certificate")
	}
	keys, _ := shared.Keys(t.Context(), lockPrefix)
	if len(keys) > 0 {
		t.Errorf("locks are left: %v", keys)
	}
	a.stop() // its ports are closed; the other takes its address
	c := startFrontWith(t, backends, shared, change(challenge))
	if s, err := c.serial("shop.example"); err == nil && s != first {
		t.Errorf("a new balancer asked for a certificate of its own: %s", s)
	}
	within2(t, 40*time.Second, "the certificate is renewed", func() error {
		for _, f := range []*front{b, c} {
			if s, err := f.serial("shop.example"); err != nil || s == first {
				return fmt.Errorf("still %s: %v", s, err)
			}
		}
		return nil
	})
	s1, err1 := b.serial("shop.example")
	within(t, "both have the same again", func() error {
		s2, err2 := c.serial("shop.example")
		if s1, err1 = b.serial("shop.example"); s1 != s2 {
			return fmt.Errorf("%s and %s: %v", s1, s2, errors.Join(err1, err2))
		}
		return nil
	})
}

// TestACMEBeside: files of a name come before ACME, and without ACME's certificate
// there is still the first file; the challenge's path is WordPress's where no
// challenge is on.
func TestACMEBeside(t *testing.T) {
	files := selfSigned(t, t.TempDir(), "file.example")
	f := startFrontWith(t, []Backend{goBackend(t, "go", nil)}, newMemStore(), func(c *Config) {
		c.HTTPS, c.HTTPSMode, c.Certificates = []string{"127.0.0.1:0"}, HTTPSOff, []CertificateFiles{files}
		c.ACME = ACME{Names: []string{"shop.example"}, CA: "https://127.0.0.1:1/none"}
	})
	for _, name := range []string{"file.example", "shop.example", ""} {
		if _, err := f.serial(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if res, _ := f.do("GET", "/.well-known/acme-challenge/nonsense", nil); res.StatusCode != 200 {
		t.Errorf("a path of the site: %s", res.Status)
	}
	c := f.settings().Config
	c.ACME.Names = []string{"*.example"}
	if err := f.Reload(c); err == nil || !strings.Contains(err.Error(), "acme_names") {
		t.Errorf("a wildcard: %v", err)
	}
	c.ACME, c.Certificates = ACME{}, nil
	if err := f.Reload(c); err == nil || !strings.Contains(err.Error(), "certificates") {
		t.Errorf("no certificate at all: %v", err)
	}
	d := Defaults()
	d.HTTP, d.HTTPS, d.ACME = []string{":80"}, []string{":443"}, ACME{Names: []string{"a.example"}, Roots: []byte("x")}
	if err := d.Validate(); err == nil || !strings.Contains(err.Error(), "acme_ca_roots") {
		t.Errorf("roots: %v", err)
	}
	d.ACME.Roots = nil
	if _, err := New(Options{Config: d}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no store: %v", err)
	}
	if _, err := newest(CertificateFiles{Cert: filepath.Join(t.TempDir(), "x")}); err == nil {
		t.Error("a missing file")
	}
}
