package testcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Environment of the session.
const (
	EnvBinary = "WPFS_TEST_BIN"  // a wpfs binary to test instead of building one
	EnvKeep   = "WPFS_TEST_LOGS" // a directory to copy the logs of failed clusters to
)

// Session is one run of a test program.
type Session struct {
	Dir string // everything of the session is below
	Bin string // the wpfs binary

	token    string
	clusters atomic.Int32
	guard    *guard
}

// Options of a session.
type Options struct {
	// Parent is the directory for Session.Dir; the system's one for temporary
	// files if empty. Figures are only comparable on the disk they are from.
	Parent string
	// Module is the directory of the module to build wpfs from.
	Module string
	// NoBinary leaves wpfs unbuilt, for tests of this package itself.
	NoBinary bool
}

// Open makes the session's directory, starts its guard and builds wpfs. The
// program must call [GuardMain] at its start.
func Open(o Options) (*Session, error) {
	dir, err := os.MkdirTemp(o.Parent, "wpfs-it-")
	if err != nil {
		return nil, err
	}
	// mountinfo has real paths.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	s := &Session{Dir: dir, token: filepath.Base(dir)}
	if s.guard, err = startGuard(s.token, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if o.NoBinary {
		return s, nil
	}
	if s.Bin, err = build(o.Module, dir); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// build makes the binary the way it is released: without cgo.
func build(module, dir string) (string, error) {
	if bin := os.Getenv(EnvBinary); bin != "" {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, "wpfs")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/wpfs")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build wpfs: %w\n%s", err, out)
	}
	return bin, nil
}

// Close cleans up whatever is left and removes the session's directory.
func (s *Session) Close() error { return s.guard.Close() }

// next numbers the clusters and S3 servers of the session.
func (s *Session) next() (n int, token, dir string, err error) {
	n = int(s.clusters.Add(1))
	token = fmt.Sprintf("%s.%d", s.token, n)
	dir = filepath.Join(s.Dir, fmt.Sprintf("c%d", n))
	return n, token, dir, os.Mkdir(dir, 0o755)
}

// network is a block of loopback addresses for number n: the first three
// numbers of 127.x.y.z. The process id keeps test programs that run at the same
// time apart.
func (s *Session) network(n int) string {
	return fmt.Sprintf("127.%d.%d", 20+os.Getpid()%200, 1+n%250)
}

// Place is a directory and a block of loopback addresses that nothing else in
// the session uses.
type Place struct {
	Dir string
	Net string // the first three numbers: 127.x.y
}

// NewPlace makes one.
func (s *Session) NewPlace() (Place, error) {
	n, _, dir, err := s.next()
	return Place{Dir: dir, Net: s.network(n)}, err
}

// poll runs f until it returns nil or limit has passed, and then returns the
// last error.
func poll(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
