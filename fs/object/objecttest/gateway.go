package objecttest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Environment of StartGateway.
const (
	GatewayEnv   = "WPFS_VERSITYGW"  // path of the versitygw binary; else it is looked up in PATH
	RequireS3Env = "WPFS_REQUIRE_S3" // "1": fail where the binary is missing instead of skipping
)

// Gateway is a running versitygw: a real S3 server over a local directory, with
// authentication and conditional writes. It never fsyncs, so it shows nothing
// about durability.
type Gateway struct {
	Endpoint             string // http://HOST:PORT
	AccessKey, SecretKey string
	Region               string
	root                 string
	log                  *output
}

// How long a start may take, and how often another port is tried when somebody
// took the chosen one first.
const (
	gatewayStartMax = 20 * time.Second
	gatewayTries    = 3
)

// StartGateway starts a server on a free port of addr (an address of this
// machine, such as 127.0.0.1) and stops it when the test ends. It skips the test
// if there is no binary, unless WPFS_REQUIRE_S3 is 1.
func StartGateway(t testing.TB, addr string) *Gateway {
	t.Helper()
	binary := os.Getenv(GatewayEnv)
	if binary == "" {
		var err error
		if binary, err = exec.LookPath("versitygw"); err != nil {
			if os.Getenv(RequireS3Env) == "1" {
				t.Fatalf("%s is 1 but there is no versitygw: set %s or install it into PATH: %v", RequireS3Env, GatewayEnv, err)
			}
			t.Skipf("no versitygw: set %s or install it into PATH", GatewayEnv)
		}
	}
	g := &Gateway{AccessKey: "test", SecretKey: "testsecret", Region: "us-east-1", root: filepath.Join(t.TempDir(), "data")}
	if err := os.Mkdir(g.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for range gatewayTries {
		if g.start(t, binary, addr) {
			return g
		}
	}
	t.Fatalf("versitygw does not start:\n%s", g.log)
	return nil
}

// start runs the server once and reports whether it serves.
func (g *Gateway) start(t testing.TB, binary, addr string) bool {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	hostport := l.Addr().String()
	l.Close()
	g.Endpoint, g.log = "http://"+hostport, new(output)
	// Without --keep-alive it closes every connection after one request.
	cmd := exec.Command(binary, "--port", hostport, "--keep-alive", "--quiet", "posix", g.root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+g.AccessKey, "ROOT_SECRET_KEY="+g.SecretKey)
	cmd.Dir, cmd.Stdout, cmd.Stderr = g.root, g.log, g.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics cleans nothing up
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", binary, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		<-exited
	}
	if !serves(hostport, exited) {
		stop()
		return false
	}
	t.Cleanup(stop)
	return true
}

func serves(hostport string, exited <-chan struct{}) bool {
	deadline := time.Now().Add(gatewayStartMax)
	for time.Now().Before(deadline) {
		select {
		case <-exited:
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if c, err := net.DialTimeout("tcp", hostport, time.Second); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

// MakeBucket makes an empty bucket. To this server a bucket is a directory.
func (g *Gateway) MakeBucket(t testing.TB, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(g.root, name), 0o755); err != nil {
		t.Fatal(err)
	}
}

// URL is the object URL of one of its buckets, without credentials.
func (g *Gateway) URL(bucket string) string {
	return fmt.Sprintf("s3://%s?endpoint=%s&region=%s", bucket, g.Endpoint, g.Region)
}

// output collects what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
