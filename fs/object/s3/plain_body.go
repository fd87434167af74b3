package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/wpfs/wpfs/fs/object"
)

// body reads one object as a stream. Where an answer breaks off or stands still
// it asks for the rest, of the same ETag, as long as each answer brings
// something and at most resumeMax times in a row.
type body struct {
	p         *Plain
	ctx       context.Context
	key, etag string
	size, at  int64

	rc      io.ReadCloser // nil: to be asked for
	cancel  context.CancelFunc
	stall   *time.Timer
	resumes int // since bytes last arrived
}

// request asks for the object from b.at on. The request lives as long as its
// body, so its context has no deadline; a timer bounds the time to the answer.
func (b *body) request() (object.PlainInfo, error) {
	s := b.p.s
	ctx, cancel := context.WithCancel(b.ctx)
	in := &s3.GetObjectInput{Bucket: &s.o.Bucket, Key: b.p.key(b.key)}
	if b.etag != "" {
		in.IfMatch = aws.String(`"` + b.etag + `"`)
	}
	if b.at > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", b.at))
	}
	stall := time.AfterFunc(s.o.timeout(0), cancel)
	out, err := s.client.GetObject(ctx, in)
	stall.Stop()
	if err == nil {
		err = b.expect(out)
	}
	if err != nil {
		if out != nil && out.Body != nil {
			out.Body.Close()
		}
		cancel()
		return object.PlainInfo{}, err
	}
	b.rc, b.cancel, b.stall = out.Body, cancel, time.AfterFunc(s.o.StallMax, cancel)
	return object.PlainInfo{
		Info: object.Info{Key: b.key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)},
		ETag: strings.Trim(aws.ToString(out.ETag), `"`),
		Head: object.PlainHead{ContentType: aws.ToString(out.ContentType), CacheControl: aws.ToString(out.CacheControl), Meta: out.Metadata},
	}, nil
}

// expect checks the head of an answer against the request.
func (b *body) expect(out *s3.GetObjectOutput) error {
	if out.ContentLength == nil {
		return fmt.Errorf("%w: the answer does not tell its length", errHead)
	}
	if b.at == 0 {
		return nil
	}
	want := fmt.Sprintf("bytes %d-%d/%d", b.at, b.size-1, b.size)
	if got := aws.ToString(out.ContentRange); got != want || *out.ContentLength != b.size-b.at {
		return fmt.Errorf("%w: asked for %s, got %q with %d bytes", errHead, want, got, *out.ContentLength)
	}
	return nil
}

func (b *body) drop() {
	if b.rc != nil {
		b.stall.Stop()
		b.cancel()
		b.rc.Close()
		b.rc = nil
	}
}

// Close ends the request.
func (b *body) Close() error {
	b.drop()
	return nil
}

// Read implements io.Reader.
func (b *body) Read(q []byte) (int, error) {
	for {
		if b.rc == nil {
			if _, err := b.request(); err != nil {
				if isStatus(err, http.StatusPreconditionFailed) {
					err = fmt.Errorf("%w: the object changed while it was read", errHead)
				}
				return 0, b.p.s.wrap(b.ctx, object.OpGet, b.key, err)
			}
		}
		n, err := b.rc.Read(q)
		if n > 0 {
			b.at, b.resumes = b.at+int64(n), 0
			b.stall.Reset(b.p.s.o.StallMax)
		}
		switch {
		case b.at > b.size:
			return 0, b.p.s.fail(object.OpGet, b.key, object.Broken, fmt.Errorf("more than the %d bytes that were announced", b.size))
		case err == nil, n > 0:
			// A failure that came with bytes comes again without.
			return n, nil
		case errors.Is(err, io.EOF) && b.at == b.size:
			return 0, io.EOF
		}
		b.drop()
		if b.resumes++; b.resumes > resumeMax || b.ctx.Err() != nil || b.at == b.size || b.etag == "" {
			return 0, b.p.s.wrap(b.ctx, object.OpGet, b.key, fmt.Errorf("%w: %w", errBody, err))
		}
	}
}
