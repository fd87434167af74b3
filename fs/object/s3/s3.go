// Package s3 is a bucket of Amazon S3 or of a server that speaks its protocol.
// It is the only importer of the AWS SDK.
//
// The driver makes exactly one attempt per call. The SDK's own retries are off:
// its time limit spans all attempts instead of bounding each, its token bucket
// makes calls fail at once in an outage, and a conditional put that it repeats
// can be refused because of its own first attempt, which only a caller that
// sees the attempts can tell from a lost race. Package retry is that caller.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/wpfs/wpfs/fs/object"
)

// Store is the bucket.
type Store struct {
	o      Options
	client *s3.Client
	prefix string // "" or ending in a slash
	name   string // for errors
}

var _ object.Store = (*Store)(nil)

// defaultRegion is what servers that have no regions expect in signatures.
const defaultRegion = "us-east-1"

// New prepares the bucket's client. It reads the environment and the shared
// configuration files but does not speak to the server; object.Probe does.
func New(ctx context.Context, o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.setDefaults()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("s3: read the AWS configuration: %w", err)
	}
	s := &Store{o: o, name: "s3://" + o.Bucket}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
		s.name += "/" + o.Prefix
	}
	s.client = s3.NewFromConfig(cfg, s.configure)
	return s, nil
}

// configure settles everything that the SDK would decide otherwise.
func (s *Store) configure(so *s3.Options) {
	o := s.o
	if o.Endpoint != "" {
		so.BaseEndpoint = aws.String(o.Endpoint)
	}
	isAWS := so.BaseEndpoint == nil || strings.HasSuffix(hostOf(*so.BaseEndpoint), ".amazonaws.com")
	if so.BaseEndpoint != nil {
		s.name += " (" + *so.BaseEndpoint + ")"
	}
	if o.Region != "" {
		so.Region = o.Region
	}
	if so.Region == "" {
		so.Region = defaultRegion
	}
	if o.AccessKey != "" {
		so.Credentials = aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, ""))
	}
	so.Credentials = provider{so.Credentials}
	so.UsePathStyle = !isAWS && !o.VirtualHost
	so.HTTPClient = &http.Client{
		Transport: o.Transport,
		// A redirect means another region: an answer to classify, not to follow.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	so.Retryer = aws.NopRetryer{}
	so.RequestChecksumCalculation, so.ResponseChecksumValidation = o.checksums(isAWS)
	so.DisableLogOutputChecksumValidationSkipped = true
}

func hostOf(endpoint string) string {
	host := endpoint
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	host, _, _ = strings.Cut(host, "/")
	host, _, _ = strings.Cut(host, ":")
	return host
}

// newTransport has the limits that the SDK's own lacks: a server that accepts a
// request and then says nothing must not hold a system call for ever, and ten
// idle connections are too few for a node's worth of parallel reads.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:          512,
		MaxIdleConnsPerHost:   256,
		MaxConnsPerHost:       256,
		IdleConnTimeout:       55 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 15 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
	}
}

// Close drops idle connections. The Store may still be used.
func (s *Store) Close() error {
	if c, ok := s.o.Transport.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	return nil
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, b []byte, o object.PutOptions) error {
	if err := object.CheckPut(key, b, o); err != nil {
		return s.fail(object.OpPut, key, object.Invalid, err)
	}
	in := &s3.PutObjectInput{
		Bucket:        &s.o.Bucket,
		Key:           aws.String(s.prefix + key),
		Body:          bytes.NewReader(b), // seekable: the SDK reads it twice to sign it
		ContentLength: aws.Int64(int64(len(b))),
		ContentType:   aws.String("application/octet-stream"),
	}
	if o.IfAbsent {
		in.IfNoneMatch = aws.String("*")
	}
	if o.IfMatch != "" {
		in.IfMatch = aws.String(o.IfMatch)
	}
	attempt, cancel := context.WithTimeout(ctx, s.o.timeout(int64(len(b))))
	defer cancel()
	_, err := s.client.PutObject(attempt, in)
	err = s.wrap(ctx, object.OpPut, key, err)
	if kind := object.KindOf(err); o.IfMatch != "" && (kind == object.Exists || kind == object.NotExist) {
		// 412, or of an absent key 404 on some servers.
		return s.fail(object.OpPut, key, object.Changed, err)
	}
	return err
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	if err := object.CheckKey(key); err != nil {
		return object.Info{}, s.fail(object.OpStat, key, object.Invalid, err)
	}
	attempt, cancel := context.WithTimeout(ctx, s.o.timeout(0))
	defer cancel()
	out, err := s.client.HeadObject(attempt, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.prefix + key)})
	if err != nil {
		return object.Info{}, s.wrap(ctx, object.OpStat, key, err)
	}
	return object.Info{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified), Version: aws.ToString(out.ETag)}, nil
}

// Delete implements object.Store. Objects go one by one: some servers demand a
// Content-MD5 for the bulk request that the SDK no longer sends.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return s.fail(object.OpDelete, key, object.Invalid, err)
	}
	attempt, cancel := context.WithTimeout(ctx, s.o.timeout(0))
	defer cancel()
	_, err := s.client.DeleteObject(attempt, &s3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.prefix + key)})
	if err = s.wrap(ctx, object.OpDelete, key, err); errors.Is(err, object.NotExist) {
		return nil
	}
	return err
}

// List implements object.Store, a page at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if err := object.CheckPrefix(prefix); err != nil {
			yield(object.Info{}, s.fail(object.OpList, prefix, object.Invalid, err))
			return
		}
		for more := true; more; {
			var page []object.Info
			var err error
			if page, after, more, err = s.page(ctx, prefix, after); err != nil {
				yield(object.Info{}, err)
				return
			}
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// page reads keys behind after and tells the last one it has seen. It starts
// each page by key instead of by the server's continuation token, which some
// servers forget when they restart.
func (s *Store) page(ctx context.Context, prefix, after string) (page []object.Info, last string, more bool, err error) {
	in := &s3.ListObjectsV2Input{
		Bucket:  &s.o.Bucket,
		Prefix:  aws.String(s.prefix + prefix),
		MaxKeys: aws.Int32(int32(s.o.PageSize)),
	}
	if after != "" {
		in.StartAfter = aws.String(s.prefix + after)
	}
	attempt, cancel := context.WithTimeout(ctx, s.o.timeout(1<<20))
	defer cancel()
	out, err := s.client.ListObjectsV2(attempt, in)
	if err != nil {
		return nil, "", false, s.wrap(ctx, object.OpList, prefix, err)
	}
	last = after
	for _, c := range out.Contents {
		key, ok := strings.CutPrefix(aws.ToString(c.Key), s.prefix)
		if !ok || key <= last {
			return nil, "", false, s.fail(object.OpList, prefix, object.Broken,
				fmt.Errorf("the server listed %q after %q", aws.ToString(c.Key), last))
		}
		last = key
		if object.CheckKey(key) != nil {
			continue // not ours, for example the place holder of a "folder"
		}
		page = append(page, object.Info{Key: key, Size: aws.ToInt64(c.Size), Modified: aws.ToTime(c.LastModified)})
	}
	more = aws.ToBool(out.IsTruncated)
	if more && last == after {
		return nil, "", false, s.fail(object.OpList, prefix, object.Broken, errors.New("an empty page that is not the last"))
	}
	return page, last, more, nil
}
