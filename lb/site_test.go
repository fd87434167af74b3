package lb

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What tests run against: real nginx and php-fpm processes, one pair of ports for
// each node, and a Balancer in this process.

// echoPHP is every page of the test site: it says who it is and what it was
// asked, and does what the query wants.
const echoPHP = `<?php
$body = file_get_contents('php://input');
if (isset($_GET['sleep'])) { ignore_user_abort(!isset($_GET['abort'])); usleep((int)($_GET['sleep'] * 1e6)); }
if (isset($_GET['mark'])) { file_put_contents($_SERVER['MARKS'] . '/' . basename($_GET['mark']), $_SERVER['NODE'] . "\n", FILE_APPEND | LOCK_EX); }
if (isset($_GET['retry_after'])) header('Retry-After: ' . $_GET['retry_after']);
if (isset($_GET['attachment'])) header('X-WP-Upload-Attachment-ID: ' . $_GET['attachment']);
if (isset($_GET['cookie'])) setcookie('from_php', 'yes');
if (isset($_GET['hsts'])) header('Strict-Transport-Security: max-age=1');
http_response_code((int)($_GET['status'] ?? 200));
if (isset($_GET['size'])) { header('Content-Type: application/octet-stream'); for ($n = (int)$_GET['size']; $n > 0; $n -= 8192) { echo str_repeat('x', min($n, 8192)); } exit; }
if (isset($_GET['loop'])) { $r = file_get_contents($_GET['loop']); echo $r; exit; }
header('Content-Type: application/json');
echo json_encode(['node' => $_SERVER['NODE'], 'method' => $_SERVER['REQUEST_METHOD'], 'uri' => $_SERVER['REQUEST_URI'],
  'server' => array_filter($_SERVER, fn($k) => str_starts_with($k, 'HTTP_'), ARRAY_FILTER_USE_KEY),
  'get' => $_GET, 'length' => strlen($body), 'md5' => md5($body)]);
`

// echo is what echoPHP says.
type echo struct {
	Node, Method, URI string
	Server            map[string]string
	Length            int
	MD5               string
}

// webNode is one nginx in front of the site's php-fpm.
type webNode struct {
	Backend
	t    testing.TB
	dir  string
	cmd  *exec.Cmd
	conf string
}

// need is the path of a program, or the end of the test: in CI a failure.
func need(t testing.TB, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
		if p, err := exec.LookPath("/usr/sbin/" + n); err == nil {
			return p
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed (.ci/setup test installs it)", names[0])
	}
	t.Skipf("%s is not installed", names[0])
	return ""
}

// startSite runs n nodes. Each is its own nginx process; PHP is one process with
// a pool. All end with the test.
func startSite(t testing.TB, n int) []*webNode {
	t.Helper()
	nginx, fpm := need(t, "nginx"), need(t, "php-fpm8.2", "php-fpm", "php-fpm8.4", "php-fpm8.3")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{root, filepath.Join(dir, "marks")} {
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(root, "index.php"), echoPHP)
	writeFile(t, filepath.Join(root, "hello.txt"), "hello, "+strings.Repeat("hello ", 200))
	sock := filepath.Join(dir, "fpm.sock")
	writeFile(t, filepath.Join(dir, "fpm.conf"), fmt.Sprintf(`[global]
error_log = %s/fpm.log
daemonize = no
[www]
user = root
group = root
listen = %s
pm = static
pm.max_children = 8
php_admin_value[post_max_size] = 0
php_admin_value[memory_limit] = 1G
php_admin_value[allow_url_fopen] = 1
`, dir, sock))
	startProcess(t, exec.Command(fpm, "-n", "-R", "-F", "-y", filepath.Join(dir, "fpm.conf")))
	var nodes []*webNode
	for i := range n {
		id := fmt.Sprint("web", i+1)
		w := &webNode{t: t, dir: filepath.Join(dir, id), Backend: Backend{ID: id, Addr: freePort(t)}}
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		w.conf = filepath.Join(w.dir, "nginx.conf")
		writeFile(t, w.conf, nginxConf(w, root, sock, filepath.Join(dir, "marks")))
		w.start(nginx)
		nodes = append(nodes, w)
	}
	within(t, "php-fpm listens", func() error { _, err := os.Stat(sock); return err })
	for _, w := range nodes {
		within(t, w.ID+" serves", w.serves)
	}
	return nodes
}

func nginxConf(w *webNode, root, sock, marks string) string {
	var temp strings.Builder
	for _, k := range []string{"client_body", "fastcgi", "proxy", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s/%s;\n", k, w.dir, k)
	}
	return fmt.Sprintf(`daemon off; master_process off; user root; pid %[1]s/pid; error_log %[1]s/error.log warn; worker_rlimit_nofile 4096;
events { worker_connections 1024; }
http {
%[2]s
access_log off; client_max_body_size 0; keepalive_requests 100000; underscores_in_headers on;
server { listen %[3]s backlog=4096; root %[4]s;
  location = /empty { return 204; }
  location = /raw502 { return 502; }
  location / { try_files $uri @php; }
  location @php {
    include /etc/nginx/fastcgi_params;
    fastcgi_param SCRIPT_FILENAME %[4]s/index.php; fastcgi_param NODE %[5]s; fastcgi_param MARKS %[6]s;
    fastcgi_read_timeout 60; fastcgi_pass unix:%[7]s;
  } } }
`, w.dir, temp.String(), w.Addr, root, w.ID, marks, sock)
}

func (w *webNode) start(nginx string) {
	w.cmd = exec.Command(nginx, "-e", filepath.Join(w.dir, "error.log"), "-c", w.conf)
	startProcess(w.t, w.cmd)
}

func (w *webNode) restart() {
	w.start(need(w.t, "nginx"))
	within(w.t, w.ID+" serves again", w.serves)
}

func (w *webNode) kill() {
	w.cmd.Process.Kill()
	w.cmd.Wait()
}

func (w *webNode) serves() error {
	res, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + w.Addr + "/")
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		return fmt.Errorf("status %s", res.Status)
	}
	return nil
}

// marks counts how often echoPHP was asked to leave the mark.
func (w *webNode) marks(name string) int {
	b, _ := os.ReadFile(filepath.Join(filepath.Dir(w.dir), "marks", name))
	return bytes.Count(b, []byte("\n"))
}

// startProcess starts cmd and kills its group at the end of the test.
func startProcess(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() && said.Len() > 0 {
			t.Logf("%s said: %s", filepath.Base(cmd.Path), said.String())
		}
	})
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Ports below those of outgoing connections, so that a stopped server's stays free.
var portMu sync.Mutex
var portsGiven = map[string]bool{}

func freePort(t testing.TB) string {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for p := 12000 + os.Getpid()%6000; p < 32000; p++ {
		a := fmt.Sprint("127.0.0.1:", p)
		if portsGiven[a] {
			continue
		}
		if l, err := net.Listen("tcp", a); err == nil {
			l.Close()
			portsGiven[a] = true
			return a
		}
	}
	t.Fatal("no free port")
	return ""
}

func within(t testing.TB, what string, f func() error) {
	t.Helper()
	within2(t, 20*time.Second, what, f)
}

func within2(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// front is a running balancer and a client for it.
type front struct {
	*Balancer
	t     testing.TB
	url   string // http://127.0.0.1:PORT
	tls   string // https://…, if it has TLS
	stop  func() // as a signal does; waits for the end
	log   *bytes.Buffer
	hc    *http.Client
	logMu *sync.Mutex
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// startFront runs a balancer over the backends. change may set what it likes.
func startFront(t testing.TB, backends []Backend, change func(*Config)) *front {
	t.Helper()
	return startFrontWith(t, backends, nil, change)
}

// startFrontWith is startFront with a Store.
func startFrontWith(t testing.TB, backends []Backend, store Store, change func(*Config)) *front {
	t.Helper()
	c := Defaults()
	c.HTTP = []string{"127.0.0.1:0"}
	c.Backends = backends
	c.HTTPSMode = HTTPSOff
	if change != nil {
		change(&c)
	}
	f := &front{t: t, log: &bytes.Buffer{}, logMu: &sync.Mutex{}}
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	b, err := New(Options{Config: c, Store: store, Access: NewAccessLog(lockedWriter{f.logMu, f.log}), Logger: slog.New(slog.NewTextHandler(out, nil)), Drain: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	f.Balancer = b
	plain, secure := b.Addrs()
	if len(plain) > 0 {
		f.url = "http://" + plain[0].String()
	}
	if len(secure) > 0 {
		f.tls = "https://" + secure[0].String()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }() // ends with stop, which the cleanup calls
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the balancer ended: %v", err)
			}
		})
	}
	f.hc = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64},
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		f.hc.CloseIdleConnections()
		f.stop()
	})
	return f
}

func backendsOf(nodes []*webNode) []Backend {
	var list []Backend
	for _, n := range nodes {
		list = append(list, n.Backend)
	}
	return list
}

// accessLog is what has been logged so far.
func (f *front) accessLog() string {
	f.access.Flush()
	f.logMu.Lock()
	defer f.logMu.Unlock()
	return f.log.String()
}

// do sends a request; headers are NAME, VALUE pairs.
func (f *front) do(method, url string, body io.Reader, headers ...string) (*http.Response, string) {
	f.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = f.url + url
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := f.hc.Do(req)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatalf("%s %s: the answer broke off: %v", method, url, err)
	}
	return res, string(b)
}

// ask is do for echoPHP.
func (f *front) ask(method, url string, body io.Reader, headers ...string) echo {
	f.t.Helper()
	res, text := f.do(method, url, body, headers...)
	var e echo
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		f.t.Fatalf("%s %s: %s: %v: %.300s", method, url, res.Status, err, text)
	}
	return e
}

// raw sends bytes as they are and returns everything that comes back until the
// connection closes, or until quiet for a moment.
func (f *front) raw(request string) string {
	f.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	return rawOn(f.t, c, request)
}

func rawOn(t testing.TB, c net.Conn, request string) string {
	t.Helper()
	go io.WriteString(c, request) // ends when c is closed
	var b bytes.Buffer
	buf := make([]byte, 32<<10)
	for {
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}
