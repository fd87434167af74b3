package lb

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Figures of reading ahead.
const (
	chunkBytes        = 32 << 10
	smallBody         = 64 << 10  // fits into socket buffers
	readAheadTotalMax = 256 << 20 // of all answers
)

var chunkPool = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// bufferPool is ReverseProxy's.
type bufferPool struct{}

func (bufferPool) Get() []byte  { return *chunkPool.Get().(*[]byte) }
func (bufferPool) Put(b []byte) { chunkPool.Put(&b) }

// stall runs out when one read or write takes too long. It costs no deadline per
// operation, and none is left behind on the connection.
type stall struct {
	limit time.Duration
	over  func()
	timer *time.Timer
	fired atomic.Bool
}

func (s *stall) begin() {
	if s.timer == nil {
		s.timer = time.AfterFunc(s.limit, func() {
			s.fired.Store(true)
			s.over()
		})
		return
	}
	s.timer.Reset(s.limit)
}

func (s *stall) end() { s.timer.Stop() }

// past is a deadline that makes a pending operation return at once.
var past = time.Unix(1, 0)

// requestBody is a client's body on its way in.
type requestBody struct {
	io.ReadCloser
	stall stall
	left  int64 // of what is allowed; negative: no limit
	err   atomic.Pointer[error]
}

func newRequestBody(w http.ResponseWriter, r *http.Request, limit time.Duration, bytesMax int64) *requestBody {
	rc := http.NewResponseController(w)
	b := &requestBody{ReadCloser: r.Body, left: -1}
	if bytesMax > 0 {
		b.left = bytesMax
	}
	b.stall = stall{limit: limit, over: func() { rc.SetReadDeadline(past) }}
	return b
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.stall.begin()
	n, err := b.ReadCloser.Read(p)
	b.stall.end()
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			err = errTooLarge
		}
	}
	if err != nil && err != io.EOF {
		b.err.Store(&err)
	}
	return n, err
}

// failure is what went wrong with the client's body, if that did.
func (b *requestBody) failure() error {
	if b == nil {
		return nil
	}
	if e := b.err.Load(); e != nil {
		return *e
	}
	return nil
}

// answerBody is an upstream's body on its way out. It is cut off when the
// upstream pauses for too long, and gives the place back at its end.
type answerBody struct {
	io.ReadCloser
	stall stall
	done  func()
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	b.stall.begin()
	n, err := b.ReadCloser.Read(p)
	b.stall.end()
	if err != nil {
		b.done()
	}
	return n, err
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}

// readAhead takes up to max bytes of src before its reader wants them, so that a
// slow client does not keep a PHP worker. total is shared by all.
type readAhead struct {
	src   io.ReadCloser
	max   int64
	total *atomic.Int64
	begun bool // of the one who reads

	mu     sync.Mutex
	moved  sync.Cond
	chunks [][]byte // filled; the first from off on
	off    int
	size   int64
	err    error
	closed bool
}

// newReadAhead begins to read with the first Read: until then the answer's
// trailers, which the end of the body fills, belong to others. Close ends it.
func newReadAhead(src io.ReadCloser, max int64, total *atomic.Int64) *readAhead {
	r := &readAhead{src: src, max: max, total: total}
	r.moved.L = &r.mu
	return r
}

func (r *readAhead) run() {
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	for {
		n, err := r.src.Read(*buf)
		if !r.put((*buf)[:n], err) || err != nil {
			return
		}
	}
}

// put keeps b and waits until there is room for more; false when nobody reads.
func (r *readAhead) put(b []byte, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.size += int64(len(b))
	r.total.Add(int64(len(b)))
	for len(b) > 0 {
		if n := len(r.chunks); n == 0 || len(r.chunks[n-1]) == chunkBytes {
			r.chunks = append(r.chunks, (*chunkPool.Get().(*[]byte))[:0])
		}
		last := &r.chunks[len(r.chunks)-1]
		n := min(len(b), chunkBytes-len(*last))
		*last = append(*last, b[:n]...)
		b = b[n:]
	}
	r.err = err
	r.moved.Broadcast()
	for !r.closed && err == nil && (r.size >= r.max || r.size > 0 && r.total.Load() >= readAheadTotalMax) {
		r.moved.Wait()
	}
	return !r.closed
}

// Read implements io.Reader.
func (r *readAhead) Read(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		go r.run() // ends with src's end, or when Close has closed src
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.size == 0 && r.err == nil && !r.closed {
		r.moved.Wait()
	}
	if r.size == 0 {
		if r.closed {
			return 0, http.ErrBodyReadAfterClose
		}
		return 0, r.err
	}
	n := copy(p, r.chunks[0][r.off:])
	if r.off += n; r.off == len(r.chunks[0]) {
		give := r.chunks[0][:chunkBytes]
		chunkPool.Put(&give)
		r.chunks, r.off = r.chunks[1:], 0
	}
	r.size -= int64(n)
	r.total.Add(-int64(n))
	r.moved.Broadcast()
	return n, nil
}

// Close ends reading ahead.
func (r *readAhead) Close() error {
	r.mu.Lock()
	r.closed = true
	r.total.Add(-r.size)
	r.size = 0
	for _, c := range r.chunks {
		c = c[:chunkBytes]
		chunkPool.Put(&c)
	}
	r.chunks = nil
	r.moved.Broadcast()
	r.mu.Unlock()
	return r.src.Close()
}
