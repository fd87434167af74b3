package lb

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
)

// feed is a connection that has bytes to read and nothing else.
type feed struct {
	net.Conn
	r io.Reader
}

func (f feed) Read(p []byte) (int, error) { return f.r.Read(p) }

// through reads everything that a guard lets pass.
func through(r io.Reader) (string, int64) {
	var refused atomic.Int64
	g := &guardConn{Conn: feed{r: r}, refused: &refused}
	b, _ := io.ReadAll(g)
	return string(b), refused.Load()
}

// ambiguous messages: two parsers might see different requests in them.
var ambiguous = map[string]string{
	"length and coding":             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"coding and length":             "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"two lengths":                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	"two equal lengths":             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"a list of lengths":             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
	"a signed length":               "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
	"a hexadecimal length":          "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
	"an empty length":               "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
	"an endless length":             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
	"another coding":                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"a coding nobody knows":         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"two codings":                   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"a coding behind vertical tab":  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
	"a blank before the colon":      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"a folded line":                 "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
	"a folded line with a tab":      "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tContent-Length: 5\r\n\r\n",
	"a blank before a name":         "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
	"a bare LF":                     "GET / HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\nhello",
	"bare LFs only":                 "GET / HTTP/1.1\nHost: a\n\n",
	"a bare LF at the end":          "GET / HTTP/1.1\r\nHost: a\r\n\n",
	"a bare CR":                     "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
	"a NUL":                         "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
	"a line without a colon":        "GET / HTTP/1.1\r\nHost: a\r\nhello\r\n\r\n",
	"two hosts":                     "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"another host in the target":    "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"a host in the target only":     "GET http://b/ HTTP/1.1\r\n\r\n",
	"two blanks in the first line":  "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
	"a tab in the first line":       "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"another version":               "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
	"no version":                    "GET /\r\n\r\n",
	"HTTP/2 in the clear":           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"a chunk with a bare LF":        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
	"a chunk longer than it says":   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
	"a negative chunk":              "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
	"a chunk with 0x":               "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
	"a chunk that overflows":        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
	"an endless chunk extension":    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", chunkLineMax) + "\r\nhello\r\n0\r\n\r\n",
	"a folded trailer":              "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n 2\r\n\r\n",
	"a request after a broken one":  "GET / HTTP/1.1\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
	"a request in the second place": "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}

// fine messages pass as they are.
var fine = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://a:80/x HTTP/1.1\r\nHost: A:80\r\n\r\n",
	"GET /?u=http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n5;a=b\r\nhe\nlo\r\nA \r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n\n\n\r\n\r\n\x00\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
}

func TestGuard(t *testing.T) {
	for name, in := range ambiguous {
		for how, r := range map[string]io.Reader{"whole": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
			got, refused := through(r)
			if refused != 1 || strings.Contains(got, "smuggled") {
				t.Errorf("%s, %s: refused %d times, passed %q", name, how, refused, got)
			}
		}
	}
	for _, in := range fine {
		for how, r := range map[string]io.Reader{"whole": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
			if got, refused := through(r); got != in || refused != 0 {
				t.Errorf("%s: refused %d times\n%q became\n%q", how, refused, in, got)
			}
		}
	}
}

// TestSmuggling: each of the corpus is answered with 400, or not at all, and no
// upstream hears of it; the connection is closed.
func TestSmuggling(t *testing.T) {
	nodes := startSite(t, 1)
	f := startFront(t, backendsOf(nodes), nil)
	for name, in := range ambiguous {
		in = strings.NewReplacer("POST / ", "POST /?mark=smuggled ", "GET / ", "GET /?mark=smuggled ", "POST /2 ", "POST /?mark=smuggled ").Replace(in)
		got := f.raw(in + "GET /?mark=smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if !strings.Contains(got, " 400 Bad Request") || strings.Count(got, "HTTP/1.1 200") > 1 {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	// Those whose body is broken have reached the upstream, which saw a request
	// that never ended; what stands behind them is no request to anybody.
	broken := 0
	for name := range ambiguous {
		if strings.Contains(name, "chunk") || strings.Contains(name, "trailer") {
			broken++
		}
	}
	if n := nodes[0].marks("smuggled"); n > broken {
		t.Errorf("PHP ran %d times", n)
	}
	got := f.raw(fine[4])
	if strings.Count(got, "HTTP/1.1 200") != 2 {
		t.Errorf("two pipelined requests: %.300q", got)
	}
}

// FuzzGuard: what passes is read by net/http's rules as the same messages, no
// matter how the bytes arrive.
func FuzzGuard(f *testing.F) {
	for _, in := range fine {
		f.Add([]byte(in))
	}
	for _, in := range ambiguous {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, a := through(bytes.NewReader(in))
		pieces, b := through(iotest.OneByteReader(bytes.NewReader(in)))
		if len(in) > headerBytesMax {
			return // how much of an endless header passes depends on its pieces
		}
		if whole != pieces || a != b {
			t.Fatalf("whole (%d refused): %q\nin pieces (%d refused): %q", a, whole, b, pieces)
		}
		if a == 0 && !bytes.HasPrefix(in, []byte(whole)) {
			t.Fatalf("%q became %q", in, whole)
		}
		if _, err := framingOf(in[:headerEnd(in)]); err == nil && a == 0 && headerEnd(in) > 0 {
			h := string(in[:headerEnd(in)])
			if strings.Count(strings.ToLower(h), "\ncontent-length:") > 1 || strings.Contains(strings.ReplaceAll(h, "\r\n", ""), "\n") {
				t.Fatalf("passed: %q", h)
			}
		}
	})
}

// TestGuardUpgrade: after an upgrade nothing is judged any more.
func TestGuardUpgrade(t *testing.T) {
	var refused atomic.Int64
	in := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	g := &guardConn{Conn: feed{r: strings.NewReader(in + "\n\nanything\n")}, refused: &refused}
	b := make([]byte, len(in))
	if _, err := io.ReadFull(g, b); err != nil || string(b) != in {
		t.Fatalf("%q, %v", b, err)
	}
	g.pass()
	rest, err := io.ReadAll(g)
	if err != nil || string(rest) != "\n\nanything\n" || refused.Load() != 0 {
		t.Errorf("%q, %v, refused %d", rest, err, refused.Load())
	}
}
