// Package object is the bucket: objects of bounded size under flat keys, in
// a service or a directory that outlives the nodes. [Store] is the interface,
// [Error] with its [Kind] is what a driver says when it fails, and [Probe]
// finds out at start whether a bucket can be used at all. Drivers live in the
// subpackages s3, dir and mem; retry, breaker, observe and faulty wrap any of them and
// are stacked by the caller. objecttest is the suite that all of them pass.
package object

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// Limits of every driver.
const (
	KeyMax  = 200      // bytes in a key
	SizeMax = 64 << 20 // bytes in an object
	// VersionedMax is the size up to which every driver tells an object's
	// Version: changing one under a condition is for markers, not for content.
	VersionedMax = 64 << 10
)

// Op names a method of [Store] in errors, events and faults.
type Op string

// The operations.
const (
	OpPut    Op = "put"
	OpGet    Op = "get"
	OpStat   Op = "stat"
	OpDelete Op = "delete"
	OpList   Op = "list"
)

// Info is what the store knows about an object without reading it.
type Info struct {
	Key      string
	Size     int64 // bytes
	Modified time.Time
	// Version names these bytes for PutOptions.IfMatch; equal bytes may have
	// equal versions. Only Stat tells it, and of objects above VersionedMax
	// bytes it may be "".
	Version string
}

// PutOptions changes what Put does.
type PutOptions struct {
	// IfAbsent makes Put fail with Exists when the key is taken. Of any number
	// of such calls for one key exactly one wins.
	IfAbsent bool
	// IfMatch, if not "", makes Put fail with Changed unless the key holds the
	// version that Stat has told. Of any number of such calls for one version
	// exactly one wins. It excludes IfAbsent.
	IfMatch string
}

// check says why the options cannot be, or nil.
func (o PutOptions) check() error {
	if o.IfAbsent && o.IfMatch != "" {
		return errors.New("a put cannot ask for an absent key and for a version of it at once")
	}
	return nil
}

// Store is one bucket, or the part of one below a prefix. All methods may be
// called at the same time. They block on the network or the disk, return soon
// after ctx ends, and fail with an *[Error]. Keys obey [CheckKey].
type Store interface {
	// Put makes key hold b. After success the object is durable as far as the
	// store promises that, and visible to every later call of anyone. After a
	// failure of a class other than Never it may or may not be there (rule
	// R39); it is never there in part. Put keeps no reference to b.
	Put(ctx context.Context, key string, b []byte, o PutOptions) error
	// Get reads n bytes from off, to the end if n is negative. It returns
	// fewer only where the object ends (none at all from beyond its end) and
	// verifies that: a torn or wrong answer is Broken, never a short success.
	// The bytes are the caller's.
	Get(ctx context.Context, key string, off, n int64) ([]byte, error)
	// Stat tells about one object.
	Stat(ctx context.Context, key string) (Info, error)
	// Delete removes key. It succeeds when there is no such key.
	Delete(ctx context.Context, key string) error
	// List yields the objects whose keys start with prefix and are above
	// after, in byte order of their keys. A failure is yielded once, at the
	// end, with a zero Info. Objects that are put or deleted meanwhile may or
	// may not be seen; all others are seen exactly once.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// CheckKey says why key cannot be used, or nil. A key is 1 to KeyMax bytes of
// components joined by single slashes; a component is made of ASCII letters,
// digits, '.', '_' and '-' and does not start with '.'. No key may be another
// key's directory ("a" beside "a/b"): file-backed stores refuse that, which no
// one key shows, so it is up to whoever invents keys. What every S3 server and
// every file system can hold fits these rules.
func CheckKey(key string) error {
	if len(key) == 0 || len(key) > KeyMax {
		return fmt.Errorf("a key has 1 to %d bytes, not %d", KeyMax, len(key))
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' {
			return fmt.Errorf("component %q is empty or starts with a dot", part)
		}
	}
	return checkBytes(key)
}

// CheckPrefix says why a prefix for List cannot be used, or nil: it is empty or
// the beginning of a key.
func CheckPrefix(prefix string) error {
	if len(prefix) > KeyMax {
		return fmt.Errorf("a prefix has at most %d bytes, not %d", KeyMax, len(prefix))
	}
	if strings.HasPrefix(prefix, "/") || strings.HasPrefix(prefix, ".") ||
		strings.Contains(prefix, "//") || strings.Contains(prefix, "/.") {
		return fmt.Errorf("no key starts with %q", prefix)
	}
	return checkBytes(prefix)
}

func checkBytes(s string) error {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '/', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("byte %q at %d is not allowed", c, i)
		}
	}
	return nil
}

// CheckGet says why a range cannot be read, or nil. Drivers share it so that
// they refuse the same things.
func CheckGet(key string, off int64) error {
	if off < 0 {
		return fmt.Errorf("offset %d is negative", off)
	}
	return CheckKey(key)
}

// CheckPut says why an object cannot be put, or nil.
func CheckPut(key string, b []byte, o PutOptions) error {
	if len(b) > SizeMax {
		return fmt.Errorf("an object has at most %d bytes, not %d", SizeMax, len(b))
	}
	if err := o.check(); err != nil {
		return err
	}
	return CheckKey(key)
}
