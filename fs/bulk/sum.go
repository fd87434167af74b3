package bulk

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"strings"
	"sync"
)

// sum is a file's MD5. It guards against accidents, not against enemies, and is
// the one sum that S3 and s3cmd tell of what they have.
type sum [md5.Size]byte

func (s sum) hex() string { return hex.EncodeToString(s[:]) }

// bufferSize is what content is moved by.
const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// sumOf sums up all of r, and tells its length.
func sumOf(ctx context.Context, r io.Reader) (s sum, n int64, err error) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	h := md5.New()
	for ctx.Err() == nil {
		k, err := r.Read(*b)
		h.Write((*b)[:k])
		n += int64(k)
		if err == io.EOF {
			h.Sum(s[:0])
			return s, n, nil
		}
		if err != nil {
			return s, n, err
		}
	}
	return s, n, ctx.Err()
}

// sum reads an entry's content on s and sums it up.
func (r *run) sum(ctx context.Context, s side, e *entry) (sum, int64, error) {
	c, err := s.open(ctx, e)
	if err != nil {
		return sum{}, 0, err
	}
	defer c.close()
	if c.stream != nil {
		return sumOf(ctx, c.stream)
	}
	return sumOf(ctx, io.NewSectionReader(c.file, 0, 1<<62))
}

// sameContent compares two files of the same size. The server's word for an
// object is its ETag; one that differs proves nothing, for there are ETags of
// other kinds (parts, encryption).
func (r *run) sameContent(ctx context.Context, want, have *entry) (bool, error) {
	local, object, near, far := have, want, side(r.dst), r.src
	if r.o.To.Dir == "" {
		local, object, near, far = want, have, r.src, r.dst
	}
	a, _, err := r.sum(ctx, near, local)
	if err != nil {
		return false, err
	}
	if object.etag != "" && strings.EqualFold(object.etag, a.hex()) {
		return true, nil
	}
	b, _, err := r.sum(ctx, far, object)
	return a == b, err
}
