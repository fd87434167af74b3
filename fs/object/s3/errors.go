package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/wpfs/wpfs/fs/object"
)

func (s *Store) fail(op object.Op, key string, kind object.Kind, err error) error {
	return &object.Error{Op: op, Key: key, Store: s.name, Kind: kind, Err: err}
}

// wrap classifies what the SDK returned. ctx is the caller's context: if it has
// ended, that is the reason; if only the attempt's own limit has, the server was
// too slow.
func (s *Store) wrap(ctx context.Context, op object.Op, key string, err error) error {
	if err == nil {
		return nil
	}
	e := &object.Error{Op: op, Key: key, Store: s.name, Err: err}
	if cerr := ctx.Err(); cerr != nil {
		e.Kind, e.Err = object.Interrupted, cerr
		return e
	}
	e.Kind, e.Hint = s.classify(err)
	return e
}

func (s *Store) classify(err error) (object.Kind, string) {
	var re *awshttp.ResponseError
	switch {
	case errors.Is(err, errNoCredentials):
		return object.Credentials, "none were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a shared credentials file, or give the machine a role"
	case errors.Is(err, errBody), errors.Is(err, errHead):
		return object.Broken, ""
	case errors.As(err, &re) && re.HTTPStatusCode() != 0: // 0: nothing came back
		return classifyStatus(re.HTTPStatusCode(), codeOf(err), s.o.Bucket)
	case errors.Is(err, http.ErrSchemeMismatch):
		return object.Untrusted, "the server speaks plain HTTP: write http:// in the endpoint, or give the server a certificate"
	case isUntrusted(err):
		return object.Untrusted, ""
	default:
		// No answer at all: refused, reset, unknown host, or a limit ran out.
		return object.Unreachable, ""
	}
}

// classifyStatus goes by the HTTP status where it can: codes differ between
// servers, and a HEAD request's answer has none.
func classifyStatus(status int, code, bucket string) (object.Kind, string) {
	switch status {
	case http.StatusPreconditionFailed:
		return object.Exists, ""
	case http.StatusNotFound:
		return classifyNotFound(code, bucket)
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return object.WrongRegion, ""
	case http.StatusUnauthorized, http.StatusForbidden:
		if code == "RequestTimeTooSkewed" {
			return object.ClockSkew, ""
		}
		return object.Credentials, ""
	case http.StatusBadRequest:
		return classifyBadRequest(code)
	case http.StatusConflict:
		if code == "ObjectParentIsFile" {
			return object.Invalid, ""
		}
		return object.Busy, "" // ConditionalRequestConflict, OperationAborted
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return object.Busy, ""
	case http.StatusInsufficientStorage:
		return object.NoSpace, ""
	case http.StatusNotImplemented:
		return object.Unsupported, ""
	}
	if status >= 500 {
		return object.Busy, ""
	}
	return object.Invalid, ""
}

// classifyNotFound tells absent keys, absent buckets and the rest apart. Some
// servers answer 404 to an access key that they do not know.
func classifyNotFound(code, bucket string) (object.Kind, string) {
	switch code {
	case "NoSuchBucket":
		return object.NoBucket, fmt.Sprintf("create the bucket %q or correct the configured object URL", bucket)
	case "NoSuchKey", "NotFound", "NoSuchVersion", "":
		return object.NotExist, ""
	default:
		return object.Credentials, ""
	}
}

func classifyBadRequest(code string) (object.Kind, string) {
	switch code {
	case "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return object.WrongRegion, ""
	case "RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest":
		return object.Broken, "" // what arrived is not what was sent
	case "ExpiredToken", "InvalidToken", "InvalidAccessKeyId":
		return object.Credentials, ""
	case "QuotaExceeded", "XMinioStorageFull":
		return object.NoSpace, ""
	default:
		return object.Invalid, ""
	}
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func isUntrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	return errors.As(err, &cert) || errors.As(err, &authority)
}

// errNoCredentials marks a failure to find credentials, which the SDK reports
// as plain text in the middle of signing.
var errNoCredentials = errors.New("no credentials")

// provider marks the failures of another provider.
type provider struct{ next aws.CredentialsProvider }

func (p provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if p.next == nil {
		return aws.Credentials{}, errNoCredentials
	}
	c, err := p.next.Retrieve(ctx)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errNoCredentials, err)
	}
	return c, nil
}
