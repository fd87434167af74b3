package vfs

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// publishersMax is how many inodes the background publishes at a time.
	publishersMax = 8
	// retryMin and retryMax bound the pause before a failed publication is
	// tried again; it doubles each time.
	retryMin = 250 * time.Millisecond
	retryMax = 30 * time.Second
)

// queue holds the records with unpublished content in the order in which they
// are due. Its lock is a leaf: it may be taken under any other.
type queue struct {
	mu    sync.Mutex
	order dueOrder
	wake  chan struct{} // has a token when the head may have changed
}

// dueOrder is a heap of records by due time.
type dueOrder []*record

func (o dueOrder) Len() int           { return len(o) }
func (o dueOrder) Less(i, j int) bool { return o[i].due.Before(o[j].due) }
func (o dueOrder) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i, j
}
func (o *dueOrder) Push(x any) {
	r := x.(*record)
	r.index = len(*o)
	*o = append(*o, r)
}
func (o *dueOrder) Pop() any {
	old := *o
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*o, r.index = old[:len(old)-1], -1
	return r
}

// add makes r due at the given time, or earlier if it is already. A record
// whose last publication failed keeps its pause.
func (q *queue) add(r *record, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case r.index < 0:
		r.due = due
		heap.Push(&q.order, r)
	case r.tries == 0 && due.Before(r.due):
		r.due = due
		heap.Fix(&q.order, r.index)
	default:
		return
	}
	q.rouse()
}

// failed makes r due after a pause that grows with each failure.
func (q *queue) failed(r *record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	pause := min(retryMin<<min(r.tries, 16), retryMax)
	r.tries++
	r.due = time.Now().Add(pause)
	if r.index < 0 {
		heap.Push(&q.order, r)
	} else {
		heap.Fix(&q.order, r.index)
	}
	q.rouse()
}

// succeeded ends the pauses of r, and with clean its place in the queue.
func (q *queue) succeeded(r *record, clean bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.tries = 0
	if clean && r.index >= 0 {
		heap.Remove(&q.order, r.index)
	}
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next takes out a record that is due, or tells how long there is none.
func (q *queue) next(now time.Time) (*record, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return nil, time.Hour
	}
	if wait := q.order[0].due.Sub(now); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&q.order).(*record), 0
}

// Run publishes content in the background until ctx ends: what is older than
// PublishAfter, what a file closed without a flush left behind, long appends,
// and what failed before. It waits for publications in flight, which ctx does
// not abandon: an append whose outcome is unknown would be sent twice.
func (f *FS) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	free := make(chan struct{}, publishersMax)
	for {
		r, wait := f.queue.next(time.Now())
		if r == nil {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-f.queue.wake:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		select {
		case <-ctx.Done():
			f.queue.add(r, time.Now())
			return nil
		case free <- struct{}{}:
		}
		running.Add(1)
		go func() {
			defer func() { <-free; running.Done() }()
			f.publishQueued(context.WithoutCancel(ctx), r)
		}()
	}
}

// publishQueued publishes r; a failure is retried by the queue and was logged.
func (f *FS) publishQueued(ctx context.Context, r *record) {
	if !f.holdQueued(r) {
		return
	}
	_, _ = f.publish(ctx, r, publishOptions{})
	if f.release(r) {
		f.queue.add(r, time.Now())
	}
}

// Drain publishes all unpublished content and returns nil once there is none,
// or, after a round in which something failed, an error that tells what and why.
// That content stays; Run, if it runs, goes on trying.
func (f *FS) Drain(ctx context.Context) error {
	for {
		dirty := f.dirtyRecords()
		if len(dirty) == 0 {
			return nil
		}
		errs := f.drain(ctx, dirty)
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("drain: %d of %d files are not published: %w", len(errs), len(dirty), err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
	}
}

// dirtyRecords holds and returns the records with unpublished content.
func (f *FS) dirtyRecords() []*record {
	f.mu.Lock()
	defer f.mu.Unlock()
	var dirty []*record
	for _, r := range f.records {
		if r.isDirty() {
			r.refs++
			dirty = append(dirty, r)
		}
	}
	return dirty
}

// drain publishes and releases the records, and returns what failed.
func (f *FS) drain(ctx context.Context, dirty []*record) []error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		free = make(chan struct{}, publishersMax)
	)
	for _, r := range dirty {
		free <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-free; wg.Done() }()
			_, err := f.publish(ctx, r, publishOptions{})
			f.release(r)
			if err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return errs
}
