package object

import (
	"context"
	"io"
	"iter"
)

// PlainInfo is what a bucket tells about an ordinary object. The head is known
// to Stat and Open only; a list does not have it.
type PlainInfo struct {
	Info
	ETag string // without quotes; of many objects, not of all, the MD5 of the content
	Head PlainHead
}

// PlainHead is what an ordinary object has beside its content.
type PlainHead struct {
	ContentType, CacheControl string
	// Meta is what HTTP shows as x-amz-meta-NAME; names are in lower case. S3
	// allows 2 KiB of it.
	Meta map[string]string
}

// PlainMetaMax is how many bytes of names and values Meta may have.
const PlainMetaMax = 2048

// Plain is the other door to a bucket: ordinary objects, one for a file, as
// other programs leave them and expect them. Keys are any UTF-8 of 1 to
// [PlainKeyMax] bytes, below a prefix of their own; [CheckKey] is not asked.
// All methods may be called at the same time, block on the network, and fail
// with an *[Error].
type Plain interface {
	// List yields all objects in byte order of their keys. A failure is yielded
	// once, at the end.
	List(ctx context.Context) iter.Seq2[PlainInfo, error]
	// Stat tells about one object.
	Stat(ctx context.Context, key string) (PlainInfo, error)
	// Open reads an object from its beginning. The reader goes on by itself
	// where an answer breaks off, fails with Broken if the object changes
	// meanwhile, and ends with io.EOF only after all of it. The caller closes it.
	Open(ctx context.Context, key string) (PlainInfo, io.ReadCloser, error)
	// Put makes key hold the size bytes of body, which is read by several
	// goroutines, maybe more than once, and returns the ETag. The object is
	// there as a whole or not at all.
	Put(ctx context.Context, key string, body io.ReaderAt, size int64, head PlainHead) (etag string, err error)
	// Delete removes key. It succeeds when there is no such key.
	Delete(ctx context.Context, key string) error
}

// PlainKeyMax is the length in bytes of the longest key that S3 takes.
const PlainKeyMax = 1024
