package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/retry"
)

func openPlain(t *testing.T, o Options, prefix string) *Plain {
	t.Helper()
	p, err := NewPlain(t.Context(), o, prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func put(t *testing.T, p object.Plain, key, content string, head object.PlainHead) string {
	t.Helper()
	etag, err := p.Put(t.Context(), key, strings.NewReader(content), int64(len(content)), head)
	if err != nil {
		t.Fatal(err)
	}
	return etag
}

func keysOf(t *testing.T, p object.Plain) []string {
	t.Helper()
	var keys []string
	for info, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// Keys that CheckKey refuses, and that every server here takes.
var plainKeys = []string{"2026/11/Ölfoto (1)+&=%20.jpg", ".hidden", "a b", "dir/", "dir/x", "emoji \U0001F600", "q?#[]", "tab\tand\nnewline", "x"}

func TestPlain(t *testing.T) {
	isolate(t)
	g := objecttest.StartGateway(t, "127.0.0.1")
	g.MakeBucket(t, "gateway")
	for name, o := range map[string]Options{
		"Fake":    {Bucket: "b", Endpoint: fake(t, "b"), AccessKey: "k", SecretKey: "s", PageSize: 2},
		"Gateway": {Bucket: "gateway", Endpoint: g.Endpoint, Region: g.Region, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PageSize: 2},
	} {
		t.Run(name, func(t *testing.T) {
			put(t, openPlain(t, o, ""), "site copy2/neighbour", "x", object.PlainHead{})
			p := retry.NewPlain(openPlain(t, o, "/site copy/"), retry.Options{})
			for _, k := range plainKeys {
				put(t, p, k, map[bool]string{true: "", false: "content of " + k}[strings.HasSuffix(k, "/")], object.PlainHead{})
			}
			if got := keysOf(t, p); !slices.Equal(got, slices.Sorted(slices.Values(plainKeys))) {
				t.Errorf("listed %q, want %q", got, plainKeys)
			}
			info, body, err := p.Open(t.Context(), plainKeys[0])
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if err != nil || string(got) != "content of "+plainKeys[0] || info.Size != int64(len(got)) {
				t.Errorf("read %q, %v; size %d", got, err, info.Size)
			}
			for _, k := range plainKeys {
				if err := p.Delete(t.Context(), k); err != nil {
					t.Error(err)
				}
			}
			if got := keysOf(t, p); len(got) != 0 {
				t.Errorf("still there: %q", got)
			}
			if _, err := p.Stat(t.Context(), "x"); !errors.Is(err, object.NotExist) {
				t.Errorf("Stat of a deleted object: %v", err)
			}
			if err := p.Delete(t.Context(), "x"); err != nil {
				t.Errorf("second Delete: %v", err)
			}
		})
		t.Run(name+"Head", func(t *testing.T) {
			p := openPlain(t, o, "h")
			want := object.PlainHead{ContentType: "image/svg+xml", CacheControl: "public, max-age=60", Meta: map[string]string{"s3cmd-attrs": "mode:33188/mtime:1"}}
			etag := put(t, p, "k", "abc", want)
			info, err := p.Stat(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			if sum := fmt.Sprintf("%x", md5.Sum([]byte("abc"))); etag != sum || info.ETag != sum {
				t.Errorf("ETags %q and %q, want %s", etag, info.ETag, sum)
			}
			if info.Head.ContentType != want.ContentType || !maps.Equal(info.Head.Meta, want.Meta) ||
				name == "Gateway" && info.Head.CacheControl != want.CacheControl {
				t.Errorf("head %+v, want %+v", info.Head, want)
			}
		})
		t.Run(name+"Parts", func(t *testing.T) {
			p := openPlain(t, o, "parts")
			content := make([]byte, 2*partSize+12345)
			for i := range content {
				content[i] = byte(i * 7 >> 3)
			}
			if _, err := p.Put(t.Context(), "big", bytes.NewReader(content), int64(len(content)), object.PlainHead{Meta: map[string]string{"a": "b"}}); err != nil {
				t.Fatal(err)
			}
			info, body, err := p.Open(t.Context(), "big")
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			if name == "Gateway" && (info.Head.Meta["a"] != "b" || !strings.HasSuffix(info.ETag, "-3")) {
				t.Errorf("head %+v, ETag %s", info.Head, info.ETag)
			}
		})
	}
}

func TestPlainRefusesKeys(t *testing.T) {
	isolate(t)
	p := openPlain(t, Options{Bucket: "b", Endpoint: fake(t, "b"), AccessKey: "k", SecretKey: "s"}, "p")
	for _, key := range []string{"", "a\xff", strings.Repeat("k", object.PlainKeyMax-1)} {
		_, err := p.Put(t.Context(), key, strings.NewReader(""), 0, object.PlainHead{})
		_, _, oerr := p.Open(t.Context(), key)
		_, serr := p.Stat(t.Context(), key)
		for _, err := range []error{err, oerr, serr, p.Delete(t.Context(), key)} {
			if !errors.Is(err, object.Invalid) {
				t.Errorf("key of %d bytes: %v", len(key), err)
			}
		}
	}
	if _, err := NewPlain(t.Context(), Options{Bucket: "b"}, strings.Repeat("p", prefixMax+1)); err == nil {
		t.Error("a prefix that is too long was taken")
	}
	o, prefix, err := ParsePlainURL("s3://b/wp content/2?endpoint=http://h:1&region=r")
	if err != nil || o.Bucket != "b" || prefix != "wp content/2" || o.Region != "r" || o.Prefix != "" {
		t.Errorf("%+v, %q, %v", o, prefix, err)
	}
}

// scriptedPlain is scripted for the other door.
func scriptedPlain(t *testing.T, f func(real http.RoundTripper) transport) *Plain {
	return &Plain{s: scripted(t, f)}
}

func TestPlainBodyBreaksOff(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 8<<10) // 128 KiB
	for _, row := range []struct {
		name   string
		first  int
		then   int // of each further one; -1: whole
		stall  bool
		change bool
		kind   object.Kind
	}{
		{"once", 50_000, -1, false, false, object.Unknown},
		{"once, standing still", 50_000, -1, true, false, object.Unknown},
		{"many times", 10_000, 10_000, false, false, object.Unknown}, // each brings something
		{"at once, then well", 0, -1, false, false, object.Unknown},
		{"without progress", 1000, 0, false, false, object.Broken},
		{"and the object changes", 50_000, -1, false, true, object.Broken},
	} {
		t.Run(row.name, func(t *testing.T) {
			gets := 0
			p := scriptedPlain(t, func(real http.RoundTripper) transport {
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
			put(t, p, "k", content, object.PlainHead{})
			_, body, err := p.Open(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if row.kind != object.Unknown {
				if !errors.Is(err, row.kind) || string(got) == content {
					t.Errorf("%d bytes, %v; want %v", len(got), err, row.kind)
				}
				return
			}
			if err != nil || string(got) != content {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// TestPlainPartsFail: a part is sent again; what fails for good is aborted, and
// nothing is under the key.
func TestPlainPartsFail(t *testing.T) {
	for _, lost := range []int{1, 1000} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			failures, aborts := 0, 0
			p := scriptedPlain(t, func(real http.RoundTripper) transport {
				mu := make(chan struct{}, 1)
				return func(_ int, r *http.Request) (*http.Response, error) {
					mu <- struct{}{}
					q := r.URL.Query()
					if r.Method == http.MethodDelete && q.Has("uploadId") {
						aborts++
					}
					fails := q.Get("partNumber") == "2" && failures < lost
					if fails {
						failures++
					}
					<-mu
					if fails {
						return nil, syscall.ECONNRESET
					}
					return real.RoundTrip(r)
				}
			})
			content := make([]byte, 2*partSize)
			_, err := p.Put(t.Context(), "big", bytes.NewReader(content), int64(len(content)), object.PlainHead{})
			if lost == 1 {
				if err != nil || aborts != 0 {
					t.Errorf("%v; %d aborts", err, aborts)
				}
				return
			}
			if !errors.Is(err, object.Unreachable) || aborts != 1 || failures != partRetryMax {
				t.Errorf("%v; %d aborts, %d failures", err, aborts, failures)
			}
			if keys := keysOf(t, p); len(keys) != 0 {
				t.Errorf("there is %q", keys)
			}
		})
	}
}

// TestPlainListGoesOn: the list is gone on with after a page that failed.
func TestPlainListGoesOn(t *testing.T) {
	lists := 0
	p := scriptedPlain(t, func(real http.RoundTripper) transport {
		return func(_ int, r *http.Request) (*http.Response, error) {
			if r.URL.Query().Has("list-type") {
				if lists++; lists%2 == 0 {
					return answer(r, 503, "SlowDown"), nil
				}
			}
			return real.RoundTrip(r)
		}
	})
	p.s.o.PageSize = 2
	want := []string{"a", "b", "c", "d", "e", "f", "g"}
	for _, k := range want {
		put(t, p, k, "x", object.PlainHead{})
	}
	var last error
	for _, err := range p.List(context.Background()) {
		last = err
	}
	if !errors.Is(last, object.Busy) {
		t.Errorf("without retries: %v", last)
	}
	lists = 0
	if got := keysOf(t, retry.NewPlain(p, retry.Options{BackoffMin: 1})); !slices.Equal(got, want) {
		t.Errorf("listed %q", got)
	}
}
