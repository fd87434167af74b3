package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of one agent under wpfs dev.
const (
	agentReadyMax   = 60 * time.Second // from start to healthy
	agentStopMax    = 40 * time.Second // from SIGTERM to the end, then SIGKILL
	agentPollPeriod = 20 * time.Millisecond
	logTailMax      = 2 << 10
)

// agent states, as dev-node list prints them.
const (
	agentStopped = "stopped"
	agentRunning = "running"
	agentPaused  = "paused"
)

// devAgent is one agent process of wpfs dev and its place on disk.
type devAgent struct {
	plan  devNode
	dir   string // of the cluster
	spawn *spawner
	log   *slog.Logger
	ended func() // told after a process is gone

	op sync.Mutex // held during start, stop, kill, pause, resume: one at a time

	mu     sync.Mutex // guards what follows
	state  string
	proc   *os.Process   // nil while stopped; its Signal never hits a reused pid
	gone   chan struct{} // closed when the process is gone and the fields below say how
	code   Code
	how    string
	wanted bool // its end was asked for; otherwise it is worth a line
}

func newDevAgent(n devNode, dir string, sp *spawner, log *slog.Logger, ended func()) *devAgent {
	return &devAgent{plan: n, dir: dir, spawn: sp, log: log, ended: ended, state: agentStopped}
}

// start runs the process and waits until it is healthy. An agent that already
// runs is a success. On failure the process is gone.
func (a *devAgent) start(ctx context.Context, config []byte) error {
	a.op.Lock()
	defer a.op.Unlock()
	if a.isUp() {
		return nil
	}
	dirs := []string{nodeDir(a.dir, a.plan), nodeData(a.dir, a.plan)}
	if a.plan.ID != devLBID { // which has no mount
		dirs = append(dirs, nodeMount(a.dir, a.plan))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil && !isStaleMount(err) && !errors.Is(err, os.ErrExist) {
			return problem(CodeDataDir, err, "the directory of "+a.plan.ID+" cannot be made", "")
		}
	}
	if err := writeFileAtomic(nodeConfig(a.dir, a.plan), config); err != nil {
		return problem(CodeDataDir, err, "the configuration of "+a.plan.ID+" cannot be written", "")
	}
	if err := a.launch(); err != nil {
		return err
	}
	if err := a.waitHealthy(ctx); err != nil {
		a.end(syscall.SIGKILL, agentStopMax)
		return err
	}
	return nil
}

// launch starts the process and the goroutine that waits for its end.
func (a *devAgent) launch() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(nodeLog(a.dir, a.plan), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return problem(CodeDataDir, err, "the log of "+a.plan.ID+" cannot be opened", "")
	}
	defer out.Close()
	cmd := exec.Command(exe, "agent", "--config", nodeConfig(a.dir, a.plan))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = agentEnv(os.Environ())
	// Its own process group: Ctrl-C goes to wpfs dev alone, which stops the
	// agents in order. If wpfs dev dies without that, they die at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := a.spawn.start(cmd); err != nil {
		return problem(CodeOther, err, a.plan.ID+" cannot be started", "")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state, a.proc, a.wanted, a.gone = agentRunning, cmd.Process, false, make(chan struct{})
	go a.reap(cmd, a.gone) // ends with the process
	return nil
}

// agentEnv drops the variables that would override every agent's own file.
func agentEnv(environ []string) []string {
	var env []string
	for _, e := range environ {
		if unknownEnv([]string{e}) == nil && !isConfigEnv(e) && !strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			env = append(env, e)
		}
	}
	return env
}

func isConfigEnv(e string) bool {
	name, _, _ := strings.Cut(e, "=")
	for _, k := range configKeys() {
		if k.Env == name {
			return true
		}
	}
	return false
}

// reap waits for the process and says how it ended.
func (a *devAgent) reap(cmd *exec.Cmd, gone chan struct{}) {
	err := cmd.Wait()
	a.mu.Lock()
	a.state, a.proc, a.how = agentStopped, nil, "exit status 0"
	a.code = CodeOK
	if err != nil {
		a.how = err.Error()
		a.code = CodeUnhealthy
		if c := cmd.ProcessState.ExitCode(); c > 0 {
			a.code = Code(c)
		}
	}
	if !a.wanted {
		a.log.Warn("an agent ended", "node", a.plan.ID, "how", a.how, "log", nodeLog(a.dir, a.plan))
	}
	a.mu.Unlock()
	a.ended()
	close(gone)
}

// waitHealthy asks the agent until it is.
func (a *devAgent) waitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, agentReadyMax)
	defer cancel()
	a.mu.Lock()
	gone, pid := a.gone, a.pidLocked()
	a.mu.Unlock()
	tick := time.NewTicker(agentPollPeriod)
	defer tick.Stop()
	for {
		why := a.unfit(ctx, pid)
		if why == "" {
			return nil
		}
		select {
		case <-gone:
			return a.failure()
		case <-ctx.Done():
			return problem(CodeUnhealthy, nil, fmt.Sprintf("%s was not healthy after %s: %s", a.plan.ID, agentReadyMax, why), "Its log is "+nodeLog(a.dir, a.plan))
		case <-tick.C:
		}
	}
}

// unfit asks once and tells what is against the agent, or "". It goes through
// the socket and looks at the process, for on the port somebody else may answer.
func (a *devAgent) unfit(ctx context.Context, pid int) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var st Status
	err := adminClient{nodeSocket(a.dir, a.plan)}.call(ctx, http.MethodGet, "/v1/status", nil, &st)
	switch {
	case err != nil:
		return err.Error()
	case st.PID != pid:
		return fmt.Sprintf("process %d answers on its socket, not %d", st.PID, pid)
	}
	return strings.Join(st.Reasons, "; ")
}

// failure is an agent that ended by itself, with the last it said.
func (a *devAgent) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	said := tail(nodeLog(a.dir, a.plan), logTailMax)
	if i := strings.LastIndex(said, "\nwpfs: "); i >= 0 {
		said = strings.TrimPrefix(said[i+1:], "wpfs: ")
	}
	code := a.code
	if code == CodeOK {
		code = CodeUnhealthy
	}
	return problem(code, nil, fmt.Sprintf("%s ended (%s): %s", a.plan.ID, a.how, strings.TrimSpace(said)), "Its log is "+nodeLog(a.dir, a.plan))
}

// tail is the last n bytes of a file, or why there are none.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > n {
		f.Seek(-n, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, n))
	return "\n" + string(b)
}

// pidLocked is 0 while the agent does not run; a.mu is held.
func (a *devAgent) pidLocked() int {
	if a.proc == nil {
		return 0
	}
	return a.proc.Pid
}

func (a *devAgent) isUp() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state != agentStopped
}

// end sends sig and waits for the process to be gone; after limit it is killed.
// A process that is gone already is a success.
func (a *devAgent) end(sig syscall.Signal, limit time.Duration) {
	a.mu.Lock()
	if a.state == agentStopped {
		a.mu.Unlock()
		return
	}
	a.wanted = true
	gone := a.gone
	a.proc.Signal(sig)
	a.proc.Signal(syscall.SIGCONT)
	a.state = agentRunning
	a.mu.Unlock()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-gone:
		return
	case <-t.C:
		a.log.Warn("an agent did not stop in time and is killed", "node", a.plan.ID, "after", limit)
	}
	a.signal(syscall.SIGKILL)
	<-gone
}

func (a *devAgent) signal(sig syscall.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != agentStopped {
		a.proc.Signal(sig) // a process that has just ended is what was wanted, or is noticed by its reaper
	}
}

// stop ends the agent in good order; kill at once, as kill -9 does. The mount
// of a killed agent stays, as it does after a crash; the next start cleans it.
func (a *devAgent) stop() { a.op.Lock(); defer a.op.Unlock(); a.end(syscall.SIGTERM, agentStopMax) }
func (a *devAgent) kill() { a.op.Lock(); defer a.op.Unlock(); a.end(syscall.SIGKILL, agentStopMax) }

// freeze stops the process where it is (SIGSTOP), or lets it go on.
func (a *devAgent) freeze(on bool) error {
	a.op.Lock()
	defer a.op.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == agentStopped {
		return problem(CodeOther, nil, a.plan.ID+" does not run", "")
	}
	sig, state := syscall.SIGCONT, agentRunning
	if on {
		sig, state = syscall.SIGSTOP, agentPaused
	}
	if err := a.proc.Signal(sig); err != nil {
		return err
	}
	a.state = state
	return nil
}

// isStaleMount is the error of any call on the mount of an agent that is gone.
func isStaleMount(err error) bool { return errors.Is(err, syscall.ENOTCONN) }
