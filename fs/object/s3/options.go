package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/wpfs/wpfs/fs/object"
)

// Checksum says whether requests and answers carry S3's own checksums. Ours, in
// the metadata, are verified in any case.
type Checksum string

// The choices. Auto means on for AWS and off elsewhere: many compatible servers
// refuse the trailer that carries the sum, or send a whole object's sum with a
// part of it.
const (
	ChecksumAuto Checksum = "auto"
	ChecksumOn   Checksum = "on"
	ChecksumOff  Checksum = "off"
)

// Options for New.
type Options struct {
	Bucket   string // required
	Prefix   string // of all keys in the bucket, without slashes at its ends; may be empty
	Endpoint string // URL of a server other than AWS; "": AWS, or what AWS_ENDPOINT_URL says
	Region   string // "": what the environment says, else us-east-1
	// VirtualHost puts the bucket into the host name. AWS is always spoken to
	// that way, other servers only if this is set.
	VirtualHost bool
	Checksum    Checksum // "": ChecksumAuto
	// AccessKey and SecretKey are both set or both empty; empty means the
	// default chain of the AWS SDK: environment, shared files, instance role.
	AccessKey, SecretKey string
	// Timeout bounds a request without its content; TimeoutPerMiB is added for
	// each MiB of it. Defaults 10 s and 12.5 s, so 4 MiB have a minute.
	Timeout, TimeoutPerMiB time.Duration
	// StallMax is how long an answer's body may stand still; default 10 s.
	StallMax time.Duration
	// PageSize is how many keys one list request asks for; default 1000.
	PageSize int
	// Transport replaces the driver's own, for tests that inject faults.
	Transport http.RoundTripper
}

func (o *Options) setDefaults() {
	if o.Checksum == "" {
		o.Checksum = ChecksumAuto
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.TimeoutPerMiB <= 0 {
		o.TimeoutPerMiB = 12500 * time.Millisecond
	}
	if o.StallMax <= 0 {
		o.StallMax = 10 * time.Second
	}
	if o.PageSize <= 0 {
		o.PageSize = 1000
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
}

// prefixMax leaves room for our own keys within S3's limit of 1024 bytes.
const prefixMax = 512

// Validate names the first field that cannot be right, and the rule.
func (o Options) Validate() error {
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/?# ") {
		return fmt.Errorf("s3 bucket %q: want the name of a bucket", o.Bucket)
	}
	if o.Prefix != "" {
		if len(o.Prefix) > prefixMax {
			return fmt.Errorf("s3 prefix: %d bytes, at most %d are possible", len(o.Prefix), prefixMax)
		}
		for part := range strings.SplitSeq(o.Prefix, "/") {
			if err := object.CheckKey(part); err != nil {
				return fmt.Errorf("s3 prefix %q: %w", o.Prefix, err)
			}
		}
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil {
			return fmt.Errorf("s3 endpoint: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return errors.New("s3 endpoint: want http://HOST:PORT or https://HOST:PORT, without a path or credentials")
		}
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return errors.New("s3 access key and secret key: set both or neither")
	}
	switch o.Checksum {
	case "", ChecksumAuto, ChecksumOn, ChecksumOff:
		return nil
	}
	return fmt.Errorf("s3 checksum %q: want auto, on or off", o.Checksum)
}

// ParseURL reads s3://BUCKET[/PREFIX][?endpoint=URL&region=R&checksum=auto&virtual_host=true].
// Credentials have no place in a URL, which ends up in logs and process lists.
func ParseURL(raw string) (Options, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Options{}, errors.New("object URL: cannot be parsed; want s3://BUCKET/PREFIX?endpoint=URL&region=REGION")
	}
	if u.User != nil {
		return Options{}, errors.New("object URL: must not contain credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a shared credentials file")
	}
	if u.Scheme != "s3" || u.Opaque != "" {
		return Options{}, fmt.Errorf("object URL %s: want s3://BUCKET/PREFIX?endpoint=URL&region=REGION", raw)
	}
	o := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	for name, values := range u.Query() {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			o.Endpoint = value
		case "region":
			o.Region = value
		case "checksum":
			o.Checksum = Checksum(value)
		case "virtual_host":
			o.VirtualHost = value == "true"
		default:
			return Options{}, fmt.Errorf("object URL: unknown parameter %q; there are endpoint, region, checksum and virtual_host", name)
		}
	}
	return o, o.Validate()
}

// checksums translates Checksum for a server that is or is not AWS.
func (o Options) checksums(isAWS bool) (aws.RequestChecksumCalculation, aws.ResponseChecksumValidation) {
	if o.Checksum == ChecksumOn || o.Checksum == ChecksumAuto && isAWS {
		return aws.RequestChecksumCalculationWhenSupported, aws.ResponseChecksumValidationWhenSupported
	}
	return aws.RequestChecksumCalculationWhenRequired, aws.ResponseChecksumValidationWhenRequired
}

// timeout is how long an operation that moves n bytes may take.
func (o Options) timeout(n int64) time.Duration {
	return o.Timeout + time.Duration(float64(o.TimeoutPerMiB)*float64(n)/(1<<20))
}
