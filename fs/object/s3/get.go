package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/wpfs/wpfs/fs/object"
)

// resumeMax is how often one Get asks for the rest of a body that broke off.
const resumeMax = 3

// unknownSize stands for the content of a Get that reads to the end.
const unknownSize = 8 << 20

// Get implements object.Store. The SDK never goes on with a body that breaks
// off; this does, as long as every piece brings something, and only while the
// object's ETag stays the same.
func (s *Store) Get(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := object.CheckGet(key, off); err != nil {
		return nil, s.fail(object.OpGet, key, object.Invalid, err)
	}
	size := n
	if n < 0 {
		size = unknownSize
	}
	attempt, cancel := context.WithTimeout(ctx, s.o.timeout(size))
	defer cancel()
	if n == 0 { // S3 has no empty range; the answer still depends on the key
		_, err := s.Stat(ctx, key)
		return []byte{}, err
	}
	g := get{s: s, key: key, off: off, n: n, got: []byte{}}
	for resumes := 0; ; resumes++ {
		before := len(g.got)
		err := g.piece(attempt)
		if err == nil {
			return g.got, nil
		}
		if object.KindOf(err) == object.Invalid {
			return nil, err
		}
		if !errors.Is(err, errBody) || len(g.got) == before || resumes == resumeMax || attempt.Err() != nil {
			return nil, s.wrap(ctx, object.OpGet, key, err)
		}
	}
}

// errBody marks a body that broke off, as opposed to a request that failed.
var errBody = errors.New("the body broke off")

// get is one call of Get: what is wanted and what has arrived.
type get struct {
	s      *Store
	key    string
	off, n int64 // n < 0: to the end
	etag   string
	got    []byte
}

// piece asks for what is missing and appends what arrives.
func (g *get) piece(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := g.off + int64(len(g.got))
	in := &s3.GetObjectInput{Bucket: &g.s.o.Bucket, Key: aws.String(g.s.prefix + g.key)}
	ranged := start > 0 || g.n >= 0
	switch {
	case g.n >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", start, g.off+g.n-1))
	case ranged:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", start))
	}
	if g.etag != "" {
		in.IfMatch = aws.String(g.etag)
	}
	out, err := g.s.client.GetObject(ctx, in)
	if g.etag != "" && (isStatus(err, http.StatusPreconditionFailed) || isStatus(err, http.StatusRequestedRangeNotSatisfiable)) {
		return fmt.Errorf("%w: the object changed while it was read", errHead)
	}
	if isStatus(err, http.StatusRequestedRangeNotSatisfiable) {
		return nil // the object ends at or before start
	}
	if err != nil {
		return err
	}
	defer out.Body.Close()
	g.etag = aws.ToString(out.ETag)
	want, skip, err := g.expect(out, start)
	if err != nil {
		return err
	}
	return g.read(out.Body, want, skip, cancel)
}

// expect checks the answer's head against the request: how many bytes of
// content must come, after how many that were not asked for.
func (g *get) expect(out *s3.GetObjectOutput, start int64) (want, skip int64, err error) {
	if out.ContentLength == nil {
		return 0, 0, fmt.Errorf("%w: the answer does not tell its length", errHead)
	}
	length := *out.ContentLength
	if length < 0 || length > object.SizeMax {
		return 0, 0, g.s.fail(object.OpGet, g.key, object.Invalid, fmt.Errorf("the answer has %d bytes", length))
	}
	if out.ContentRange == nil { // the whole object, asked for or not
		want = max(length-start, 0)
		if g.n >= 0 {
			want = min(want, g.off+g.n-start)
		}
		return want, min(start, length), nil
	}
	var first, last, total int64
	if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &first, &last, &total); err != nil {
		return 0, 0, fmt.Errorf("%w: Content-Range %q", errHead, *out.ContentRange)
	}
	end := total
	if g.n >= 0 {
		end = min(end, g.off+g.n)
	}
	if first != start || last != end-1 || length != end-start {
		return 0, 0, fmt.Errorf("%w: asked for bytes from %d to %d, got %q with %d bytes", errHead, start, end-1, *out.ContentRange, length)
	}
	return length, 0, nil
}

// errHead marks an answer whose head contradicts the request.
var errHead = errors.New("the answer does not fit the request")

// read appends want bytes of body, after skip bytes that are dropped. A body
// that stands still for StallMax is given up by cancelling its request.
func (g *get) read(body io.Reader, want, skip int64, cancel context.CancelFunc) error {
	watchdog := time.AfterFunc(g.s.o.StallMax, cancel)
	defer watchdog.Stop()
	watched := readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		if n > 0 {
			watchdog.Reset(g.s.o.StallMax)
		}
		return n, err
	})
	if _, err := io.CopyN(io.Discard, watched, skip); err != nil {
		return fmt.Errorf("%w: %w", errBody, err)
	}
	at := len(g.got)
	g.got = append(g.got, make([]byte, want)...)
	n, err := io.ReadFull(watched, g.got[at:])
	g.got = g.got[:at+n]
	if err != nil {
		return fmt.Errorf("%w: %w", errBody, err)
	}
	// The end of the body is where the SDK compares checksums.
	if _, err := io.Copy(io.Discard, watched); err != nil {
		g.got = g.got[:at]
		return fmt.Errorf("%w: %w", errBody, err)
	}
	return nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func isStatus(err error, status int) bool {
	var re *awshttp.ResponseError
	return errors.As(err, &re) && re.HTTPStatusCode() == status
}
