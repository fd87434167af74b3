package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// Exit codes of docs/EXIT-CODES.md.
const (
	exitUsage       = 2
	exitConfig      = 3
	exitPort        = 4
	exitMountPoint  = 5
	exitFuse        = 6
	exitObjectStore = 7
	exitCredentials = 8
	exitDataDir     = 9
	exitCorrupt     = 10
	exitDiskFull    = 11
	exitNotRunning  = 12
	exitBusy        = 13
)

// TestAgentRefusesToStart breaks one thing at a time. The agent must end with
// the documented code and a sentence that names what is wrong, and must have
// changed nothing.
func TestAgentRefusesToStart(t *testing.T) {
	mounts(t)
	for _, c := range brokenStarts() {
		t.Run(c.name, func(t *testing.T) {
			l := newLonely(t)
			if c.breaks != nil {
				c.breaks(t, l)
			}
			before := contentOf(t, l.dir("data"))
			refused(t, l.command(t), c.code, c.says...)
			if ds := tree.Diff(before, contentOf(t, l.dir("data")), tree.Copies, diffsShown); len(ds) > 0 {
				t.Errorf("the data directory was changed:\n%s", strings.Join(ds, "\n"))
			}
			leftMounted(t, l.place.Dir)
		})
	}
}

type brokenStart struct {
	name   string
	code   int
	says   []string
	breaks func(t *testing.T, l *lonely)
}

func brokenStarts() []brokenStart {
	set := func(section, key string, value any) func(*testing.T, *lonely) {
		return func(_ *testing.T, l *lonely) { l.conf[section][key] = value }
	}
	return []brokenStart{
		{"unknown key", exitConfig, []string{"node.data_dri", "node.data_dir"}, set("node", "data_dri", "/x")},
		{"unknown variable", exitConfig, []string{"WPFS_NODE_DATA_DRI"}, func(_ *testing.T, l *lonely) { l.env = []string{"WPFS_NODE_DATA_DRI=/x"} }},
		{"unknown flag", exitUsage, []string{"--data-dri"}, func(_ *testing.T, l *lonely) { l.args = []string{"--data-dri", "/x"} }},
		{"value against its rule", exitConfig, []string{"cluster.replicas"}, set("cluster", "replicas", 0)},
		{"file that is not there", exitConfig, []string{"nowhere.yaml"}, func(_ *testing.T, l *lonely) { l.args = []string{"--config", l.dir("nowhere.yaml")} }},
		{"data directory absent", exitDataDir, []string{"node.data_dir"}, func(_ *testing.T, l *lonely) { l.conf["node"]["data_dir"] = l.dir("absent") }},
		{"mount point absent", exitMountPoint, []string{"absent"}, func(_ *testing.T, l *lonely) { l.conf["mount"]["path"] = l.dir("absent") }},
		{"mount point a file", exitMountPoint, []string{"directory"}, func(t *testing.T, l *lonely) {
			if err := os.WriteFile(l.dir("file"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			l.conf["mount"]["path"] = l.dir("file")
		}},
		{"mount point busy", exitMountPoint, []string{"mounted"}, func(t *testing.T, l *lonely) { mountTmpfs(t, l.dir("mnt"), "1m") }},
		{"mount point full", exitMountPoint, []string{"not empty"}, func(t *testing.T, l *lonely) {
			if err := os.WriteFile(filepath.Join(l.dir("mnt"), "f"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"port of the cluster in use", exitPort, []string{"7480"}, func(t *testing.T, l *lonely) { listen(t, l.addr(7480)) }},
		{"port of HTTP in use", exitPort, []string{"7482"}, func(t *testing.T, l *lonely) { listen(t, l.addr(7482)) }},
		{"address of another machine", exitPort, []string{"192.0.2.7"}, func(_ *testing.T, l *lonely) {
			l.conf["cluster"]["bind"] = "192.0.2.7:7480"
			l.conf["cluster"]["peers"] = []map[string]string{{"id": "web1", "addr": "192.0.2.7:7480"}}
		}},
		{"no /dev/fuse", exitFuse, []string{"/dev/fuse"}, func(_ *testing.T, l *lonely) {
			l.shell = `exec unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' sh "$@"`
		}},
		{"no permission to mount", exitFuse, []string{"root"}, asNobody},
		{"disk full", exitDiskFull, []string{"free"}, func(t *testing.T, l *lonely) { mountTmpfs(t, l.dir("data"), "8m") }},
		{"bucket unreachable", exitObjectStore, []string{"object.url"}, func(_ *testing.T, l *lonely) {
			l.conf["object"]["url"] = fmt.Sprintf("s3://b/p?endpoint=http://%s&region=us-east-1&path_style=true", l.addr(9))
			l.env = []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "AWS_EC2_METADATA_DISABLED=true"}
		}},
	}
}

// asNobody runs the agent as a user who owns everything but may not mount.
func asNobody(t *testing.T, l *lonely) {
	t.Helper()
	const nobody = 65534
	for _, d := range []string{"", "data", "mnt", "objects"} {
		if err := os.Chown(l.dir(d), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	// The session's directory is for its owner alone; whoever runs here must get
	// through to what is below.
	if err := os.Chmod(filepath.Dir(l.place.Dir), 0o711); err != nil {
		t.Fatal(err)
	}
	l.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// TestAgentSaysWhatIsWrongWithTheBucket has a real S3 server refuse.
func TestAgentSaysWhatIsWrongWithTheBucket(t *testing.T) {
	mounts(t)
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Stop()
	cases := []struct {
		name string
		url  string
		env  []string
		code int
		says string
	}{
		{"no such bucket", s3.URLOf("nobucket"), s3.Env(), exitObjectStore, "nobucket"},
		{"wrong secret", s3.URL(), append(s3.Env(), "AWS_SECRET_ACCESS_KEY=wrong"), exitCredentials, "AWS_SECRET_ACCESS_KEY"},
		{"unknown key", s3.URL(), append(s3.Env(), "AWS_ACCESS_KEY_ID=nobody"), exitCredentials, "AWS_ACCESS_KEY_ID"},
		{"no credentials", s3.URL(), []string{"AWS_EC2_METADATA_DISABLED=true", "HOME=/nowhere"}, exitCredentials, "AWS_ACCESS_KEY_ID"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLonely(t)
			l.conf["object"]["url"], l.env = c.url, c.env
			refused(t, l.command(t), c.code, c.says)
			leftMounted(t, l.place.Dir)
		})
	}
}

// TestDataDirectoryOfSomebodyElse starts an agent, stops it, and starts others
// on its directory. Each must refuse and change nothing; the right one goes on.
func TestDataDirectoryOfSomebodyElse(t *testing.T) {
	mounts(t)
	l := newLonely(t)
	stop := run1(t, l)
	second := *l
	second.conf = deepCopy(t, l.conf)
	second.conf["node"]["socket"] = l.dir("second.sock")
	second.conf["cluster"]["bind"], second.conf["http"]["listen"] = l.addr(7490), l.addr(7492)
	second.conf["cluster"]["peers"] = []map[string]string{{"id": "web1", "addr": l.addr(7490)}}
	if err := os.Mkdir(l.dir("mnt2"), 0o755); err != nil {
		t.Fatal(err)
	}
	second.conf["mount"]["path"] = l.dir("mnt2")
	t.Run("in use", func(t *testing.T) { refused(t, second.command(t), exitDataDir, "use") })
	if err := os.WriteFile(filepath.Join(l.dir("mnt"), "kept"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	stop()

	before := contentOf(t, l.dir("data"))
	identity := filepath.Join(l.dir("data"), "identity.json")
	cases := []struct {
		name   string
		says   string
		breaks func(t *testing.T, l *lonely)
	}{
		{"of another node", "web1", func(_ *testing.T, l *lonely) {
			l.conf["node"]["id"] = "web2"
			l.conf["cluster"]["peers"] = []map[string]string{{"id": "web2", "addr": l.addr(7480)}}
		}},
		{"of another cluster", "shop", func(_ *testing.T, l *lonely) { l.conf["cluster"]["name"] = "blog" }},
		{"of a newer version", "newer", func(t *testing.T, _ *lonely) { edit(t, identity, `"version": 1`, `"version": 999`) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			other := *l
			other.conf = deepCopy(t, l.conf)
			c.breaks(t, &other)
			refused(t, other.command(t), exitDataDir, c.says)
		})
	}
	edit(t, identity, `"version": 999`, `"version": 1`)
	if ds := tree.Diff(before, contentOf(t, l.dir("data")), tree.Copies, diffsShown); len(ds) > 0 {
		t.Errorf("the data directory was changed:\n%s", strings.Join(ds, "\n"))
	}
	stop = run1(t, l)
	if b, err := os.ReadFile(filepath.Join(l.dir("mnt"), "kept")); err != nil || string(b) != "kept" {
		t.Errorf("after all that the file holds %q, %v", b, err)
	}
	stop()
}

// TestCommandsWithoutTheirCounterpart are the codes of the other commands.
func TestCommandsWithoutTheirCounterpart(t *testing.T) {
	c, _ := start(t, testcluster.Config{Nodes: 1})
	t.Run("second dev on a directory", func(t *testing.T) { refused(t, c.Command("dev", "--dir", c.Dir), exitBusy, c.Dir) })
	t.Run("status without an agent", func(t *testing.T) {
		refused(t, c.Command("status", "--socket", filepath.Join(c.Dir, "nobody.sock")), exitNotRunning, "nobody.sock")
	})
	t.Run("dev without a directory", func(t *testing.T) { refused(t, c.Command("dev"), exitUsage, "--dir") })
	t.Run("command that is misspelt", func(t *testing.T) { refused(t, c.Command("stauts"), exitUsage, "status") })
	t.Run("its own exit code", func(t *testing.T) {
		p, err := session.NewPlace()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		dev := c.Command("dev", "--dir", filepath.Join(p.Dir, "d"), "--nodes", "1", "--", "sh", "-c", "test -s $WPFS_DEV_JSON && exit 42")
		cmd := exec.CommandContext(ctx, dev.Path, dev.Args[1:]...)
		cmd.Env, cmd.Dir = dev.Env, dev.Dir
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 42 {
			t.Errorf("%v, want the command's own code 42\n%s", err, out)
		}
		leftMounted(t, p.Dir)
	})
}
