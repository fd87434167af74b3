package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/wpfs/wpfs/fs/object"
)

// Plain is the bucket's other door: see object.Plain. It makes one attempt per
// call as Store does, except that a body which breaks off is gone on with.
type Plain struct {
	s      *Store
	prefix string // "" or ending in a slash
}

var _ object.Plain = (*Plain)(nil)

// NewPlain opens the ordinary objects below prefix, which may have any
// characters. o.Prefix is for keys of our own and must be empty.
func NewPlain(ctx context.Context, o Options, prefix string) (*Plain, error) {
	if o.Prefix != "" {
		return nil, errors.New("s3: ordinary objects have their prefix beside the options")
	}
	if len(prefix) > prefixMax || !utf8.ValidString(prefix) {
		return nil, fmt.Errorf("s3 prefix %q: want at most %d bytes of UTF-8", prefix, prefixMax)
	}
	s, err := New(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &Plain{s: s}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		p.prefix = prefix + "/"
		s.name = strings.Replace(s.name, "s3://"+o.Bucket, "s3://"+o.Bucket+"/"+prefix, 1)
	}
	return p, nil
}

// ParsePlainURL is ParseURL for a prefix of any characters, which it returns
// beside the options.
func ParsePlainURL(raw string) (o Options, prefix string, err error) {
	if u, perr := url.Parse(raw); perr == nil && u.Scheme == "s3" {
		prefix = strings.Trim(u.Path, "/")
		u.Path, u.RawPath = "", ""
		raw = u.String()
	}
	o, err = ParseURL(raw)
	return o, prefix, err
}

// Name is the prefix's URL for messages, without secrets.
func (p *Plain) Name() string { return p.s.name }

// Close drops idle connections.
func (p *Plain) Close() error { return p.s.Close() }

func (p *Plain) key(key string) *string { return aws.String(p.prefix + key) }

func (p *Plain) check(op object.Op, key string) error {
	switch n := len(p.prefix) + len(key); {
	case key == "" || n > object.PlainKeyMax:
		return p.s.fail(op, key, object.Invalid, fmt.Errorf("a key has 1 to %d bytes, with its prefix %d", object.PlainKeyMax, n))
	case !utf8.ValidString(key):
		return p.s.fail(op, key, object.Invalid, errors.New("a key must be UTF-8"))
	}
	return nil
}

// List implements object.Plain, a page at a time.
func (p *Plain) List(ctx context.Context) iter.Seq2[object.PlainInfo, error] {
	return p.ListAfter(ctx, "")
}

// ListAfter is List for the keys above after, so that a list that failed can be
// gone on with.
func (p *Plain) ListAfter(ctx context.Context, after string) iter.Seq2[object.PlainInfo, error] {
	return func(yield func(object.PlainInfo, error) bool) {
		for more := true; more; {
			var page []object.PlainInfo
			var err error
			if page, after, more, err = p.page(ctx, after); err != nil {
				yield(object.PlainInfo{}, err)
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

// page asks for keys in URL encoding: XML cannot hold all that a key can.
func (p *Plain) page(ctx context.Context, after string) (page []object.PlainInfo, last string, more bool, err error) {
	in := &s3.ListObjectsV2Input{
		Bucket: &p.s.o.Bucket, Prefix: aws.String(p.prefix),
		MaxKeys: aws.Int32(int32(p.s.o.PageSize)), EncodingType: types.EncodingTypeUrl,
	}
	if after != "" {
		in.StartAfter = p.key(after)
	}
	attempt, cancel := context.WithTimeout(ctx, p.s.o.timeout(1<<20))
	defer cancel()
	out, err := p.s.client.ListObjectsV2(attempt, in)
	if err != nil {
		return nil, "", false, p.s.wrap(ctx, object.OpList, "", err)
	}
	broken := func(err error) error { return p.s.fail(object.OpList, "", object.Broken, err) }
	last = after
	for _, c := range out.Contents {
		full := aws.ToString(c.Key)
		if out.EncodingType == types.EncodingTypeUrl {
			if full, err = url.QueryUnescape(full); err != nil {
				return nil, "", false, broken(fmt.Errorf("the server listed %q: %w", aws.ToString(c.Key), err))
			}
		}
		key, ok := strings.CutPrefix(full, p.prefix)
		if ok && key == "" {
			continue // the prefix's own place holder
		}
		if !ok || key <= last {
			return nil, "", false, broken(fmt.Errorf("the server listed %q after %q", full, last))
		}
		last = key
		page = append(page, object.PlainInfo{
			Info: object.Info{Key: key, Size: aws.ToInt64(c.Size), Modified: aws.ToTime(c.LastModified)},
			ETag: strings.Trim(aws.ToString(c.ETag), `"`),
		})
	}
	more = aws.ToBool(out.IsTruncated)
	if more && last == after {
		return nil, "", false, broken(errors.New("an empty page that is not the last"))
	}
	return page, last, more, nil
}

// Stat implements object.Plain.
func (p *Plain) Stat(ctx context.Context, key string) (object.PlainInfo, error) {
	if err := p.check(object.OpStat, key); err != nil {
		return object.PlainInfo{}, err
	}
	attempt, cancel := context.WithTimeout(ctx, p.s.o.timeout(0))
	defer cancel()
	out, err := p.s.client.HeadObject(attempt, &s3.HeadObjectInput{Bucket: &p.s.o.Bucket, Key: p.key(key)})
	if err != nil {
		return object.PlainInfo{}, p.s.wrap(ctx, object.OpStat, key, err)
	}
	return object.PlainInfo{
		Info: object.Info{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)},
		ETag: strings.Trim(aws.ToString(out.ETag), `"`),
		Head: object.PlainHead{ContentType: aws.ToString(out.ContentType), CacheControl: aws.ToString(out.CacheControl), Meta: out.Metadata},
	}, nil
}

// Delete implements object.Plain.
func (p *Plain) Delete(ctx context.Context, key string) error {
	if err := p.check(object.OpDelete, key); err != nil {
		return err
	}
	attempt, cancel := context.WithTimeout(ctx, p.s.o.timeout(0))
	defer cancel()
	_, err := p.s.client.DeleteObject(attempt, &s3.DeleteObjectInput{Bucket: &p.s.o.Bucket, Key: p.key(key)})
	if err = p.s.wrap(ctx, object.OpDelete, key, err); errors.Is(err, object.NotExist) {
		return nil
	}
	return err
}

// Open implements object.Plain.
func (p *Plain) Open(ctx context.Context, key string) (object.PlainInfo, io.ReadCloser, error) {
	if err := p.check(object.OpGet, key); err != nil {
		return object.PlainInfo{}, nil, err
	}
	b := &body{p: p, ctx: ctx, key: key}
	info, err := b.request()
	if err != nil {
		return object.PlainInfo{}, nil, p.s.wrap(ctx, object.OpGet, key, err)
	}
	b.size, b.etag = info.Size, info.ETag
	return info, b, nil
}
