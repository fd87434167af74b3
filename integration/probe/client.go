package probe

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// AnswerMax is how long Do waits for an answer before it reports the
// operations as lost. It is far beyond anything the file system promises.
const AnswerMax = 90 * time.Second

// Client drives one child process. Its methods may be used from several
// goroutines; operations of one lane are done in the order they were sent.
type Client struct {
	Name string // for messages, such as "node1"

	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{} // closed when no more answers will come

	mu      sync.Mutex
	enc     *gob.Encoder
	next    uint64
	waiting map[uint64]*Pending
	err     error // why done was closed
}

// Pending is a request under way.
type Pending struct {
	c     *Client
	ops   []Op
	since time.Time
	ch    chan []Result
}

// Start starts a child: this very program again, so its main or TestMain must
// call [Main]. The child ends when Close is called or this process ends.
func Start(name string) (*Client, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start probe %s: %w", name, err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), EnvChild+"=1")
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start probe %s: %w", name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start probe %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start probe %s: %w", name, err)
	}
	c := &Client{Name: name, cmd: cmd, stdin: in, done: make(chan struct{}),
		enc: gob.NewEncoder(in), waiting: map[uint64]*Pending{}}
	go c.receive(out)
	return c, nil
}

// receive delivers answers until the child ends.
func (c *Client) receive(out io.Reader) {
	dec := gob.NewDecoder(bufio.NewReader(out))
	for {
		var rep reply
		if err := dec.Decode(&rep); err != nil {
			c.mu.Lock()
			c.err = fmt.Errorf("probe %s ended: %w", c.Name, err)
			c.mu.Unlock()
			close(c.done)
			return
		}
		c.mu.Lock()
		p := c.waiting[rep.ID]
		delete(c.waiting, rep.ID)
		c.mu.Unlock()
		if p != nil {
			p.ch <- rep.Results
		}
	}
}

// PID is the child's process id.
func (c *Client) PID() int { return c.cmd.Process.Pid }

// Close ends the child, killing it if a call of it hangs, and waits for it.
func (c *Client) Close() error {
	c.stdin.Close()
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		c.cmd.Process.Kill()
	}
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return fmt.Errorf("probe %s had to be killed: a call did not return", c.Name)
	}
	return err
}

// Go sends ops to a lane and returns without waiting for them.
func (c *Client) Go(lane int, ops ...Op) *Pending {
	p := &Pending{c: c, ops: ops, since: time.Now(), ch: make(chan []Result, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	c.waiting[c.next] = p
	if err := c.enc.Encode(request{ID: c.next, Lane: lane, Ops: ops}); err != nil && c.err == nil {
		c.err = fmt.Errorf("probe %s: send: %w", c.Name, err)
	}
	return p
}

// Wait returns one result for each operation. If the child died or the answer
// did not come within AnswerMax, all of them are marked as lost.
func (p *Pending) Wait() []Result { return p.WaitFor(AnswerMax) }

// WaitFor is Wait with another patience.
func (p *Pending) WaitFor(patience time.Duration) []Result {
	left := time.NewTimer(time.Until(p.since.Add(patience)))
	defer left.Stop()
	select {
	case rs := <-p.ch:
		return rs
	case <-p.c.done:
		select {
		case rs := <-p.ch:
			return rs
		default:
		}
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return p.lost(p.c.err.Error())
	case <-left.C:
		return p.lost(fmt.Sprintf("no answer for %v", patience))
	}
}

func (p *Pending) lost(why string) []Result {
	now := Now()
	rs := make([]Result, len(p.ops))
	for i, op := range p.ops {
		rs[i] = Result{Call: op.Call, Path: op.Path, Lost: p.c.Name + ": " + why, End: now}
	}
	return rs
}

// Do sends ops to lane 0 and waits for all of them.
func (c *Client) Do(ops ...Op) []Result { return c.Go(0, ops...).Wait() }

// Call does one operation on lane 0.
func (c *Client) Call(op Op) Result { return c.Do(op)[0] }

// Run does ops and returns the first error, for steps that must succeed.
func (c *Client) Run(ops ...Op) error {
	rs := c.Do(ops...)
	i := slices.IndexFunc(rs, func(r Result) bool { return r.Err() != nil })
	if i < 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", c.Name, rs[i].Err())
}
