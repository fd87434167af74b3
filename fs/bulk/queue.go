package bulk

import (
	"context"
	"sync"
)

// queueMax bounds the jobs that wait, and with them the directories that are
// open.
const queueMax = 1024

// queue hands jobs to the workers, one of each directory in turn: giving a file
// its name holds the kernel's lock of its directory, on a mount for as long as
// all nodes need to hear of it, so workers in one directory wait for each other.
type queue struct {
	mu     sync.Mutex
	change *sync.Cond
	turn   []*dir // those with jobs, each once
	jobs   map[*dir][]*job
	n      int
	closed bool
}

// newQueue makes a queue whose calls end with ctx.
func newQueue(ctx context.Context) *queue {
	q := &queue{jobs: map[*dir][]*job{}}
	q.change = sync.NewCond(&q.mu)
	context.AfterFunc(ctx, q.close)
	return q
}

// close lets pop end when nothing is left.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.change.Broadcast()
}

// push adds a job. It blocks while there are too many.
func (q *queue) push(ctx context.Context, j *job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n >= queueMax && ctx.Err() == nil {
		q.change.Wait()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(q.jobs[j.d]) == 0 {
		q.turn = append(q.turn, j.d)
	}
	q.jobs[j.d] = append(q.jobs[j.d], j)
	q.n++
	q.change.Broadcast()
	return nil
}

// pop takes the next job; nil if the queue is closed and empty, or ctx has ended.
func (q *queue) pop(ctx context.Context) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 && !q.closed {
		q.change.Wait()
	}
	if q.n == 0 || ctx.Err() != nil {
		return nil
	}
	d := q.turn[0]
	q.turn = q.turn[1:]
	j := q.jobs[d][0]
	if rest := q.jobs[d][1:]; len(rest) > 0 {
		q.jobs[d] = rest
		q.turn = append(q.turn, d)
	} else {
		delete(q.jobs, d)
	}
	q.n--
	q.change.Broadcast()
	return j
}
