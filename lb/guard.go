package lb

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
)

// guardConn reads an HTTP/1 connection before net/http does and lets only
// messages through that every parser understands alike (RFC 9112, 11.2: request
// smuggling lives from the others). net/http itself mends some of them silently.
//
// A header is held back until it is complete and has been judged; then it goes on
// as it is, or in its place a line that net/http answers with 400, after which it
// closes the connection. Bodies pass through; only the framing of chunked ones is
// read along.
type guardConn struct {
	net.Conn
	room    []byte // where buf lies while it fits; kept from request to request
	buf     []byte // read, not judged yet, or not fetched yet
	passed  int    // so many bytes of buf may be fetched
	state   guardState
	left    int64 // of the body or the chunk
	refused *atomic.Int64
	raw     atomic.Bool // upgraded: not HTTP any more
	dead    bool
}

type guardState int

const (
	inHeader guardState = iota
	inBody              // of known length
	inChunkSize
	inChunk
	inChunkEnd // the CRLF behind a chunk
	inTrailer
)

// refusal is what net/http gets instead of what was refused: no request line, no
// chunk size, no trailer.
var refusal = []byte("refused\r\n\r\n")

var errAmbiguous = errors.New("ambiguous message")

// chunkLineMax bounds a chunk's size line with its extensions.
const chunkLineMax = 4 << 10

// pass lets everything through from now on.
func (g *guardConn) pass() { g.raw.Store(true) }

// ConnectionState makes net/http fill Request.TLS.
func (g *guardTLS) ConnectionState() tls.ConnectionState { return g.tls.ConnectionState() }

// guardTLS is a guardConn over TLS.
type guardTLS struct {
	*guardConn
	tls *tls.Conn
}

// Read implements net.Conn. It is called by one goroutine at a time.
func (g *guardConn) Read(p []byte) (int, error) {
	for {
		if g.passed > 0 {
			return g.fetch(p), nil
		}
		if g.raw.Load() {
			if len(g.buf) > 0 {
				g.passed = len(g.buf)
				continue
			}
			return g.Conn.Read(p)
		}
		if len(g.buf) == 0 && (g.state == inBody || g.state == inChunk) && g.left > 0 {
			return g.readBody(p)
		}
		if len(g.buf) > 0 && g.judge() {
			continue
		}
		if err := g.more(); err != nil {
			return 0, err
		}
	}
}

func (g *guardConn) fetch(p []byte) int {
	n := copy(p, g.buf[:g.passed])
	g.buf = g.buf[n:]
	g.passed -= n
	if len(g.buf) == 0 {
		g.buf = g.room[:0]
	}
	return n
}

// readBody reads past buf.
func (g *guardConn) readBody(p []byte) (int, error) {
	if int64(len(p)) > g.left {
		p = p[:g.left]
	}
	n, err := g.Conn.Read(p)
	g.took(int64(n))
	return n, err
}

// took notes that n bytes of a body have gone by.
func (g *guardConn) took(n int64) {
	if g.left -= n; g.left > 0 {
		return
	}
	switch g.state {
	case inBody:
		g.state = inHeader
	case inChunk:
		g.state = inChunkEnd
	}
}

// more reads behind what is in buf.
func (g *guardConn) more() error {
	if g.room == nil {
		g.room = make([]byte, 4<<10)
		g.buf = g.room[:0]
	}
	if len(g.buf) == cap(g.buf) { // a long header, or a piece of it behind a fetched one
		g.buf = append(make([]byte, 0, max(2*len(g.buf), cap(g.room))), g.buf...)
	}
	n, err := g.Conn.Read(g.buf[len(g.buf):cap(g.buf)])
	g.buf = g.buf[:len(g.buf)+n]
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// judge looks at the beginning of buf and reports whether it came on: more may be
// fetched, or the state changed. Otherwise it needs more bytes.
func (g *guardConn) judge() bool {
	if g.dead {
		g.buf = g.room[:0]
		return false
	}
	if g.state == inBody || g.state == inChunk {
		n := min(int64(len(g.buf)), g.left)
		g.passed = int(n)
		g.took(n)
		return true
	}
	n, err := g.judgeFraming()
	if err != nil {
		g.refused.Add(1)
		g.dead = true
		g.buf = append([]byte(nil), refusal...)
		g.passed = len(g.buf)
		return true
	}
	g.passed = n
	return n > 0
}

// judgeFraming returns how many bytes of buf are one whole piece of framing and
// moves the state on; 0 if it is not whole yet.
func (g *guardConn) judgeFraming() (int, error) {
	switch g.state {
	case inHeader:
		return g.judgeHeader()
	case inChunkEnd:
		if len(g.buf) < 2 {
			return 0, nil
		}
		if string(g.buf[:2]) != "\r\n" {
			return 0, errAmbiguous
		}
		g.state = inChunkSize
		return 2, nil
	}
	line, n, err := cutLine(g.buf, chunkLineMax)
	if n == 0 || err != nil {
		return 0, err
	}
	if g.state == inTrailer {
		switch {
		case len(line) == 0:
			g.state = inHeader
		case line[0] == ' ', line[0] == '\t', !bytes.Contains(line, []byte(":")):
			return 0, errAmbiguous
		}
		return n, nil
	}
	size, ok := chunkSize(line)
	if !ok {
		return 0, errAmbiguous
	}
	if g.left, g.state = size, inChunk; size == 0 {
		g.state = inTrailer
	}
	return n, nil
}

// cutLine returns the first line of b without its CRLF, and its length with it; 0
// if it is not there yet. A bare LF or CR is an error.
func cutLine(b []byte, limit int) (line []byte, n int, err error) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0 && len(b) > limit, i > limit:
		return nil, 0, errAmbiguous
	case i < 0:
		return nil, 0, nil
	case i == 0 || b[i-1] != '\r' || bytes.IndexByte(b[:i-1], '\r') >= 0 || bytes.IndexByte(b[:i], 0) >= 0:
		return nil, 0, errAmbiguous
	}
	return b[:i-1], i + 1, nil
}

// chunkSize reads a size line; extensions are allowed and mean nothing.
func chunkSize(line []byte) (int64, bool) {
	digits, _, _ := strings.Cut(string(line), ";")
	digits = strings.TrimRight(digits, " \t")
	if digits == "" || len(digits) > 15 {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		i := strings.IndexRune("0123456789abcdef", c|0x20)
		if i < 0 || c < '0' {
			return 0, false
		}
		n = n<<4 | int64(i)
	}
	return n, true
}

// judgeHeader waits for the whole header. One that is too long goes on as it is:
// net/http answers it with 431.
func (g *guardConn) judgeHeader() (int, error) {
	end := headerEnd(g.buf)
	if end == 0 {
		if len(g.buf) > headerBytesMax+8<<10 {
			g.dead = true
			return len(g.buf), nil
		}
		return 0, nil
	}
	f, err := framingOf(g.buf[:end])
	if err != nil {
		return 0, err
	}
	switch {
	case f.chunked:
		g.state = inChunkSize
	case f.length > 0:
		g.state, g.left = inBody, f.length
	}
	return end, nil
}

// headerEnd is the length of the header with its empty line, under any reading of
// line ends; 0 while it is not there.
func headerEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		if b[i] != '\n' {
			continue
		}
		rest := b[i+1:]
		if len(rest) > 0 && rest[0] == '\n' {
			return i + 2
		}
		if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 3
		}
	}
	return 0
}
