package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

func newMux(t *testing.T) *Mux {
	t.Helper()
	m, err := Listen(Options{Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// The first byte selects the listener, and is not part of what it reads.
func TestStreamsAreSeparate(t *testing.T) {
	m := newMux(t)
	for _, s := range []Stream{Raft, Peer} {
		c, err := m.Dial(t.Context(), m.Addr().String(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{byte(s), '!'})
	}
	for _, s := range []Stream{Peer, Raft} {
		c, err := m.Listener(s).Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b := make([]byte, 2)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != string(s)+"!" {
			t.Errorf("stream %c carried %q, %v", s, b, err)
		}
	}
}

func TestUnknownStreamIsClosed(t *testing.T) {
	m := newMux(t)
	c, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, syscall.EAGAIN) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stranger read %d bytes, %v; want a closed connection", n, err)
	}
}

func TestPortInUse(t *testing.T) {
	m := newMux(t)
	if _, err := Listen(Options{Bind: m.Addr().String()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener on the port: %v, want EADDRINUSE", err)
	}
}

// Run ends although a connection has not said what it is, and one was not taken.
func TestRunEnds(t *testing.T) {
	m, err := Listen(Options{Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	silent, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	untaken, err := m.Dial(ctx, m.Addr().String(), Raft)
	if err != nil {
		t.Fatal(err)
	}
	defer untaken.Close()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not end")
	}
	if _, err := m.Listener(Peer).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end: %v", err)
	}
}
