package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Limits of the two HTTP interfaces.
const (
	adminBodyMax     = 1 << 20
	adminCallTimeout = 10 * time.Second
	httpReadTimeout  = 10 * time.Second
	httpStopTimeout  = 2 * time.Second
)

// source is what the HTTP interfaces show. Its methods do not block on the
// network: a health check must answer while the cluster is away.
type source interface {
	Status() Status
	Members() []Member
}

// adminHandler is the API of the admin socket, which only the owner of the
// agent's process can reach (mode 0600).
func adminHandler(s source) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, s.Status()) })
	m.HandleFunc("GET /v1/members", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, s.Members()) })
	return m
}

// answerJSON encodes before it answers, so that what cannot be encoded is an
// error and not half an answer.
func answerJSON(w http.ResponseWriter, v any) {
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b.Bytes())
}

// serveHTTP serves h on l until ctx ends, then lets answers in flight finish
// for httpStopTimeout.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: httpReadTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c, cancel := context.WithTimeout(context.Background(), httpStopTimeout)
		defer cancel()
		if srv.Shutdown(c) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() { // the shutdown has begun; Serve returned early because of it
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
}

// adminClient talks to the socket of an agent or of wpfs dev.
type adminClient struct{ socket string }

// call sends body (nil: none) and decodes the answer into into (nil: dropped).
// A socket that does not answer is a Problem with CodeNotRunning; an answer
// that is an error has the server's sentence as its text.
func (a adminClient) call(ctx context.Context, method, path string, body, into any) error {
	hc := http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialUnix(ctx, a.socket) },
		DisableKeepAlives: true,
	}}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://wpfs"+path, in)
	if err != nil {
		return err
	}
	res, err := hc.Do(req)
	if err != nil {
		return problem(CodeNotRunning, err, "nothing answers on "+a.socket, "Is it running? Name its socket with --socket")
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, adminBodyMax))
	if err != nil {
		return problem(CodeNotRunning, err, "the answer from "+a.socket+" broke off", "Try again")
	}
	if res.StatusCode != http.StatusOK {
		return problem(CodeOther, nil, string(bytes.TrimSpace(b)), "")
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}
