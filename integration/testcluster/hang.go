package testcluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hangChecks is how often the tasks are looked at.
const hangChecks = 250 * time.Millisecond

// waits are the kernel functions in which a task waits for an answer of a FUSE
// daemon, or for locks that another one holds while it does.
var waits = map[string]bool{
	"request_wait_answer":           true,
	"__fuse_request_send":           true,
	"fuse_reverse_inval_entry":      true,
	"fuse_reverse_inval_inode":      true,
	"fuse_simple_request":           true,
	"fuse_wait_on_page_writeback":   true,
	"fuse_set_nowrite":              true,
	"d_alloc_parallel":              true,
	"rwsem_down_write_slowpath":     true,
	"rwsem_down_read_slowpath":      true,
	"__inode_wait_for_writeback":    true,
	"folio_wait_bit_common":         true,
	"fuse_lock_inode":               true,
	"__fuse_simple_request":         true,
	"fuse_dev_do_write":             true,
	"wait_on_page_bit_common":       true,
	"invalidate_inode_pages2_range": true,
}

// Hang is a task that stayed in one wait for too long.
type Hang struct {
	PID, TID int
	Wait     string // the kernel function it waits in
	For      time.Duration
	Stack    string // of the kernel
	Syscall  string // number and arguments, as /proc tells
}

func (h Hang) String() string {
	return fmt.Sprintf("pid %d task %d waits in %s for %v, syscall %s\n%s", h.PID, h.TID, h.Wait, h.For.Round(time.Millisecond), h.Syscall, h.Stack)
}

// HangDetector looks for tasks of some processes that wait for a file system
// longer than a limit.
type HangDetector struct {
	limit  time.Duration
	onHang func(Hang)
	stop   chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	found []Hang
}

type waitState struct {
	wait     string
	switches string // context switches so far: unchanged means the same wait
	since    time.Time
	reported bool
}

// DetectHangs watches all tasks of the processes pids until Stop. It calls
// onHang, if not nil, for each hang from its own goroutine while the hang lasts.
func DetectHangs(limit time.Duration, onHang func(Hang), pids ...int) *HangDetector {
	d := &HangDetector{limit: limit, onHang: onHang, stop: make(chan struct{})}
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		tick := time.NewTicker(hangChecks)
		defer tick.Stop()
		tasks := map[int]*waitState{}
		for {
			select {
			case <-d.stop:
				return
			case <-tick.C:
			}
			for _, pid := range pids {
				d.look(pid, tasks)
			}
		}
	}()
	return d
}

// Stop ends the watch and returns the hangs it found.
func (d *HangDetector) Stop() []Hang {
	close(d.stop)
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found
}

func (d *HangDetector) look(pid int, tasks map[int]*waitState) {
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		tid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		wait := readTrim(filepath.Join(dir, "wchan"))
		if !waits[wait] {
			delete(tasks, tid)
			continue
		}
		sw := switches(filepath.Join(dir, "status"))
		s := tasks[tid]
		if s == nil || s.wait != wait || s.switches != sw {
			tasks[tid] = &waitState{wait: wait, switches: sw, since: time.Now()}
			continue
		}
		if age := time.Since(s.since); age > d.limit && !s.reported {
			s.reported = true
			h := Hang{PID: pid, TID: tid, Wait: wait, For: age,
				Stack: readTrim(filepath.Join(dir, "stack")), Syscall: readTrim(filepath.Join(dir, "syscall"))}
			d.mu.Lock()
			d.found = append(d.found, h)
			d.mu.Unlock()
			if d.onHang != nil {
				d.onHang(h)
			}
		}
	}
}

// readTrim is a file's content, or nothing if the task has just ended.
func readTrim(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// switches are the lines of a task's status that count its context switches.
func switches(path string) string {
	var out []string
	for line := range strings.SplitSeq(readTrim(path), "\n") {
		if strings.Contains(line, "ctxt_switches") {
			out = append(out, line)
		}
	}
	return strings.Join(out, " ")
}
