package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

// Exit codes of import and export.
const exitPartial = 18

// bulkReport is the part of --output json that tests look at.
type bulkReport struct {
	Copied, Linked, Updated, Same, Directories, Deleted int64
	Leftovers                                           int64 `json:"leftovers_removed"`
	Verified                                            int64
}

// bulk runs wpfs import or export and expects an exit code.
func bulk(t *testing.T, c *testcluster.Cluster, code int, args ...string) bulkReport {
	t.Helper()
	cmd := c.Command(append(args, "--output", "json", "--progress", "none")...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("wpfs %s: exit code %d (%v), want %d\n%s%s", strings.Join(args, " "), got, err, code, out.String(), errs.String())
	}
	var rep bulkReport
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		t.Fatalf("wpfs %s: %v in %q", strings.Join(args, " "), err, out.String())
	}
	return rep
}

// idle fails the test if a run has changed something.
func idle(t *testing.T, rep bulkReport) {
	t.Helper()
	if rep.Copied+rep.Linked+rep.Updated+rep.Directories+rep.Deleted+rep.Leftovers != 0 {
		t.Errorf("a second run is not idle: %+v", rep)
	}
}

// everyKind makes a tree with all that a copy must keep.
func everyKind(t *testing.T) (dir string, want []tree.Entry) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "kinds")
	ok := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	ok(os.MkdirAll(dir+"/d/empty", 0o755), os.WriteFile(dir+"/d/file", []byte("content"), 0o4711),
		os.WriteFile(dir+"/d/\xff new\nline", nil, 0o600), os.WriteFile(dir+"/large", bytes.Repeat([]byte("0123456789abcdef"), 700_000), 0o644))
	ok(os.Link(dir+"/d/file", dir+"/hard"), os.Link(dir+"/d/file", dir+"/d/empty/hard"), os.Symlink("../nowhere", dir+"/d/link"))
	ok(unix.Mkfifo(dir+"/fifo", 0o620), unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	ok(os.Symlink("fifo", dir+"/l2"), os.WriteFile(dir+"/sparse", []byte("begin"), 0o640), os.Truncate(dir+"/sparse", 50<<20))
	ok(unix.Setxattr(dir+"/d/file", "user.key", []byte("\x00value"), 0), unix.Setxattr(dir+"/d", "user.dir", []byte("x"), 0))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/socket"})
	ok(err)
	l.SetUnlinkOnClose(false)
	ok(l.Close(), os.Chown(dir+"/d/file", 33, 33), os.Chmod(dir+"/d/file", 0o4711), os.Lchown(dir+"/d/link", 1000, 33), os.Chmod(dir+"/d", 0o2750))
	at := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC).UnixNano())
	for _, p := range []string{"d/file", "d/link", "fifo", "d/empty", "d", "sparse", "."} {
		ok(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, p), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
	want, err = tree.Scan(dir)
	ok(err)
	return dir, want
}

// blocks is what a file takes on the disk, in bytes.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestImportAndExport: everything that a tree can have goes onto a mount, is
// there on another node at once, and comes out again the same.
func TestImportAndExport(t *testing.T) {
	mounts(t)
	c, ps := start(t, testcluster.Config{})
	src, want := everyKind(t)
	in, out := c.Nodes[0].Mount+"/kinds", filepath.Join(t.TempDir(), "out")
	bulk(t, c, 0, "import", src, in)
	equal(t, "imported, on node2", want, scan(t, c.Nodes[1], ps[1], "kinds"), tree.Copies)
	idle(t, bulk(t, c, 0, "import", src, in))
	bulk(t, c, 0, "export", c.Nodes[2].Mount+"/kinds", out)
	got, err := tree.Scan(out)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "exported from node3", want, got, tree.Copies)
	if n := blocks(t, out+"/sparse"); n > 1<<20 {
		t.Errorf("the hole takes %d bytes after import and export", n)
	}
	idle(t, bulk(t, c, 0, "export", c.Nodes[1].Mount+"/kinds", out, "--checksum"))

	// A whole site, beside cp in the same run.
	src, want = source(t)
	began := time.Now()
	command(t, t.Context(), "cp", "-r", src, c.Nodes[0].Mount+"/cp")
	cp := time.Since(began)
	began = time.Now()
	bulk(t, c, 0, "import", src, c.Nodes[0].Mount+"/site", "--verify", "none")
	t.Logf("%d entries: cp -r %v, import %v", len(want), cp.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	equal(t, "the site on node3", want, scan(t, c.Nodes[2], ps[2], "site"), tree.Copies)

	// Without DST it is the mount of the agent.
	one := t.TempDir()
	if err := os.WriteFile(one+"/only", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	bulk(t, c, 0, "import", one, "--socket", c.Nodes[1].Socket)
	if _, err := os.Stat(c.Nodes[0].Mount + "/only"); err != nil {
		t.Error(err)
	}
}

// wholeOnly fails the test if a file of the copy is there and not what it is in
// the original.
func wholeOnly(t *testing.T, want, got []tree.Entry) (files int) {
	t.Helper()
	sums := map[string]string{}
	for _, e := range want {
		sums[e.Path] = e.Sum
	}
	for _, e := range got {
		if e.Mode&unix.S_IFMT != unix.S_IFREG || leftover.MatchString(e.Path) {
			continue
		}
		files++
		if sums[e.Path] != e.Sum {
			t.Errorf("%s is there and not whole (%d bytes)", e.Path, e.Size)
		}
	}
	return files
}

var leftover = regexp.MustCompile(`(^|/)\.wpfs-copy-[^/]*$`)

// TestImportKilled kills the import, then the agent below it, in the middle.
// No file is ever there in part, and the same command goes on.
func TestImportKilled(t *testing.T) {
	mounts(t)
	c, ps := start(t, testcluster.Config{})
	src, want := source(t)
	n := c.Nodes[0]
	if err := os.Mkdir(n.Mount+"/site", 0o755); err != nil {
		t.Fatal(err)
	}
	// Files that are there with other content are replaced, under a temporary
	// name: the other way a file gets its name.
	for _, e := range want[:min(len(want), 400)] {
		var err error
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = os.MkdirAll(filepath.Join(n.Mount, "site", e.Path), 0o755)
		case unix.S_IFREG:
			err = os.WriteFile(filepath.Join(n.Mount, "site", e.Path), nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	old := map[string]bool{}
	for _, e := range scan(t, n, ps[0], "site") {
		old[e.Path] = e.Size == 0
	}
	done := 0
	for round := range scaled(t, 5) {
		cmd := c.Command("import", src, n.Mount+"/site", "--progress", "none")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(700)+100) * time.Millisecond) // an instant to die at
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // its error is the kill
		var got []tree.Entry
		for _, e := range scan(t, c.Nodes[1], ps[1], "site") {
			if !old[e.Path] || e.Size > 0 { // what has not been replaced yet is as it was
				got = append(got, e)
			}
		}
		files := wholeOnly(t, want, got)
		t.Logf("round %d: %d files", round, files)
		if files < done {
			t.Errorf("there were %d files, now %d", done, files)
		}
		done = files
	}

	cmd := c.Command("import", src, n.Mount+"/site", "--progress", "none")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // an instant to die at
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitMountPoint || !strings.Contains(errs.String(), "the same command goes on") {
		t.Errorf("the mount went away: exit code %d\n%s", code, errs.String())
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	rep := bulk(t, c, 0, "import", src, n.Mount+"/site")
	t.Logf("the last run: %+v", rep)
	equal(t, "after all", want, scan(t, c.Nodes[2], ps[2], "site"), tree.Copies)
}

// TestExportToS3: a site on a mount becomes plain objects on a real server that
// is lost in the middle, s3cmd takes them for its own, and they come back.
func TestExportToS3(t *testing.T) {
	mounts(t)
	_, err := exec.LookPath("s3cmd")
	need(t, err)
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Stop()
	c, ps := start(t, testcluster.Config{Env: s3.Env()})
	n := c.Nodes[0]
	src, want := source(t)
	bulk(t, c, 0, "import", src, n.Mount+"/site", "--verify", "none")

	// The server goes away in the middle, and comes back.
	url := strings.Replace(s3.URL(), "/it?", "/plain copy?", 1)
	cmd := c.Command("export", n.Mount+"/site", url, "--progress", "none")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before, _, err := s3.Objects()
	for began, objects := time.Now(), before; err == nil && objects < before+100 && time.Since(began) < copyMax; {
		time.Sleep(5 * time.Millisecond) // no more often is the directory looked at
		objects, _, err = s3.Objects()
	}
	if err := errors.Join(err, s3.Stop()); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitObjectStore || !strings.Contains(errs.String(), "the same command goes on") {
		t.Errorf("the server went away: exit code %d\n%s", code, errs.String())
	}
	if err := s3.Start(); err != nil {
		t.Fatal(err)
	}
	rep := bulk(t, c, 0, "export", n.Mount+"/site", url)
	if rep.Same == 0 || rep.Copied == 0 {
		t.Errorf("the second export began anew, or had nothing to do: %+v", rep)
	}
	idle(t, bulk(t, c, 0, "export", n.Mount+"/site", url))

	back := n.Mount + "/back"
	bulk(t, c, 0, "import", url, back)
	got := scan(t, c.Nodes[1], ps[1], "back")
	equal(t, "imported again", want[1:], got[1:], tree.Copies) // the root is no object
	idle(t, bulk(t, c, 0, "import", url, back))
	s3cmdAgrees(t, c, s3, src)
}

// s3cmdAgrees: to s3cmd an export is what it would have uploaded, and what it
// uploads is what an export would have.
func s3cmdAgrees(t *testing.T, c *testcluster.Cluster, s3 *testcluster.S3, src string) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "s3cfg")
	key, secret := envOf(s3.Env(), "AWS_ACCESS_KEY_ID"), envOf(s3.Env(), "AWS_SECRET_ACCESS_KEY")
	text := "[default]\naccess_key = " + key + "\nsecret_key = " + secret + "\nhost_base = " + s3.Addr + "\nhost_bucket = " + s3.Addr + "\nuse_https = False\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"a b.css": "x", "d/Ölfoto.jpg": "yy", "d/e/f": ""} {
		path := filepath.Join(plain, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o640), os.Chown(path, 33, 33),
			os.Chtimes(path, time.Time{}, time.Unix(1e9, 0))); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		return command(t, t.Context(), "s3cmd", append([]string{"-c", conf, "--no-progress"}, args...)...)
	}
	out := run("sync", "--dry-run", src+"/", "s3://site/plain copy/")
	if strings.Contains(out, "upload:") {
		t.Errorf("s3cmd would upload what was exported:\n%s", out)
	}
	run("sync", plain+"/", "s3://site/by s3cmd/")
	url := strings.Replace(s3.URL(), "/it?", "/by s3cmd?", 1)
	if rep := bulk(t, c, 0, "export", plain, url); rep.Copied != 0 || rep.Same != 3 {
		t.Errorf("an export onto what s3cmd has uploaded: %+v", rep)
	}
	to := filepath.Join(t.TempDir(), "to")
	bulk(t, c, 0, "import", url, to)
	want, werr := tree.Scan(plain)
	got, gerr := tree.Scan(to)
	if err := errors.Join(werr, gerr); err != nil {
		t.Fatal(err)
	}
	files := func(es []tree.Entry) (out []tree.Entry) {
		for _, e := range es { // s3cmd keeps no directories
			if e.Mode&unix.S_IFMT == unix.S_IFREG {
				out = append(out, e)
			}
		}
		return out
	}
	equal(t, "what s3cmd has uploaded", files(want), files(got), tree.Copies)
}

// envOf is the value of a variable.
func envOf(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// TestExportOfOddNames: what cannot be an object is listed, and has its own
// exit code; all else is exported.
func TestExportOfOddNames(t *testing.T) {
	mounts(t)
	s3, err := session.StartS3(versitygw(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Stop()
	c, _ := start(t, testcluster.Config{Nodes: 1, Env: s3.Env()})
	src, _ := everyKind(t)
	bulk(t, c, 0, "import", src, c.Nodes[0].Mount+"/k")
	url := strings.Replace(s3.URL(), "/it?", "/odd?", 1)
	rep := bulk(t, c, exitPartial, "export", c.Nodes[0].Mount+"/k", url)
	if rep.Copied == 0 {
		t.Errorf("%+v", rep)
	}
	if err := os.Remove(c.Nodes[0].Mount + "/k/d/\xff new\nline"); err != nil {
		t.Fatal(err)
	}
	bulk(t, c, 0, "export", c.Nodes[0].Mount+"/k", url)
	bulk(t, c, 0, "import", url, c.Nodes[0].Mount+"/k2")
}
