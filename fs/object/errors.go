package object

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what went wrong, as far as it decides what to do about it.
// It is usable with errors.Is: errors.Is(err, object.NotExist).
type Kind uint8

// The kinds. Unknown is an error that no driver has classified.
const (
	Unknown     Kind = iota
	NotExist         // no such key
	Exists           // Put with IfAbsent: the key is taken
	Credentials      // missing, wrong, or not allowed to do this
	NoBucket         // the bucket, or the directory, is not there
	WrongRegion      // the bucket is in another region
	Unreachable      // nobody answered: name, route, port or deadline
	Untrusted        // the server's certificate is not accepted
	ClockSkew        // the server finds this machine's clock wrong
	Busy             // the store asks to come back: overload, internal error, conflict
	Broken           // the answer is torn or fails its checksum
	NoSpace          // disk full or quota reached
	Invalid          // the request cannot be right: bad key, too large
	Unsupported      // the store does not do what wpfs needs
	Interrupted      // the caller's context ended
	Suspended        // not asked: it has failed again and again, see package breaker
	Changed          // Put with IfMatch: the key holds something else, or nothing
	Damaged          // the object is there whole, and is not what was put
)

var kindText = [...]string{
	Unknown: "unknown error", NotExist: "no such object", Exists: "object exists",
	Credentials: "access denied", NoBucket: "no such bucket", WrongRegion: "wrong region",
	Unreachable: "unreachable", Untrusted: "certificate not trusted", ClockSkew: "clock skew",
	Busy: "store is busy", Broken: "broken answer", NoSpace: "no space left",
	Invalid: "invalid request", Unsupported: "not supported", Interrupted: "interrupted",
	Suspended: "suspended", Changed: "object has changed", Damaged: "object is damaged",
}

// Error names the kind.
func (k Kind) Error() string {
	if int(k) < len(kindText) {
		return kindText[k]
	}
	return fmt.Sprintf("error kind %d", uint8(k))
}

// Class tells what a caller may do about a failure.
type Class uint8

// The classes.
const (
	Never Class = iota // asking again changes nothing
	Again              // asking again may help; the outcome of a Put or Delete is unknown
	Gone               // the object is not there: an answer rather than a fault
)

// Class of a kind. ClockSkew is worth another try because the S3 client learns
// the server's time from the refusal and signs the next request with it. So is
// Unknown: giving up on a failure that nobody understood is the bolder guess.
func (k Kind) Class() Class {
	switch k {
	case NotExist:
		return Gone
	case Unreachable, Busy, Broken, ClockSkew, Unknown, Suspended:
		return Again
	default:
		return Never
	}
}

var kindHint = [...]string{
	Credentials: "check the access key and secret, and that they may read, write, delete and list in this bucket",
	NoBucket:    "create it or correct the configured object URL",
	WrongRegion: "set the region that the bucket is in",
	Unreachable: "check the address, the network and that the server runs",
	Untrusted:   "install the certificate authority of the server on this machine",
	ClockSkew:   "set this machine's clock, for example with an NTP service",
	Busy:        "wait, or look at the server's own log",
	Broken:      "look for a proxy or server between here and the bucket that cuts or changes answers",
	NoSpace:     "free space there or raise the quota",
	Unsupported: "use another server, or a newer version of this one",
	Suspended:   "see in the log of the agent why it failed before; it is asked again as soon as it answers a probe",
	Damaged:     "look for who else writes to this bucket, and for faults of its server; what has another copy of the content goes on with that",
}

// Error is what every Store returns: operation, object, kind, cause, and whose
// fault it may be.
type Error struct {
	Op    Op
	Key   string // of List: the prefix
	Store string // the bucket's URL without secrets
	Kind  Kind
	Hint  string // what to do; "": the kind's own hint
	Err   error  // the cause, may be nil
}

func (e *Error) Error() string {
	s := string(e.Op)
	if e.Key != "" {
		s += " " + e.Key
	}
	if e.Store != "" {
		s += " at " + e.Store
	}
	s += ": " + e.Kind.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, kind) true for the error's own kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf finds the kind of err; the end of a context is Interrupted.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Interrupted
	}
	return Unknown
}

// ClassOf tells what may be done about err.
func ClassOf(err error) Class { return KindOf(err).Class() }

// Advice is a sentence for the operator: which bucket, what is wrong with it,
// and what to do. It is for errors that stop a program, such as Probe's.
func Advice(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return "The object store fails: " + err.Error() + "."
	}
	hint := e.Hint
	if hint == "" && int(e.Kind) < len(kindHint) {
		hint = kindHint[e.Kind]
	}
	where := "The object store"
	if e.Store != "" {
		where += " " + e.Store
	}
	s := where + ": " + e.Kind.Error()
	if hint != "" {
		s += "; " + hint
	}
	s += "."
	if e.Err != nil {
		s += " (" + string(e.Op) + ": " + e.Err.Error() + ")"
	}
	return s
}
