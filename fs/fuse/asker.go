package fuse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

// askAgain is the pause before another process is started in the place of one that
// ended.
const askAgain = time.Second

// askWait is how long a question waits for the process to start.
const askWait = 2 * askAgain

// errNoAsker: the process that asks does not run now.
var errNoAsker = errors.New("nobody can ask the kernel")

// asker is the agent's end of the process that asks the kernel.
type asker struct {
	command func() *exec.Cmd
	dir     string
	minor   uint32
	log     *slog.Logger
	slots   chan struct{} // questions at a time: they fit into the socket's buffer

	mu      sync.Mutex
	conn    *os.File      // nil: it does not run
	up      chan struct{} // closed when it runs
	tids    map[uint32]bool
	next    uint64
	waiting map[uint64]chan askAnswer
	told    bool // of a failure, in the log
}

type askAnswer struct {
	taken bool
	err   error
}

func newAsker(command func() *exec.Cmd, dir string, minor uint32, log *slog.Logger) *asker {
	return &asker{command: command, dir: dir, minor: minor, log: log,
		slots: make(chan struct{}, 2*askThreads), up: make(chan struct{})}
}

// run keeps the process running until ctx ends, and has ended it then.
func (a *asker) run(ctx context.Context) {
	for {
		err := a.once(ctx)
		if ctx.Err() != nil {
			return
		}
		a.log.Warn("the process that asks the kernel for attributes ended; another is started", "dir", a.dir, "error", err)
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return
		}
	}
}

// once runs one process.
func (a *asker) once(ctx context.Context) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "asker")
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return errors.Join(err, unix.Close(fds[0]), theirs.Close())
	}
	conn := os.NewFile(uintptr(fds[0]), "asker") // non-blocking: Close ends a Read
	cmd := a.command()
	cmd.Dir, cmd.ExtraFiles = "/", []*os.File{theirs}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // no Ctrl-C of the agent's terminal
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", cmd.Path, err), conn.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = a.listen(conn)
	_ = conn.Close() // it ends with this
	return errors.Join(err, cmd.Wait())
}

// listen takes answers until the connection ends.
func (a *asker) listen(conn *os.File) error {
	buf := make([]byte, 4*askThreads+askReply)
	n, err := conn.Read(buf)
	if err != nil || n != 4*askThreads {
		return errors.Join(errNoAsker, err)
	}
	tids := map[uint32]bool{}
	for i := range askThreads {
		tids[binary.NativeEndian.Uint32(buf[4*i:])] = true
	}
	a.mu.Lock()
	a.conn, a.tids, a.waiting = conn, tids, map[uint64]chan askAnswer{}
	close(a.up)
	a.mu.Unlock()
	defer a.ended()
	for {
		n, err := conn.Read(buf)
		if err != nil || n != askReply {
			return errors.Join(errNoAsker, err)
		}
		var answer askAnswer
		if errno := binary.NativeEndian.Uint32(buf[8:]); errno != 0 {
			answer.err = unix.Errno(errno)
		}
		answer.taken = buf[12] == 1
		a.hand(binary.NativeEndian.Uint64(buf), answer)
	}
}

func (a *asker) hand(number uint64, answer askAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.waiting[number]; c != nil {
		delete(a.waiting, number)
		c <- answer
	}
}

// ended fails who waits. The threads stay known: what they have asked for may still
// be on its way.
func (a *asker) ended() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn, a.up = nil, make(chan struct{})
	for number, c := range a.waiting {
		delete(a.waiting, number)
		c <- askAnswer{err: errNoAsker}
	}
}

// mine tells whether a request is the asker's own; pid is a thread's.
func (a *asker) mine(pid uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tids[pid]
}

// ask has a GETATTR of ino sent, and tells whether the kernel has taken the answer.
// It blocks for as long as that takes.
func (a *asker) ask(ino fs.Ino, generation uint64) (taken bool, err error) {
	a.slots <- struct{}{}
	defer func() { <-a.slots }()
	a.mu.Lock()
	up := a.up
	a.mu.Unlock()
	if !await(up, askWait) {
		return false, errNoAsker
	}
	answer := make(chan askAnswer, 1)
	if err := a.send(ino, generation, answer); err != nil {
		return false, err
	}
	got := <-answer
	if got.err != nil && !errors.Is(got.err, errNoAsker) && !errors.Is(got.err, unix.ESTALE) && !errors.Is(got.err, unix.ENOENT) {
		a.tell(got.err)
	}
	return got.taken, got.err
}

func (a *asker) send(ino fs.Ino, generation uint64, answer chan askAnswer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil {
		return errNoAsker
	}
	a.next++
	q := binary.NativeEndian.AppendUint64(make([]byte, 0, askHead+len(a.dir)), a.next)
	q = binary.NativeEndian.AppendUint64(q, uint64(ino))
	q = binary.NativeEndian.AppendUint64(q, generation)
	q = binary.NativeEndian.AppendUint32(q, a.minor)
	a.waiting[a.next] = answer
	if _, err := a.conn.Write(append(q, a.dir...)); err != nil {
		delete(a.waiting, a.next)
		return errors.Join(errNoAsker, err)
	}
	return nil
}

// tell logs the first failure that an operator can do something about.
func (a *asker) tell(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told {
		return
	}
	a.told = true
	a.log.Warn("the kernel cannot be asked for attributes by inode number, so a read during a change may end at the length from "+
		"before an earlier one; the agent needs the capability CAP_DAC_READ_SEARCH", "dir", a.dir, "error", err)
}
