package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// refuseMax is how long an agent may take to find out that it cannot start. An
// object store that does not answer is asked several times.
const refuseMax = 60 * time.Second

// lonely is an agent that is a cluster by itself, with everything at its right
// place. A test breaks one thing.
type lonely struct {
	place testcluster.Place
	conf  map[string]map[string]any
	env   []string
	args  []string // beside agent --config FILE
	shell string   // a script to run it from, as "$@"
	attr  *syscall.SysProcAttr
}

func (l *lonely) dir(name string) string { return filepath.Join(l.place.Dir, name) }

func (l *lonely) addr(port int) string { return fmt.Sprintf("%s.1:%d", l.place.Net, port) }

func newLonely(t *testing.T) *lonely {
	t.Helper()
	p, err := session.NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	l := &lonely{place: p}
	for _, d := range []string{"data", "mnt", "objects"} {
		if err := os.Mkdir(l.dir(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.conf = map[string]map[string]any{
		"node":    {"id": "web1", "data_dir": l.dir("data"), "socket": l.dir("admin.sock")},
		"cluster": {"name": "shop", "bind": l.addr(7480), "profile": "one_machine", "peers": []map[string]string{{"id": "web1", "addr": l.addr(7480)}}},
		"cache":   {"reserve_bytes": 1 << 20},
		"object":  {"url": "file://" + l.dir("objects")},
		"mount":   {"path": l.dir("mnt")},
		"http":    {"listen": l.addr(7482)},
	}
	return l
}

// command is the agent with this configuration.
func (l *lonely) command(t *testing.T) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(l.conf) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	file := l.dir("wpfs.yaml")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := session.Command(l.env, append([]string{"agent", "--config", file}, l.args...)...)
	if l.shell != "" {
		sh := exec.Command("sh", append([]string{"-c", l.shell, "sh"}, cmd.Args...)...)
		sh.Env, sh.Dir = cmd.Env, cmd.Dir
		cmd = sh
	}
	cmd.SysProcAttr = l.attr
	return cmd
}

// refused runs cmd, which must end by itself with code and say all of says.
func refused(t *testing.T, cmd *exec.Cmd, code int, says ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(refuseMax):
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		t.Errorf("it was still running after %v", refuseMax)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	said := ""
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "wpfs: ") {
			said = strings.TrimSpace(line)
		}
	}
	for _, s := range says {
		if !strings.Contains(said, s) {
			t.Errorf("its message does not say %q", s)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s", out.String())
	} else {
		t.Logf("exit %d: %s", code, said)
	}
}

// run1 runs a lonely agent until stop is called, which checks its exit code.
func run1(t *testing.T, l *lonely) (stop func()) {
	t.Helper()
	cmd := l.command(t)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("after SIGTERM: %v\n%s", err, out.String())
			}
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
			t.Errorf("it did not end after SIGTERM\n%s", out.String())
		}
		leftMounted(t, l.place.Dir)
	}
	t.Cleanup(stop)
	deadline := time.Now().Add(refuseMax)
	for {
		cmd := session.Command(nil, "status", "--socket", l.conf["node"]["socket"].(string), "--output", "json")
		b, err := cmd.Output()
		var st testcluster.Status
		if err == nil && json.Unmarshal(b, &st) == nil && st.Healthy {
			return stop
		}
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("not healthy within %v: %v %s", refuseMax, err, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// contentOf lists a directory of state: names and contents. Times do not count,
// nor does the empty file whose lock an agent takes before it looks further.
func contentOf(t *testing.T, dir string) []tree.Entry {
	t.Helper()
	es, err := tree.Scan(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	es = slices.DeleteFunc(es, func(e tree.Entry) bool { return e.Path == "lock" && e.Size == 0 })
	for i := range es {
		es[i].Mtime = 0
	}
	return es
}

func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// leftMounted fails the test if a FUSE file system is mounted below dir.
func leftMounted(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, dir) && strings.Contains(line, "fuse") {
			t.Errorf("left mounted: %s", line)
		}
	}
}

func listen(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func edit(t *testing.T, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(from)) {
		t.Fatalf("%s does not contain %s: %s", file, from, b)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func deepCopy(t *testing.T, m map[string]map[string]any) map[string]map[string]any {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}
