package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Limits of the end of wpfs dev.
const (
	devDrainMax   = 25 * time.Second // all agents publish what is dirty
	devCommandMax = 10 * time.Second // CMD, after it was told to stop
)

// devOptions are the flags of wpfs dev.
type devOptions struct {
	Dir   string
	Nodes int
	S3    string
	Set   []string // KEY=VALUE
	LB    bool
	Cmd   []string
}

// devJSON is DIR/dev.json: what other programs need to use the cluster.
type devJSON struct {
	Nodes  []devJSONNode     `json:"nodes"`
	LB     *devJSONLB        `json:"lb,omitempty"` // with --lb
	Object map[string]string `json:"object"`
}

// devJSONNode is one node in dev.json. PID is 0 while the agent does not run.
type devJSONNode struct {
	ID     string `json:"id"`
	Mount  string `json:"mount"`
	Socket string `json:"socket"`
	PID    int    `json:"pid"`
	HTTP   string `json:"http"`
	Web    string `json:"web,omitempty"` // host:port where the balancer expects the node's web server
}

// devJSONLB is the balancer in dev.json: where clients go, and its agent's socket.
type devJSONLB struct {
	HTTP   string `json:"http"`
	HTTPS  string `json:"https"`
	Socket string `json:"socket"`
	PID    int    `json:"pid"`
}

// devCluster is a running wpfs dev.
type devCluster struct {
	dir   string
	std   stdio
	log   *slog.Logger
	spawn *spawner

	mu     sync.Mutex // guards plan, agents and the writing of dev.json
	plan   devPlan
	agents []*devAgent
	lb     *devAgent // nil without --lb
	ready  bool      // dev.json may be there
}

// runDev brings a cluster up, waits for its end (CMD's, or ctx's) and takes
// everything down again. Its error has CMD's exit code.
func runDev(ctx context.Context, o devOptions, std stdio, signals <-chan os.Signal) (err error) {
	set, err := parseSet(o.Set)
	if err != nil {
		return err
	}
	dir, unlock, err := openDevDir(o.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	d := &devCluster{dir: dir, std: std, log: slog.New(slog.NewTextHandler(std.Err, nil)), spawn: newSpawner()}
	if d.plan, err = loadPlan(dir); err != nil {
		return err
	}
	if err := d.plan.fit(dir, o.Nodes, o.S3); err != nil {
		return err
	}
	if o.LB {
		if err := d.plan.fitLB(); err != nil {
			return err
		}
	}
	d.plan.Set = set
	if err := d.plan.checkSet(dir); err != nil {
		return err
	}
	if err := d.prepare(); err != nil {
		return err
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { d.spawn.Run(stop) })
	defer wg.Wait()
	defer close(stop)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer d.teardown()
	first := make(chan os.Signal, 1) // the signal that ended us, for CMD
	wg.Go(func() {
		select {
		case s := <-signals:
			first <- s
			cancel()
		case <-stop:
		}
	})
	closeControl, err := d.serveControl(&wg)
	if err != nil {
		return err
	}
	defer closeControl()
	if err := d.startAll(ctx); err != nil {
		if ctx.Err() != nil {
			return exitStatus(128 + int(syscall.SIGINT))
		}
		return err
	}
	d.announce(len(o.Cmd) > 0)
	if len(o.Cmd) > 0 {
		return d.command(ctx, o.Cmd, first)
	}
	<-ctx.Done()
	return nil
}

// openDevDir makes the directory and takes its lock, which ends with the process.
func openDevDir(dir string) (abs string, unlock func(), err error) {
	if dir == "" {
		return "", nil, usagef("wpfs dev needs --dir DIR, where it keeps everything")
	}
	if abs, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return "", nil, problem(CodeDataDir, err, "the directory cannot be made", "Choose another with --dir")
	}
	f, err := os.OpenFile(filepath.Join(abs, devLockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", nil, problem(CodeDataDir, err, "the directory cannot be written", "Choose another with --dir")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return "", nil, problem(CodeBusy, err, "another wpfs dev runs on "+abs, "Stop it, or choose another --dir")
	}
	return abs, func() { f.Close() }, nil
}

// prepare cleans what a killed run left behind and saves the plan.
func (d *devCluster) prepare() error {
	if err := os.Remove(filepath.Join(d.dir, devJSONFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return problem(CodeDataDir, err, "the old dev.json cannot be removed", "")
	}
	if d.plan.S3 == "" {
		if err := os.MkdirAll(filepath.Join(d.dir, devObjectsDir), 0o755); err != nil {
			return problem(CodeDataDir, err, "the embedded object store cannot be made", "")
		}
	}
	for _, n := range d.plan.Nodes {
		d.dropMount(n)
		d.agents = append(d.agents, newDevAgent(n, d.dir, d.spawn, d.log, d.rewrite))
	}
	if l := d.plan.LB; l != nil {
		if err := makeCert(lbCert(d.dir, *l)); err != nil {
			return problem(CodeDataDir, err, "the balancer's certificate cannot be made", "")
		}
		d.lb = newDevAgent(l.devNode, d.dir, d.spawn, d.log, d.rewrite)
	}
	return d.plan.save(d.dir)
}

// startAll starts all agents at once (none is healthy before most are) and
// writes dev.json when all are ready.
func (d *devCluster) startAll(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, a := range d.agents {
		conf, err := d.plan.config(d.dir, d.plan.Nodes[i])
		if err != nil {
			return err
		}
		g.Go(func() error { return a.start(ctx, conf) })
	}
	if d.lb != nil {
		conf, err := d.plan.lbConfig(d.dir)
		if err != nil {
			return err
		}
		g.Go(func() error { return d.lb.start(ctx, conf) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = true
	return d.writeJSON()
}

// rewrite brings dev.json up to date after an agent ended.
func (d *devCluster) rewrite() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.writeJSON(); err != nil {
		d.log.Error("dev.json cannot be written", "err", err)
	}
}

// writeJSON writes dev.json; d.mu is held.
func (d *devCluster) writeJSON() error {
	if !d.ready {
		return nil
	}
	out := devJSON{Object: map[string]string{"url": d.plan.objectURL(d.dir)}}
	for _, a := range d.agents {
		out.Nodes = append(out.Nodes, a.describe())
	}
	if d.lb != nil {
		n, l := d.lb.describe(), d.plan.LB
		out.LB = &devJSONLB{HTTP: "http://" + l.Listen, HTTPS: "https://" + l.ListenTLS, Socket: n.Socket, PID: n.PID}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return writeFileAtomic(filepath.Join(d.dir, devJSONFile), append(b, '\n'))
}

func (a *devAgent) describe() devJSONNode {
	a.mu.Lock()
	defer a.mu.Unlock()
	return devJSONNode{ID: a.plan.ID, Mount: nodeMount(a.dir, a.plan), Socket: nodeSocket(a.dir, a.plan), PID: a.pidLocked(), HTTP: "http://" + a.plan.HTTP, Web: a.plan.Web}
}

// announce tells the person in front of the terminal what there is now.
func (d *devCluster) announce(quiet bool) {
	if quiet {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w := bufio.NewWriter(d.std.Out)
	defer w.Flush()
	fmt.Fprintf(w, "A cluster of %d nodes is up.\n", len(d.agents))
	for _, a := range d.agents {
		n := a.describe()
		fmt.Fprintf(w, "  %s  %s  status page %s/\n", n.ID, n.Mount, n.HTTP)
	}
	if d.lb != nil {
		fmt.Fprintf(w, "  balancer  http://%s  https://%s  status page %s/\n", d.plan.LB.Listen, d.plan.LB.ListenTLS, d.lb.describe().HTTP)
		fmt.Fprintln(w, "It expects the nodes' web servers at:")
		for _, a := range d.agents {
			fmt.Fprintf(w, "  %s  %s\n", a.plan.ID, a.plan.Web)
		}
	}
	fmt.Fprintf(w, "All of it is below %s. Ctrl-C stops it; the data stays for the next start.\n", d.dir)
}

// command runs CMD with WPFS_DEV_JSON set and returns its exit code as an error.
func (d *devCluster) command(ctx context.Context, argv []string, first <-chan os.Signal) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.std.In, d.std.Out, d.std.Err
	cmd.Env = append(os.Environ(), "WPFS_DEV_JSON="+filepath.Join(d.dir, devJSONFile))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.spawn.start(cmd); err != nil {
		code := 126 // as a shell says it
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			code = 127
		}
		return problem(Code(code), err, "the command cannot be run", "")
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the command, which is waited for below
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		sig := os.Signal(syscall.SIGTERM)
		select {
		case sig = <-first:
		default:
		}
		cmd.Process.Signal(sig)
		select {
		case err = <-ended:
		case <-time.After(devCommandMax):
			cmd.Process.Kill()
			err = <-ended
		}
	}
	return commandStatus(cmd, err)
}

func commandStatus(cmd *exec.Cmd, err error) error {
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitStatus(128 + int(ws.Signal()))
	}
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return exitStatus(code)
	}
	return err
}

// teardown stops all agents and leaves no process and no mount. The order: all
// publish what is dirty while all are still there to agree on it, and only then
// does anyone leave; the last nodes to go have nothing left that needs a majority.
func (d *devCluster) teardown() {
	d.mu.Lock()
	d.ready = false
	agents, balancer := append([]*devAgent{}, d.agents...), d.lb
	os.Remove(filepath.Join(d.dir, devJSONFile))
	d.mu.Unlock()

	if balancer != nil {
		balancer.stop() // while there is still a cluster to leave
	}
	ctx, cancel := context.WithTimeout(context.Background(), devDrainMax)
	defer cancel()
	var wg sync.WaitGroup
	for _, a := range agents {
		wg.Go(func() { a.drain(ctx) })
	}
	wg.Wait()
	for _, a := range agents {
		wg.Go(a.stop)
	}
	wg.Wait()
	for _, a := range agents {
		d.dropMount(a.plan)
	}
}

// drain makes the agent publish and unmount. Failing is no more than a line: the
// agent tries again when it is stopped.
func (a *devAgent) drain(ctx context.Context) {
	if !a.isUp() {
		return
	}
	a.signal(syscall.SIGCONT)
	if err := (adminClient{nodeSocket(a.dir, a.plan)}).call(ctx, http.MethodPost, "/v1/drain", nil, nil); err != nil {
		a.log.Warn("an agent did not drain", "node", a.plan.ID, "err", err)
	}
}

// dropMount takes away what is still mounted on a node's mount point, whoever
// has files open there.
func (d *devCluster) dropMount(n devNode) {
	path := nodeMount(d.dir, n)
	for mountedOn(path) != "" {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			d.log.Warn("a mount stays behind", "path", path, "err", err, "do", "umount -l "+path)
			return
		}
	}
}

// serveControl listens on DIR/dev.sock until the returned function is called.
func (d *devCluster) serveControl(wg *sync.WaitGroup) (closeControl func(), err error) {
	path := filepath.Join(d.dir, devSocketFile)
	l, err := listenUnix(path)
	if err != nil {
		return nil, problem(CodeDataDir, err, "the control socket cannot be made", "")
	}
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		if err := serveHTTP(ctx, l, d.controlHandler()); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Error("the control socket failed", "err", err)
		}
	})
	return func() {
		cancel()
		closeUnix(l, path)
	}, nil
}
