package lb

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// AccessLog has one line for each request. Lines are buffered and written at
// least once a second while a Balancer runs.
type AccessLog struct {
	path string // "": not a file

	mu  sync.Mutex
	out io.Writer
	buf *bufio.Writer
	bad error // of writing, told by Close
}

// OpenAccessLog appends to the file at path, or writes to standard output if it
// is "-".
func OpenAccessLog(path string) (*AccessLog, error) {
	if path == "-" {
		return NewAccessLog(os.Stdout), nil
	}
	f, err := openLog(path)
	if err != nil {
		return nil, err
	}
	l := NewAccessLog(f)
	l.path = path
	return l, nil
}

// NewAccessLog writes to w, which stays the caller's.
func NewAccessLog(w io.Writer) *AccessLog {
	return &AccessLog{out: w, buf: bufio.NewWriterSize(w, 64<<10)}
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
}

// Reopen goes on in a new file of the same name: the old one has been renamed
// (logrotate). On an error the old file stays in use.
func (l *AccessLog) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := openLog(l.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.buf.Flush()
	old := l.out.(io.Closer)
	l.out = f
	l.buf.Reset(f)
	return errors.Join(err, old.Close())
}

// Flush writes what is buffered.
func (l *AccessLog) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.buf.Flush(); err != nil {
		l.bad = err
		l.buf.Reset(l.out) // a full disk must not end the log for ever
	}
}

// Close writes what is buffered and closes the file.
func (l *AccessLog) Close() error {
	l.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.out.(io.Closer); ok && l.path != "" {
		return errors.Join(l.bad, c.Close())
	}
	return l.bad
}

func (l *AccessLog) write(e entry) {
	line := e.combined()
	if e.format == LogJSON {
		line = e.json()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.buf.WriteString(line); err != nil {
		l.bad = err
		l.buf.Reset(l.out)
	}
}

// entry is a line of the log.
type entry struct {
	format LogFormat

	Time      time.Time `json:"time"`
	Client    string    `json:"client"`
	Method    string    `json:"method"`
	Host      string    `json:"host"`
	URI       string    `json:"uri"`
	Proto     string    `json:"proto"`
	TLS       bool      `json:"tls"`
	Status    int       `json:"status"`
	Bytes     int64     `json:"bytes"`
	Seconds   float64   `json:"seconds"`
	Pool      Pool      `json:"pool"`
	Upstream  string    `json:"upstream"`
	Tries     int       `json:"tries"`
	Referer   string    `json:"referer"`
	UserAgent string    `json:"user_agent"`
	Trace     string    `json:"traceparent,omitempty"`
}

func (x *exchange) entry(w *recorder, r *http.Request) entry {
	e := entry{
		format: x.s.LogFormat, Time: x.begin, Client: x.o.client.String(), Method: r.Method, Host: r.Host, URI: r.RequestURI, Proto: r.Proto,
		TLS: x.o.https, Status: w.status, Bytes: w.bytes, Seconds: time.Since(x.begin).Seconds(), Pool: x.rule.Pool, Tries: len(x.tried),
		Referer: r.Referer(), UserAgent: r.UserAgent(), Trace: r.Header.Get("Traceparent"),
	}
	if x.up != nil {
		e.Upstream = x.up.id
	}
	return e
}

// combined is Apache's combined format, and behind it the upstream and the
// seconds. What a client can choose is quoted, so that it stays one line.
func (e entry) combined() string {
	return fmt.Sprintf("%s - - [%s] %s %d %d %s %s %s %.3f\n", e.Client, e.Time.Format("02/Jan/2006:15:04:05 -0700"),
		quoted(e.Method+" "+e.URI+" "+e.Proto), e.Status, e.Bytes, quoted(e.Referer), quoted(e.UserAgent), orDash(e.Upstream), e.Seconds)
}

func (e entry) json() string {
	b, err := json.Marshal(e)
	if err != nil { // of strings and numbers: cannot be
		return ""
	}
	return string(b) + "\n"
}

// quoted escapes like nginx: quotes, backslashes and what is not printable ASCII
// as \xHH.
func quoted(s string) string {
	if s == "" {
		return `"-"`
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\x%02X`, c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
