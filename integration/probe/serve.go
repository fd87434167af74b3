package probe

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"
)

// EnvChild marks a process as a probe's child.
const EnvChild = "PROBE_CHILD"

// Main serves as a probe and ends the process if it was started as one, and
// returns at once if not. Call it first in main or TestMain.
func Main() {
	if os.Getenv(EnvChild) == "" {
		return
	}
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	// A lane may hang in a call for ever; leaving main ends it all the same.
	os.Exit(0)
}

// handles are the open files of one probe, shared by its lanes.
type handles struct {
	mu      sync.Mutex
	fd      map[int]int
	listing map[int]*sync.Mutex // of directories: their position is one for all lanes
}

// lister is held while a handle is listed from its beginning to its end.
func (h *handles) lister(n int) *sync.Mutex {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listing[n] == nil {
		h.listing[n] = &sync.Mutex{}
	}
	return h.listing[n]
}

func (h *handles) put(n, fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fd[n] = fd
}

func (h *handles) get(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if fd, ok := h.fd[n]; ok {
		return fd
	}
	return -1
}

func (h *handles) take(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	fd, ok := h.fd[n]
	if !ok {
		return -1
	}
	delete(h.fd, n)
	return fd
}

// serve reads requests until in ends. Requests of one lane are done in order,
// lanes run beside each other.
func serve(in io.Reader, out io.Writer) error {
	var mu sync.Mutex
	w := bufio.NewWriter(out)
	enc := gob.NewEncoder(w)
	send := func(r reply) error {
		mu.Lock()
		defer mu.Unlock()
		if err := enc.Encode(r); err != nil {
			return err
		}
		return w.Flush()
	}
	hs := &handles{fd: map[int]int{}, listing: map[int]*sync.Mutex{}}
	lanes := map[int]chan request{}
	dec := gob.NewDecoder(bufio.NewReader(in))
	for {
		var req request
		switch err := dec.Decode(&req); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read request: %w", err)
		}
		lane := lanes[req.Lane]
		if lane == nil {
			lane = make(chan request, 64)
			lanes[req.Lane] = lane
			go runLane(lane, hs, send)
		}
		lane <- req
	}
}

func runLane(lane chan request, hs *handles, send func(reply) error) {
	runtime.LockOSThread()
	for req := range lane {
		rep := reply{ID: req.ID, Results: make([]Result, len(req.Ops))}
		for i := range req.Ops {
			waitUntil(req.Ops[i].At)
			rep.Results[i] = do(hs, &req.Ops[i])
		}
		if err := send(rep); err != nil {
			fmt.Fprintln(os.Stderr, "probe: send reply:", err)
			os.Exit(1)
		}
	}
}

// waitUntil sleeps until shortly before t and spins for the rest, so that
// several processes start within microseconds of each other.
func waitUntil(t int64) {
	if t == 0 {
		return
	}
	const spin = 200 * time.Microsecond
	if d := time.Duration(t-Now()) - spin; d > 0 {
		time.Sleep(d)
	}
	for Now() < t {
	}
}
