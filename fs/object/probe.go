package object

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// ProbePrefix starts the keys that Probe uses. One that a crash left behind may
// be deleted at any time.
const ProbePrefix = "probe/"

// ErrNoConditions is what Probe's error wraps when all is well except that the
// store does not look at the conditions of a put.
var ErrNoConditions = errors.New("the store does not look at the conditions of a put")

// Probe finds out whether st can carry a file system: it puts a small object of
// its own, sees that puts whose condition does not hold are refused, reads a range
// of it, lists it, asks for a key that is absent, and deletes it again. It returns
// the first failure, of which [Advice] makes a sentence. Kind Unsupported means
// that everything works except a thing that wpfs cannot do without.
func Probe(ctx context.Context, st Store) error {
	var nonce [8]byte
	rand.Read(nonce[:])
	key := ProbePrefix + hex.EncodeToString(nonce[:])
	b := []byte("wpfs probe " + key)

	if err := st.Put(ctx, key, b, PutOptions{IfAbsent: true}); err != nil {
		return err
	}
	err := probe(ctx, st, key, b)
	if derr := st.Delete(ctx, key); err == nil {
		err = derr
	}
	if err != nil {
		return err
	}
	switch _, err := st.Stat(ctx, key); {
	case err == nil:
		return unsupported(OpDelete, key, "a deleted object is still there")
	case KindOf(err) != NotExist:
		return err
	}
	return nil
}

// probe is the part of Probe between its put and its delete.
func probe(ctx context.Context, st Store, key string, b []byte) error {
	switch err := st.Put(ctx, key, []byte("another writer"), PutOptions{IfAbsent: true}); {
	case err == nil:
		return noConditions(key, "a conditional put (If-None-Match: *) overwrote an object")
	case KindOf(err) == Unsupported:
		return noConditions(key, err.Error())
	case KindOf(err) != Exists:
		return err
	}
	got, err := st.Get(ctx, key, 5, 5)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, b[5:10]) {
		return unsupported(OpGet, key, fmt.Sprintf("bytes 5-9 are %q, not %q", got, b[5:10]))
	}
	found := false
	for info, err := range st.List(ctx, key, "") {
		if err != nil {
			return err
		}
		found = found || info.Key == key && info.Size == int64(len(b))
	}
	if !found {
		return unsupported(OpList, key, "an object that was just put is not listed")
	}
	if err := probeAbsent(ctx, st, key); err != nil {
		return err
	}
	return probeSwap(ctx, st, key)
}

// probeSwap changes the object under a condition that holds, then under the same
// one, which does not hold any more.
func probeSwap(ctx context.Context, st Store, key string) error {
	info, err := st.Stat(ctx, key)
	if err != nil {
		return err
	}
	if info.Version == "" {
		return noConditions(key, "it does not tell an object's version (ETag)")
	}
	o := PutOptions{IfMatch: info.Version}
	switch err := st.Put(ctx, key, []byte("the next version"), o); {
	case KindOf(err) == Unsupported:
		return noConditions(key, err.Error())
	case KindOf(err) == Changed:
		return noConditions(key, "a put with a condition that holds (If-Match) was refused")
	case err != nil:
		return err
	}
	switch err := st.Put(ctx, key, []byte("a put too late"), o); {
	case err == nil:
		return noConditions(key, "a put with a condition that does not hold (If-Match) overwrote an object")
	case KindOf(err) != Changed:
		return err
	}
	return nil
}

func noConditions(key, what string) error {
	return &Error{Op: OpPut, Key: key, Kind: Unsupported, Err: fmt.Errorf("%w: %s", ErrNoConditions, what)}
}

// probeAbsent asks for a key that is absent.
func probeAbsent(ctx context.Context, st Store, key string) error {
	switch _, err := st.Get(ctx, key+"-absent", 0, -1); {
	case err == nil:
		return unsupported(OpGet, key, "a key that was never put can be read")
	case KindOf(err) == Credentials:
		// AWS hides the absence of a key from those who may not list.
		var e *Error
		if errors.As(err, &e) {
			hinted := *e
			hinted.Hint = "grant the permission to list the bucket (s3:ListBucket); without it the server denies access to absent keys"
			return &hinted
		}
		return err
	case KindOf(err) != NotExist:
		return err
	}
	return nil
}

func unsupported(op Op, key, what string) error {
	return &Error{Op: op, Key: key, Kind: Unsupported, Err: errors.New(what)}
}
