package s3

import (
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/objecttest"
	"github.com/wpfs/wpfs/fs/object/retry"
)

// isolate keeps the machine's own AWS configuration, and the search for an
// instance role, out of a test.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION",
		"AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fake starts gofakes3: no authentication, no checksums, but quick.
func fake(t *testing.T, buckets ...string) (endpoint string) {
	t.Helper()
	backend := s3mem.New()
	for _, b := range buckets {
		if err := backend.CreateBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return server.URL
}

func TestFake(t *testing.T) {
	isolate(t)
	objecttest.Run(t, func(t *testing.T) object.Store {
		return open(t, Options{Bucket: "b", Endpoint: fake(t, "b"), AccessKey: "k", SecretKey: "s", PageSize: 10})
	})
}

func TestFakeWithPrefix(t *testing.T) {
	isolate(t)
	objecttest.Run(t, func(t *testing.T) object.Store {
		endpoint := fake(t, "b")
		o := Options{Bucket: "b", Endpoint: endpoint, AccessKey: "k", SecretKey: "s", PageSize: 10}
		for _, prefix := range []string{"", "site", "site/wp10"} {
			o.Prefix = prefix
			if err := open(t, o).Put(t.Context(), "neighbour", nil, object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		o.Prefix = "site/wp1"
		return open(t, o)
	})
}

func TestGateway(t *testing.T) {
	isolate(t)
	g := objecttest.StartGateway(t, "127.0.0.1")
	var n atomic.Int32
	bucket := func(t *testing.T) Options {
		name := fmt.Sprintf("suite-%d", n.Add(1))
		g.MakeBucket(t, name)
		return Options{Bucket: name, Endpoint: g.Endpoint, Region: g.Region, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PageSize: 10}
	}
	for _, row := range []struct {
		name string
		open func(t *testing.T) object.Store
	}{
		{"Plain", func(t *testing.T) object.Store { return open(t, bucket(t)) }},
		{"Prefix", func(t *testing.T) object.Store {
			o := bucket(t)
			o.Prefix = "some/where"
			return open(t, o)
		}},
		{"ChecksumsAndRetry", func(t *testing.T) object.Store {
			o := bucket(t)
			o.Checksum = ChecksumOn
			return retry.New(open(t, o), retry.Options{})
		}},
	} {
		t.Run(row.name, func(t *testing.T) { objecttest.Run(t, row.open) })
	}
	t.Run("Mistakes", func(t *testing.T) { testMistakes(t, g, bucket(t)) })
}

// testMistakes: each mistake in a configuration has an error of its own.
func testMistakes(t *testing.T, g *objecttest.Gateway, right Options) {
	for _, row := range []struct {
		name    string
		mistake func(*Options)
		kind    object.Kind
		advice  string
	}{
		{"wrong secret", func(o *Options) { o.SecretKey = "wrong" }, object.Credentials, "access key"},
		{"unknown access key", func(o *Options) { o.AccessKey = "nobody" }, object.Credentials, "access key"},
		{"no credentials", func(o *Options) { o.AccessKey, o.SecretKey = "", "" }, object.Credentials, "AWS_ACCESS_KEY_ID"},
		{"no such bucket", func(o *Options) { o.Bucket = "absent" }, object.NoBucket, `create the bucket "absent"`},
		{"wrong region", func(o *Options) { o.Region = "eu-west-7" }, object.WrongRegion, "region"},
		{"nobody listens", func(o *Options) { o.Endpoint = "http://" + closedPort(t) }, object.Unreachable, "check the address"},
		{"unknown host", func(o *Options) { o.Endpoint = "http://no-such-host.invalid:9000" }, object.Unreachable, "check the address"},
		{"TLS to a plain port", func(o *Options) { o.Endpoint = strings.Replace(g.Endpoint, "http:", "https:", 1) }, object.Untrusted, "http:// in the endpoint"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := right
			row.mistake(&o)
			err := object.Probe(t.Context(), open(t, o))
			if !errors.Is(err, row.kind) {
				t.Fatalf("Probe: %v, want %v", err, row.kind)
			}
			advice := object.Advice(err)
			if !strings.Contains(advice, row.advice) || !strings.Contains(advice, o.Bucket) {
				t.Errorf("advice: %s", advice)
			}
			if strings.Contains(advice, right.SecretKey) {
				t.Errorf("the secret is in the advice: %s", advice)
			}
		})
	}
	t.Run("key below an object", func(t *testing.T) {
		s := open(t, right)
		if err := s.Put(t.Context(), "a", nil, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "a/b", nil, object.PutOptions{}); !errors.Is(err, object.Invalid) {
			t.Errorf("Put: %v", err)
		}
	})
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestParseURL(t *testing.T) {
	for _, row := range []struct {
		name, url string
		want      Options
		bad       string // part of the error; "": none
	}{
		{"bucket", "s3://b", Options{Bucket: "b"}, ""},
		{"prefix", "s3://b/p/q/", Options{Bucket: "b", Prefix: "p/q"}, ""},
		{"everything", "s3://b/p?endpoint=http://h:1&region=r&checksum=off&virtual_host=true",
			Options{Bucket: "b", Prefix: "p", Endpoint: "http://h:1", Region: "r", Checksum: ChecksumOff, VirtualHost: true}, ""},
		{"credentials", "s3://key:secret@b", Options{}, "must not contain credentials"},
		{"unknown parameter", "s3://b?acces_key=k", Options{}, `"acces_key"`},
		{"no bucket", "s3:///p", Options{}, "name of a bucket"},
		{"other scheme", "http://b", Options{}, "want s3://"},
		{"bad endpoint", "s3://b?endpoint=h:1", Options{}, "endpoint"},
		{"credentials in the endpoint", "s3://b?endpoint=http://key:secret@h", Options{}, "endpoint"},
		{"bad checksum", "s3://b?checksum=maybe", Options{}, "auto, on or off"},
		{"bad prefix", "s3://b/p//q", Options{}, "prefix"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseURL(row.url)
			if row.bad == "" {
				if err != nil || got != row.want {
					t.Errorf("ParseURL = %+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.bad) {
				t.Errorf("ParseURL: %v, want something about %q", err, row.bad)
			} else if strings.Contains(err.Error(), "secret") && !strings.Contains(row.bad, "credentials") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
}

func TestHalfCredentials(t *testing.T) {
	if err := (Options{Bucket: "b", AccessKey: "k"}).Validate(); err == nil {
		t.Error("an access key without a secret is accepted")
	}
}

func TestChecksumsFollowTheServer(t *testing.T) {
	isolate(t)
	for _, row := range []struct {
		name string
		o    Options
		env  string // AWS_ENDPOINT_URL
		on   bool
		path bool
	}{
		{"AWS", Options{Bucket: "b", Region: "eu-central-1"}, "", true, false},
		{"AWS by endpoint", Options{Bucket: "b", Endpoint: "https://s3.eu-central-1.amazonaws.com"}, "", true, false},
		{"other server", Options{Bucket: "b", Endpoint: "http://127.0.0.1:9000"}, "", false, true},
		{"other server by environment", Options{Bucket: "b"}, "http://127.0.0.1:9000", false, true},
		{"other server with a bucket host", Options{Bucket: "b", Endpoint: "http://h:9000", VirtualHost: true}, "", false, false},
		{"forced on", Options{Bucket: "b", Endpoint: "http://h:9000", Checksum: ChecksumOn}, "", true, true},
		{"forced off", Options{Bucket: "b", Checksum: ChecksumOff}, "", false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("AWS_ENDPOINT_URL", row.env)
			so := open(t, row.o).client.Options()
			request, response := Options{Checksum: ChecksumOff}.checksums(true)
			if row.on {
				request, response = Options{Checksum: ChecksumOn}.checksums(true)
			}
			if so.RequestChecksumCalculation != request || so.ResponseChecksumValidation != response || so.UsePathStyle != row.path {
				t.Errorf("checksums %v, %v; path style %v", so.RequestChecksumCalculation, so.ResponseChecksumValidation, so.UsePathStyle)
			}
		})
	}
}
