package testcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// EnvVersitygw names the versitygw binary; otherwise it is looked for in the
// PATH and in .tools of the module.
const EnvVersitygw = "WPFS_VERSITYGW"

// Credentials and bucket of the test server.
const (
	s3Access = "wpfs-test"
	s3Secret = "wpfs-test-secret"
	s3Bucket = "site"
	s3Ready  = 20 * time.Second
)

// ErrNoVersitygw means that there is no S3 server to test with.
var ErrNoVersitygw = errors.New("versitygw not found: make tools, or set " + EnvVersitygw)

// S3 is a running versitygw with one empty bucket.
type S3 struct {
	Addr string // host:port
	dir  string
	bin  string
	cmd  *exec.Cmd
	tok  string
}

// Versitygw finds the server's binary: [ErrNoVersitygw] if there is none.
func Versitygw(module string) (string, error) {
	if bin := os.Getenv(EnvVersitygw); bin != "" {
		if _, err := os.Stat(bin); err != nil {
			return "", fmt.Errorf("%s: %w", EnvVersitygw, err)
		}
		return bin, nil
	}
	if bin, err := exec.LookPath("versitygw"); err == nil {
		return bin, nil
	}
	bin := filepath.Join(module, ".tools", "versitygw")
	if _, err := os.Stat(bin); err == nil {
		return filepath.Abs(bin)
	}
	return "", ErrNoVersitygw
}

// StartS3 starts versitygw on its own address, with its objects in a directory
// of the session.
func (s *Session) StartS3(bin string) (*S3, error) {
	n, token, dir, err := s.next()
	if err != nil {
		return nil, err
	}
	srv := &S3{Addr: s.network(n) + ".250:7070", dir: dir, bin: bin, tok: token}
	for _, d := range []string{"versions", "data/" + s3Bucket} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	return srv, srv.Start()
}

// Start starts the server (again, after Stop) on the same objects.
func (s *S3) Start() error {
	cmd := exec.Command(s.bin, "--port", s.Addr, "--keep-alive", "--quiet", "posix",
		"--versioning-dir", filepath.Join(s.dir, "versions"), filepath.Join(s.dir, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Access, "ROOT_SECRET_KEY="+s3Secret, envToken+"="+s.tok)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.OpenFile(filepath.Join(s.dir, "versitygw.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	s.cmd = cmd
	return poll(s3Ready, func() error {
		c, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err != nil {
			return fmt.Errorf("versitygw does not answer: %w", err)
		}
		return c.Close()
	})
}

// Stop kills the server. Its objects stay.
func (s *S3) Stop() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	s.cmd.Wait() // its error is the kill
	s.cmd = nil
	return nil
}

// URL is the configuration's object.url for the bucket.
func (s *S3) URL() string { return s.URLOf(s3Bucket) }

// URLOf is object.url for any bucket name, with the test's prefix.
func (s *S3) URLOf(bucket string) string {
	return fmt.Sprintf("s3://%s/it?endpoint=http://%s&region=us-east-1&path_style=true", bucket, s.Addr)
}

// Env are the credentials, as the SDK's default chain reads them.
func (s *S3) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s3Access, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_EC2_METADATA_DISABLED=true"}
}

// Dir holds the bucket's objects as files.
func (s *S3) Dir() string { return filepath.Join(s.dir, "data", s3Bucket) }

// Objects counts the objects in the bucket and their bytes.
func (s *S3) Objects() (n int, bytes int64, err error) {
	err = filepath.WalkDir(s.Dir(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		n++
		bytes += st.Size()
		return nil
	})
	return n, bytes, err
}

// Damage removes the objects that lost selects by key (below the prefix of URL)
// and size, behind the server's back, and tells how many they were.
func (s *S3) Damage(t testing.TB, lost func(key string, size int64) bool) (n int) {
	t.Helper()
	root := filepath.Join(s.dir, "data", s3Bucket, "it")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		key, err := filepath.Rel(root, path)
		if err != nil || !lost(key, st.Size()) {
			return err
		}
		n++
		return os.Remove(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
