package peer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// echo answers calls with their body and records messages.
type echo struct {
	messages chan string
	block    chan struct{} // a call of method 9 waits for it
}

func (e *echo) Message(from Identity, m Method, body []byte) {
	e.messages <- fmt.Sprintf("%s %d %s", from.Node, m, body)
}

func (e *echo) Call(ctx context.Context, from Identity, m Method, body []byte) ([]byte, error) {
	switch m {
	case 8:
		return nil, &fs.Error{Op: "test", Kind: fs.ErrNotFound}
	case 9:
		select {
		case <-e.block:
		case <-ctx.Done():
		}
	}
	return body, nil
}

type node struct {
	*Hub
	echo *echo
	addr string
	stop func()
}

func start(t *testing.T, id, cluster string) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{messages: make(chan string, 10000), block: make(chan struct{})}
	h := NewHub(Options{
		Identity: func() Identity { return Identity{Cluster: cluster, Node: fs.NodeID(id), Session: 7} },
		Listener: ln, Handler: e, Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	var once sync.Once
	n := &node{h, e, ln.Addr().String(), func() { once.Do(func() { cancel(); <-done }) }}
	t.Cleanup(n.stop)
	for !n.running() {
		time.Sleep(time.Millisecond)
	}
	return n
}

func (n *node) running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ctx != nil
}

func TestCall(t *testing.T) {
	a, b := start(t, "a", "c"), start(t, "b", "c")
	big := bytes.Repeat([]byte("x"), fs.ChunkMax)
	for _, body := range [][]byte{nil, []byte("hello"), big} {
		got, err := a.Call(t.Context(), b.addr, 1, body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("call with %d bytes: %d bytes, %v", len(body), len(got), err)
		}
	}
}

func TestErrorKindTravels(t *testing.T) {
	a, b := start(t, "a", "c"), start(t, "b", "c")
	if _, err := a.Call(t.Context(), b.addr, 8, nil); !errors.Is(err, fs.ErrNotFound) {
		t.Errorf("call: %v, want kind %v", err, fs.ErrNotFound)
	}
}

// Many calls share a connection; one that waits does not hold the others up.
func TestCallsAreIndependent(t *testing.T) {
	a, b := start(t, "a", "c"), start(t, "b", "c")
	slow := make(chan error, 1)
	go func() { _, err := a.Call(context.Background(), b.addr, 9, nil); slow <- err }()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			want := fmt.Sprint(i)
			if got, err := a.Call(t.Context(), b.addr, 1, []byte(want)); err != nil || string(got) != want {
				t.Errorf("call %d: %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	close(b.echo.block)
	if err := <-slow; err != nil {
		t.Errorf("slow call: %v", err)
	}
}

func TestMessagesKeepTheirOrder(t *testing.T) {
	a, b := start(t, "a", "c"), start(t, "b", "c")
	a.Send(b.addr, false, 3, []byte("first")) // may be lost while the connection is made; the rest is not
	select {
	case <-b.echo.messages:
	case <-time.After(10 * time.Second):
		t.Fatal("no message arrived")
	}
	for i := range 1000 {
		if !a.Send(b.addr, false, 3, fmt.Append(nil, i)) {
			t.Fatalf("message %d refused", i)
		}
	}
	for i := range 1000 {
		if got, want := <-b.echo.messages, fmt.Sprintf("a 3 %d", i); got != want {
			t.Fatalf("message %d is %q, want %q", i, got, want)
		}
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	a, b := start(t, "a", "one"), start(t, "b", "two")
	if _, err := a.Call(t.Context(), b.addr, 1, nil); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("call: %v, want %v", err, ErrOtherCluster)
	}
	fresh := start(t, "f", "") // does not know its cluster yet
	if _, err := fresh.Call(t.Context(), b.addr, 1, nil); err != nil {
		t.Errorf("call of a node that is joining: %v", err)
	}
}

// A peer that comes back is found again, and a call under way when it went
// fails instead of waiting for ever.
func TestPeerGoesAndComesBack(t *testing.T) {
	a, b := start(t, "a", "c"), start(t, "b", "c")
	if _, err := a.Call(t.Context(), b.addr, 1, nil); err != nil {
		t.Fatal(err)
	}
	slow := make(chan error, 1)
	go func() { _, err := a.Call(context.Background(), b.addr, 9, nil); slow <- err }()
	for calls := 0; calls == 0; {
		time.Sleep(time.Millisecond)
		a.mu.Lock()
		c := a.callers[b.addr]
		a.mu.Unlock()
		c.mu.Lock()
		c.cc.mu.Lock()
		calls = len(c.cc.waiting)
		c.cc.mu.Unlock()
		c.mu.Unlock()
	}
	b.stop()
	if err := <-slow; err != nil && fs.KindOf(err) != fs.ErrIO {
		t.Errorf("call to a peer that went: %v", err)
	}
	if _, err := a.Call(t.Context(), b.addr, 1, nil); err == nil {
		t.Error("call to a peer that is gone succeeded")
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	a, b := start(t, "a", "c"), start(t, "b", "c")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Call(ctx, b.addr, 9, nil); !errors.Is(err, context.DeadlineExceeded) && fs.KindOf(err) != fs.ErrIO {
		t.Errorf("call: %v", err)
	}
	if _, err := a.Call(t.Context(), b.addr, 1, nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// Calls to a peer that does not answer end with their contexts, all at once.
func TestCallsEndWhileDialing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := NewHub(Options{
		Identity: func() Identity { return Identity{Node: "a"} }, Listener: ln, Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(ctx) }()
	for !h.goRun(func() {}) {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			cctx, stop := context.WithTimeout(ctx, 50*time.Millisecond)
			defer stop()
			if _, err := h.Call(cctx, "x", 1, nil); fs.KindOf(err) != fs.ErrIO {
				t.Errorf("call: %v", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(began); d >= dialTimeout { // one after the other, each would have its own attempt
		t.Errorf("ten calls with 50 ms each took %v", d)
	}
	cancel()
	<-ended
}

func FuzzFrame(f *testing.F) {
	good := frame{kind: frameCall, method: 3, id: 9, body: []byte("body")}
	f.Add(append(good.appendHeader(nil), good.body...))
	f.Add(Identity{Cluster: "c", Node: "n", Session: 1}.appendHello(nil, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if fr, err := readFrame(bufio.NewReader(bytes.NewReader(b))); err == nil {
			if again := append(fr.appendHeader(nil), fr.body...); !bytes.HasPrefix(b, again) {
				t.Errorf("frame %+v encodes to %x, was read from %x", fr, again, b)
			}
		}
		if id, class, err := readHello(bytes.NewReader(b)); err == nil {
			if again := id.appendHello(nil, class); !bytes.HasPrefix(b, again) {
				t.Errorf("hello %+v encodes to %x, was read from %x", id, again, b)
			}
		}
	})
}
