package lb

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Store keeps a few small values that all balancers share: certificates, their
// keys, the answers to challenges, locks. Each value is below 64 KiB. What another
// balancer has just changed, Get and Keys may see a moment later; Swap never errs.
type Store interface {
	// Get is the value of key; nil if there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	// Keys lists the keys that begin with prefix, sorted.
	Keys(ctx context.Context, prefix string) ([]string, error)
	// Swap gives key the value now (nil: removes it) if its value is old (nil: there
	// is none), and reports whether it was.
	Swap(ctx context.Context, key string, old, now []byte) (bool, error)
}

// Times of locks. A lock's holder writes it anew every lockBeat. Who waits takes
// it over when it has not changed for lockDead by his own clock: no two clocks
// are ever compared.
const (
	lockBeat = 2 * time.Second
	lockDead = 10 * time.Second
	lockPoll = 200 * time.Millisecond
)

// certStorage is certmagic's storage in a Store.
type certStorage struct {
	s Store

	mu   sync.Mutex // guards held
	held map[string]*heldLock
}

var _ certmagic.Storage = (*certStorage)(nil)

func newCertStorage(s Store) *certStorage {
	return &certStorage{s: s, held: map[string]*heldLock{}}
}

// The names of a Store's keys.
const (
	filePrefix = "acme/file/"
	lockPrefix = "acme/lock/"
)

// storedFile is a file of certmagic's in a Store.
type storedFile struct {
	Modified time.Time `json:"modified"`
	Data     []byte    `json:"data"`
}

// Store implements certmagic.Storage.
func (c *certStorage) Store(ctx context.Context, key string, value []byte) error {
	b, err := json.Marshal(storedFile{Modified: time.Now().UTC(), Data: value})
	if err != nil {
		return err
	}
	return c.replace(ctx, filePrefix+key, b)
}

// replace swaps until nobody else was faster.
func (c *certStorage) replace(ctx context.Context, key string, now []byte) error {
	for {
		old, err := c.s.Get(ctx, key)
		if err != nil {
			return err
		}
		if bytes.Equal(old, now) && (old == nil) == (now == nil) {
			return nil
		}
		if done, err := c.s.Swap(ctx, key, old, now); done || err != nil {
			return err
		}
	}
}

func (c *certStorage) load(ctx context.Context, key string) (f storedFile, err error) {
	b, err := c.s.Get(ctx, filePrefix+key)
	if err == nil && b == nil {
		err = fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(b, &f)
}

// Load implements certmagic.Storage.
func (c *certStorage) Load(ctx context.Context, key string) ([]byte, error) {
	f, err := c.load(ctx, key)
	return f.Data, err
}

// Delete implements certmagic.Storage: the key, and all below it.
func (c *certStorage) Delete(ctx context.Context, key string) error {
	keys, err := c.s.Keys(ctx, filePrefix+key)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k == filePrefix+key || strings.HasPrefix(k, filePrefix+key+"/") {
			err = errors.Join(err, c.replace(ctx, k, nil))
		}
	}
	return err
}

// Exists implements certmagic.Storage.
func (c *certStorage) Exists(ctx context.Context, key string) bool {
	_, err := c.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (c *certStorage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	prefix := filePrefix
	if dir != "" {
		prefix += strings.TrimSuffix(dir, "/") + "/"
	}
	keys, err := c.s.Keys(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, k := range keys {
		rest := strings.TrimPrefix(k, prefix)
		if !recursive {
			rest, _, _ = strings.Cut(rest, "/")
		}
		out = append(out, strings.TrimPrefix(prefix, filePrefix)+rest)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	return slices.Compact(out), nil
}

// Stat implements certmagic.Storage.
func (c *certStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	f, err := c.load(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: f.Modified, Size: int64(len(f.Data)), IsTerminal: true}, nil
	}
	if below, lerr := c.s.Keys(ctx, filePrefix+key+"/"); lerr == nil && len(below) > 0 {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, err
}

// heldLock is a lock that this process has.
type heldLock struct {
	value []byte
	stop  context.CancelFunc
	done  chan struct{}
}

// lockRecord is a lock in a Store; Beat changes while its holder lives.
type lockRecord struct {
	Owner string `json:"owner"`
	Beat  int    `json:"beat"`
}

// Lock implements certmagic.Locker. It waits for as long as the holder lives.
func (c *certStorage) Lock(ctx context.Context, name string) error {
	key := lockPrefix + name
	me := lockRecord{Owner: rand.Text()}
	var seen []byte
	var since time.Time
	for {
		old, err := c.s.Get(ctx, key)
		if err != nil {
			return err
		}
		if !bytes.Equal(old, seen) {
			seen, since = old, time.Now()
		}
		if old == nil || time.Since(since) >= lockDead {
			now, err := json.Marshal(me)
			if err != nil {
				return err
			}
			got, err := c.s.Swap(ctx, key, old, now)
			if err != nil {
				return err
			}
			if got {
				c.keep(ctx, key, me, now)
				return nil
			}
		}
		t := time.NewTimer(lockPoll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// keep writes the lock anew until Unlock.
func (c *certStorage) keep(ctx context.Context, key string, r lockRecord, value []byte) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	h := &heldLock{value: value, stop: stop, done: make(chan struct{})}
	c.mu.Lock()
	c.held[key] = h
	c.mu.Unlock()
	go func() { // ends with Unlock, or when the lock was taken over
		defer close(h.done)
		t := time.NewTicker(lockBeat)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			r.Beat++
			now, err := json.Marshal(r)
			if err != nil {
				return
			}
			got, err := c.s.Swap(ctx, key, h.value, now)
			switch {
			case got:
				h.value = now
			case err == nil:
				return // somebody has taken it over
			}
		}
	}()
}

// Unlock implements certmagic.Locker.
func (c *certStorage) Unlock(ctx context.Context, name string) error {
	key := lockPrefix + name
	c.mu.Lock()
	h := c.held[key]
	delete(c.held, key)
	c.mu.Unlock()
	if h == nil {
		return fmt.Errorf("unlock %s: it is not locked here", name)
	}
	h.stop()
	<-h.done
	got, err := c.s.Swap(ctx, key, h.value, nil)
	if err == nil && !got {
		err = fmt.Errorf("unlock %s: it was taken over because this process seemed dead", name)
	}
	return err
}
