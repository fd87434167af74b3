package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/breaker"
	"github.com/wpfs/wpfs/fs/object/dir"
	"github.com/wpfs/wpfs/fs/object/observe"
	"github.com/wpfs/wpfs/fs/object/retry"
	"github.com/wpfs/wpfs/fs/object/s3"
	"github.com/wpfs/wpfs/fs/object/seal"
	"github.com/wpfs/wpfs/fs/object/unconditional"
)

// probeMax is how long the object store may take to prove that it works.
const probeMax = 30 * time.Second

// checkObjectURL says why object.url cannot be used, or nil.
func checkObjectURL(raw string) error {
	_, _, err := parseObjectURL(raw)
	return err
}

// parseObjectURL reads file:///DIR or s3://BUCKET/PREFIX?…: exactly one of the
// results is set. The drivers know their own parameters.
func parseObjectURL(raw string) (*dir.Options, *s3.Options, error) {
	scheme, _, _ := strings.Cut(raw, "://")
	switch scheme {
	case "file":
		o, err := dir.ParseURL(raw)
		return &o, nil, err
	case "s3":
		raw, virtual, err := pathStyle(raw)
		if err != nil {
			return nil, nil, err
		}
		o, err := s3.ParseURL(raw)
		o.VirtualHost = o.VirtualHost || virtual
		return nil, &o, err
	}
	return nil, nil, errors.New("must be file:///DIR or s3://BUCKET/PREFIX?endpoint=URL&region=R")
}

// pathStyle takes path_style out of an S3 URL: it is the word that other
// programs use for what the driver calls the opposite of virtual_host.
func pathStyle(raw string) (rest string, virtual bool, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return raw, false, nil // the driver has the better words
	}
	q := u.Query()
	if !q.Has("path_style") {
		return raw, false, nil
	}
	switch q.Get("path_style") {
	case "true":
	case "false":
		virtual = true
	default:
		return "", false, fmt.Errorf("its path_style must be true or false, is %q", q.Get("path_style"))
	}
	q.Del("path_style")
	u.RawQuery = q.Encode()
	return u.String(), virtual, nil
}

// openStore makes the stack of wrappers around the bucket: the driver, then
// counters around each attempt, then the breaker, which has to run, then encryption,
// then retries. It does not speak to the bucket.
func openStore(ctx context.Context, c ObjectConfig, log *slog.Logger, reg prometheus.Registerer) (object.Store, *breaker.Store, error) {
	d, s, err := parseObjectURL(c.URL)
	if err != nil {
		return nil, nil, problem(CodeConfig, err, "object.url cannot be used", "")
	}
	keys, err := loadKeys(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	var driver object.Store
	if d != nil {
		driver, err = dir.New(*d)
	} else {
		driver, err = s3.New(ctx, *s)
	}
	if err != nil {
		return nil, nil, err
	}
	if c.UnsafeNoConditionalWrites {
		driver = unconditional.New(driver)
	}
	var counters observe.Counters
	reg.MustRegister(&objectMetrics{counters: &counters})
	onRetry := func(op object.Op, key string, attempt int, err error) {
		log.Warn("object store: trying again", "op", op, "key", key, "attempt", attempt, "err", err)
	}
	br := breaker.New(observe.New(driver, counters.Observe), breaker.Options{Log: log})
	sealed := seal.New(br, seal.Options{Keys: keys, AcceptPlain: c.EncryptionAcceptPlain})
	return retry.New(sealed, retry.Options{OnRetry: onRetry}), br, nil
}

// proveStore finds out whether the bucket can be used. On the first start of a
// node it must: a wrong address or password is noticed while somebody looks.
// Later it need not, for the cluster lives through an outage of the bucket, and
// a node must be able to restart during one. A store that answers, but does not
// look at conditions, is never good enough.
// works tells whether it does.
func proveStore(ctx context.Context, st object.Store, first bool, log *slog.Logger) (works bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	err = object.Probe(ctx, st)
	if err == nil || first || errors.Is(err, object.ErrNoConditions) {
		return err == nil, err
	}
	log.Error("the object store does not work; new content stays on the nodes' disks until it does", "advice", object.Advice(err))
	return false, nil
}

// withoutParameters is a URL for status pages and logs.
func withoutParameters(raw string) string {
	bare, _, _ := strings.Cut(raw, "?")
	return bare
}

// objectMetrics shows observe.Counters as metrics.
type objectMetrics struct{ counters *observe.Counters }

var (
	objectCalls   = prometheus.NewDesc("wpfs_object_seconds", "Calls to the object store, retries counted each.", []string{"op"}, nil)
	objectErrors  = prometheus.NewDesc("wpfs_object_errors_total", "Failed calls to the object store.", []string{"op", "kind"}, nil)
	objectContent = prometheus.NewDesc("wpfs_object_bytes_total", "Content sent to or received from the object store.", []string{"op"}, nil)
)

// Describe lists the metrics.
func (m *objectMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- objectCalls
	c <- objectErrors
	c <- objectContent
}

// Collect reads the counters once.
func (m *objectMetrics) Collect(c chan<- prometheus.Metric) {
	for op, s := range m.counters.Snapshot() {
		buckets, sum := map[float64]uint64{}, uint64(0)
		for i, bound := range observe.LatencyBuckets {
			sum += s.Latency[i]
			buckets[bound.Seconds()] = sum
		}
		c <- prometheus.MustNewConstHistogram(objectCalls, s.Calls, s.Took.Seconds(), buckets, string(op))
		c <- prometheus.MustNewConstMetric(objectContent, prometheus.CounterValue, float64(s.Bytes), string(op))
		for kind, n := range s.Errors {
			c <- prometheus.MustNewConstMetric(objectErrors, prometheus.CounterValue, float64(n), string(op), kind.Error())
		}
	}
}
