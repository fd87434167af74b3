package lb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// saidNo is a check that was answered with 503. From a node it means that it is
// stopping or has lost its lease, and there is no need to ask twice.
type saidNo struct {
	error
	retry bool // with Retry-After
}

// checker asks the upstreams how they are, each in its own goroutine.
type checker struct {
	b      *Balancer
	client *http.Client
	wg     sync.WaitGroup

	mu   sync.Mutex // guards stop
	stop map[*upstream]context.CancelFunc
}

func newChecker(b *Balancer) *checker {
	return &checker{b: b, stop: map[*upstream]context.CancelFunc{}, client: &http.Client{
		// A new connection for each check: an old one says nothing about whether
		// the next client gets one.
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// watch begins to check the added upstreams and ends it for the removed.
func (k *checker) watch(ctx context.Context, added, removed []*upstream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range removed {
		if stop := k.stop[u]; stop != nil {
			stop()
			delete(k.stop, u)
		}
	}
	for _, u := range added {
		uctx, stop := context.WithCancel(ctx)
		k.stop[u] = stop
		k.wg.Go(func() { k.run(uctx, u) })
	}
}

// run checks u until ctx ends.
func (k *checker) run(ctx context.Context, u *upstream) {
	for {
		h := &k.b.settings().Health
		err := k.check(ctx, u, h)
		if ctx.Err() != nil {
			return
		}
		if u.checkedNow(h, err) {
			if err == nil {
				k.b.log.Info("upstream is up", "upstream", u.id)
			} else {
				k.b.log.Warn("upstream is down", "upstream", u.id, "err", err)
			}
		}
		// Spread a little, or all balancers ask at the same moment for ever.
		t := time.NewTimer(h.Every - h.Every/10 + rand.N(h.Every/5+1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// check is one check: first the node, then its web server. With a Path the web
// server's answer counts, and it has compiled its PHP before a client comes.
func (k *checker) check(ctx context.Context, u *upstream, h *Health) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	b := u.backend.Load()
	var no saidNo
	if b.Health != "" {
		if err := k.ask(ctx, b.Health, ""); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	if h.Path != "" {
		err := k.ask(ctx, "http://"+b.Addr+h.Path, h.Host)
		switch {
		case errors.As(err, &no) && no.retry: // WordPress's maintenance mode
			return nil
		case errors.As(err, &no): // a busy PHP says it too: ask again
			return fmt.Errorf("web server: %v", err)
		case err != nil:
			return fmt.Errorf("web server: %w", err)
		}
		return nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", b.Addr)
	if err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	return c.Close()
}

func (k *checker) ask(ctx context.Context, url, host string) error {
	req, err := http.NewRequestWithContext(ctx, get, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	req.Header.Set("User-Agent", "wpfs-lb health check")
	res, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, 256))
	switch {
	case res.StatusCode == http.StatusServiceUnavailable:
		return saidNo{fmt.Errorf("%s answers %s: %.256q", url, res.Status, said), res.Header.Get("Retry-After") != ""}
	case res.StatusCode >= 400:
		return fmt.Errorf("%s answers %s: %.256q", url, res.Status, said)
	case err != nil:
		return fmt.Errorf("%s: the answer broke off: %w", url, err)
	}
	return nil
}
