package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/retry"
)

// No server at hand answers 503 or 409, stalls, or cuts its bodies, so this
// transport does. It sees every request with its number, from 0.
type transport func(n int, r *http.Request) (*http.Response, error)

// scripted opens a bucket of gofakes3 behind f; f passes a request on with real.
func scripted(t *testing.T, f func(real http.RoundTripper) transport) *Store {
	t.Helper()
	isolate(t)
	real := newTransport()
	t.Cleanup(real.CloseIdleConnections)
	var n atomic.Int32
	script := f(real)
	return open(t, Options{
		Bucket: "b", Endpoint: fake(t, "b"), AccessKey: "k", SecretKey: "s",
		Timeout: time.Minute, StallMax: 200 * time.Millisecond,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) { return script(int(n.Add(1))-1, r) }),
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answer makes a response of an S3 server.
func answer(r *http.Request, status int, code string) *http.Response {
	body := ""
	if code != "" && r.Method != http.MethodHead {
		body = "<Error><Code>" + code + "</Code><Message>scripted</Message></Error>"
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {"application/xml"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
}

func TestClassification(t *testing.T) {
	for _, row := range []struct {
		status int
		code   string
		kind   object.Kind
		class  object.Class
	}{
		{503, "SlowDown", object.Busy, object.Again},
		{500, "InternalError", object.Busy, object.Again},
		{502, "", object.Busy, object.Again},
		{504, "", object.Busy, object.Again},
		{429, "", object.Busy, object.Again},
		{408, "", object.Busy, object.Again},
		{409, "ConditionalRequestConflict", object.Busy, object.Again},
		{409, "ObjectParentIsFile", object.Invalid, object.Never},
		{412, "PreconditionFailed", object.Exists, object.Never},
		{403, "AccessDenied", object.Credentials, object.Never},
		{403, "SignatureDoesNotMatch", object.Credentials, object.Never},
		{403, "RequestTimeTooSkewed", object.ClockSkew, object.Again},
		{401, "", object.Credentials, object.Never},
		{404, "NoSuchBucket", object.NoBucket, object.Never},
		{404, "NoSuchKey", object.NotExist, object.Gone},
		{404, "XAdminUserNotFound", object.Credentials, object.Never},
		{301, "PermanentRedirect", object.WrongRegion, object.Never},
		{400, "AuthorizationHeaderMalformed", object.WrongRegion, object.Never},
		{400, "BadDigest", object.Broken, object.Again},
		{400, "RequestTimeout", object.Broken, object.Again},
		{400, "InvalidArgument", object.Invalid, object.Never},
		{501, "NotImplemented", object.Unsupported, object.Never},
		{507, "XMinioStorageFull", object.NoSpace, object.Never},
	} {
		t.Run(fmt.Sprint(row.status, row.code), func(t *testing.T) {
			s := scripted(t, func(http.RoundTripper) transport {
				return func(_ int, r *http.Request) (*http.Response, error) { return answer(r, row.status, row.code), nil }
			})
			err := s.Put(t.Context(), "k", []byte("x"), object.PutOptions{IfAbsent: true})
			if object.KindOf(err) != row.kind || object.ClassOf(err) != row.class {
				t.Errorf("Put: %v; kind %v, class %v", err, object.KindOf(err), object.ClassOf(err))
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
	}{
		{"reset", syscall.ECONNRESET},
		{"closed", io.EOF},
		{"refused", syscall.ECONNREFUSED},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := scripted(t, func(http.RoundTripper) transport {
				return func(int, *http.Request) (*http.Response, error) { return nil, row.err }
			})
			_, err := s.Stat(t.Context(), "k")
			if !errors.Is(err, object.Unreachable) || !errors.Is(err, row.err) {
				t.Errorf("Stat: %v", err)
			}
		})
	}
}

// TestDriverMakesOneAttempt: retries are the business of package retry alone.
func TestDriverMakesOneAttempt(t *testing.T) {
	var requests atomic.Int32
	s := scripted(t, func(http.RoundTripper) transport {
		return func(_ int, r *http.Request) (*http.Response, error) {
			requests.Add(1)
			return answer(r, 503, "SlowDown"), nil
		}
	})
	if err := s.Put(t.Context(), "k", nil, object.PutOptions{}); !errors.Is(err, object.Busy) {
		t.Errorf("Put: %v", err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// hang answers when the request is given up.
func hang(_ int, r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestHungServer(t *testing.T) {
	t.Run("own limit", func(t *testing.T) {
		s := scripted(t, func(http.RoundTripper) transport { return hang })
		s.o.Timeout, s.o.TimeoutPerMiB = 20*time.Millisecond, time.Millisecond
		_, gerr := s.Get(t.Context(), "k", 0, 10)
		_, serr := s.Stat(t.Context(), "k")
		var lerr error
		for _, err := range s.List(t.Context(), "", "") {
			lerr = err
		}
		for i, err := range []error{s.Put(t.Context(), "k", nil, object.PutOptions{}), gerr, serr, s.Delete(t.Context(), "k"), lerr} {
			if !errors.Is(err, object.Unreachable) {
				t.Errorf("call %d: %v", i, err)
			}
		}
	})
	t.Run("caller's context", func(t *testing.T) {
		s := scripted(t, func(http.RoundTripper) transport { return hang })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := s.Put(ctx, "k", nil, object.PutOptions{}); !errors.Is(err, object.Interrupted) {
			t.Errorf("Put: %v", err)
		}
	})
}

// TestLostAnswer: the server has done it, the network ate the answer, and the
// second attempt meets its own object.
func TestLostAnswer(t *testing.T) {
	s := scripted(t, func(real http.RoundTripper) transport {
		return func(n int, r *http.Request) (*http.Response, error) {
			resp, err := real.RoundTrip(r)
			if n == 0 && err == nil {
				resp.Body.Close()
				return nil, syscall.ECONNRESET
			}
			return resp, err
		}
	})
	st := retry.New(s, retry.Options{BackoffMin: time.Microsecond})
	once := object.PutOptions{IfAbsent: true}
	if err := st.Put(t.Context(), "k", []byte("mine"), once); err != nil {
		t.Errorf("a put whose answer was lost: %v", err)
	}
	if err := st.Put(t.Context(), "k", []byte("other"), once); !errors.Is(err, object.Exists) {
		t.Errorf("a put of other bytes: %v", err)
	}
}

// cut ends a body after n bytes: with an error, or by standing still.
type cut struct {
	io.ReadCloser
	ctx   context.Context
	left  int
	stall bool
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left > 0 {
		n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
		c.left -= n
		return n, err
	}
	if c.stall {
		<-c.ctx.Done()
		return 0, c.ctx.Err()
	}
	return 0, io.ErrUnexpectedEOF
}

func TestBodyBreaksOff(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 8<<10) // 128 KiB
	for _, row := range []struct {
		name   string
		first  int // bytes of the first body
		then   int // of each further one; -1: whole
		stall  bool
		change bool // the object changes in between
		kind   object.Kind
	}{
		{"once", 50_000, -1, false, false, object.Unknown},
		{"once, standing still", 50_000, -1, true, false, object.Unknown},
		{"three times", 30_000, 40_000, false, false, object.Unknown},
		{"too often", 1000, 1000, false, false, object.Broken},
		{"at once", 0, -1, false, false, object.Broken},
		{"without progress", 1000, 0, true, false, object.Broken},
		{"and the object changes", 50_000, -1, false, true, object.Broken},
	} {
		for _, rng := range [][2]int64{{0, -1}, {0, 131072}, {1000, 120_000}} {
			t.Run(fmt.Sprintf("%s, range %d", row.name, rng), func(t *testing.T) {
				gets := 0
				s := scripted(t, func(real http.RoundTripper) transport {
					return func(_ int, r *http.Request) (*http.Response, error) {
						if r.Method != http.MethodGet {
							return real.RoundTrip(r)
						}
						if gets++; gets > 1 && r.Header.Get("If-Match") == "" {
							t.Error("a resumed read does not ask for the same object")
						}
						if gets > 1 && row.change {
							return answer(r, 412, "PreconditionFailed"), nil
						}
						resp, err := real.RoundTrip(r)
						left := row.first
						if gets > 1 {
							left = row.then
						}
						if err == nil && left >= 0 {
							resp.Body = &cut{resp.Body, r.Context(), left, row.stall}
						}
						return resp, err
					}
				})
				if err := s.Put(t.Context(), "k", content, object.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				got, err := s.Get(t.Context(), "k", rng[0], rng[1])
				if row.kind != object.Unknown {
					if !errors.Is(err, row.kind) {
						t.Errorf("Get: %d bytes, %v; want %v", len(got), err, row.kind)
					}
					return
				}
				want := content[rng[0]:]
				if rng[1] >= 0 {
					want = want[:rng[1]]
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("Get: %d bytes, %v; want %d", len(got), err, len(want))
				}
			})
		}
	}
}

// TestWrongAnswers: a range is checked against what was asked.
func TestWrongAnswers(t *testing.T) {
	whole := []byte("0123456789")
	for _, row := range []struct {
		name   string
		status int
		rng    string // Content-Range; "": none
		body   string
		want   string // "": an error of kind Broken
	}{
		{"right", 206, "bytes 2-4/10", "234", "234"},
		{"range ignored", 200, "", string(whole), "234"},
		{"range ignored, object shorter", 200, "", "012", "2"},
		{"other start", 206, "bytes 3-5/10", "345", ""},
		{"other end", 206, "bytes 2-5/10", "2345", ""},
		{"too short for its range", 206, "bytes 2-4/10", "23", ""},
		{"shorter range than the object allows", 206, "bytes 2-3/10", "23", ""},
		{"object ends inside", 206, "bytes 2-3/4", "23", "23"},
		{"nonsense", 206, "bytes */10", "234", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := scripted(t, func(http.RoundTripper) transport {
				return func(_ int, r *http.Request) (*http.Response, error) {
					if got := r.Header.Get("Range"); got != "bytes=2-4" {
						t.Errorf("asked for %q", got)
					}
					resp := answer(r, row.status, "")
					resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(row.body)), int64(len(row.body))
					resp.Header.Set("Content-Length", fmt.Sprint(len(row.body)))
					if row.rng != "" {
						resp.Header.Set("Content-Range", row.rng)
					}
					return resp, nil
				}
			})
			got, err := s.Get(t.Context(), "k", 2, 3)
			if row.want == "" {
				if !errors.Is(err, object.Broken) {
					t.Errorf("Get: %q, %v", got, err)
				}
			} else if err != nil || string(got) != row.want {
				t.Errorf("Get: %q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestListOutOfOrderIsRefused(t *testing.T) {
	s := scripted(t, func(http.RoundTripper) transport {
		return func(_ int, r *http.Request) (*http.Response, error) {
			body := `<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>b</Key><Size>1</Size></Contents><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>`
			resp := answer(r, 200, "")
			resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			return resp, nil
		}
	})
	var last error
	for _, err := range s.List(t.Context(), "", "") {
		last = err
	}
	if !errors.Is(last, object.Broken) {
		t.Errorf("List: %v", last)
	}
}
