package s3

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/wpfs/wpfs/fs/object"
)

// S3 takes at most 10,000 parts of at least 5 MiB. Part sizes are s3cmd's
// default, so that both make the same ETag of the same file.
const (
	partSize     = 15 << 20
	partsMax     = 10_000
	partsAtOnce  = 4
	abortMax     = 10 * time.Second // for telling the server that an upload was given up
	partRetryMax = 3                // attempts of one part: what else has arrived is not sent again for it
)

// Put implements object.Plain: in one request up to partSize, in parts above.
func (p *Plain) Put(ctx context.Context, key string, body io.ReaderAt, size int64, head object.PlainHead) (string, error) {
	if err := p.check(object.OpPut, key); err != nil {
		return "", err
	}
	if size > partSize {
		etag, err := p.putParts(ctx, key, body, size, head)
		return strings.Trim(etag, `"`), p.s.wrap(ctx, object.OpPut, key, err)
	}
	in := &s3.PutObjectInput{
		Bucket: &p.s.o.Bucket, Key: p.key(key),
		Body: io.NewSectionReader(body, 0, size), ContentLength: aws.Int64(size),
		ContentType: optional(head.ContentType), CacheControl: optional(head.CacheControl), Metadata: head.Meta,
	}
	attempt, cancel := context.WithTimeout(ctx, p.s.o.timeout(size))
	defer cancel()
	out, err := p.s.client.PutObject(attempt, in)
	if err != nil {
		return "", p.s.wrap(ctx, object.OpPut, key, err)
	}
	return strings.Trim(aws.ToString(out.ETag), `"`), nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// putParts uploads in parts. An upload that fails is aborted: parts that nobody
// completes cost money and are shown by no list of objects.
func (p *Plain) putParts(ctx context.Context, key string, body io.ReaderAt, size int64, head object.PlainHead) (string, error) {
	begin, cancel := context.WithTimeout(ctx, p.s.o.timeout(0))
	defer cancel()
	up, err := p.s.client.CreateMultipartUpload(begin, &s3.CreateMultipartUploadInput{
		Bucket: &p.s.o.Bucket, Key: p.key(key),
		ContentType: optional(head.ContentType), CacheControl: optional(head.CacheControl), Metadata: head.Meta,
	})
	if err != nil {
		return "", err
	}
	etag, err := p.complete(ctx, up, body, size)
	if err != nil {
		// The caller's context may be the reason; the abort has its own.
		abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortMax)
		defer cancel()
		_, _ = p.s.client.AbortMultipartUpload(abort, &s3.AbortMultipartUploadInput{Bucket: up.Bucket, Key: up.Key, UploadId: up.UploadId})
	}
	return etag, err
}

func (p *Plain) complete(ctx context.Context, up *s3.CreateMultipartUploadOutput, body io.ReaderAt, size int64) (string, error) {
	each := max(partSize, (size+partsMax-1)/partsMax)
	parts := make([]types.CompletedPart, (size+each-1)/each)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for i := range parts {
		off := int64(i) * each
		g.Go(func() error {
			etag, err := p.part(gctx, up, int32(i+1), body, off, min(each, size-off))
			parts[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: aws.String(etag)}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	end, cancel := context.WithTimeout(ctx, p.s.o.timeout(size)) // some servers copy the parts together now
	defer cancel()
	out, err := p.s.client.CompleteMultipartUpload(end, &s3.CompleteMultipartUploadInput{
		Bucket: up.Bucket, Key: up.Key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

// part sends n bytes of body from off as part number i.
func (p *Plain) part(ctx context.Context, up *s3.CreateMultipartUploadOutput, i int32, body io.ReaderAt, off, n int64) (string, error) {
	for try := 1; ; try++ {
		attempt, cancel := context.WithTimeout(ctx, p.s.o.timeout(n))
		out, err := p.s.client.UploadPart(attempt, &s3.UploadPartInput{
			Bucket: up.Bucket, Key: up.Key, UploadId: up.UploadId, PartNumber: aws.Int32(i),
			Body: io.NewSectionReader(body, off, n), ContentLength: aws.Int64(n),
		})
		cancel()
		if err == nil {
			return aws.ToString(out.ETag), nil
		}
		if kind, _ := p.s.classify(err); kind.Class() != object.Again || try == partRetryMax || ctx.Err() != nil {
			return "", err
		}
	}
}
