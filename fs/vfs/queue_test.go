package vfs

import (
	"testing"
	"time"
)

// TestQueue walks one record and then two through the queue.
func TestQueue(t *testing.T) {
	start := time.Now()
	q := &queue{wake: make(chan struct{}, 1)}
	a, b := &record{ino: 1, index: -1}, &record{ino: 2, index: -1}
	next := func(at time.Duration) *record {
		t.Helper()
		r, _ := q.next(start.Add(at))
		return r
	}
	q.add(a, start.Add(5*time.Second))
	q.add(b, start.Add(4*time.Second))
	q.add(a, start.Add(6*time.Second)) // not later than it was
	if r, wait := q.next(start); r != nil || wait != 4*time.Second {
		t.Fatalf("at the start: %v, wait %v", r, wait)
	}
	q.add(a, start.Add(time.Second))
	if r := next(2 * time.Second); r != a {
		t.Fatalf("after 2 s: %v", r)
	}
	if r := next(5 * time.Second); r != b {
		t.Fatalf("after 5 s: %v", r)
	}
	if r := next(time.Hour); r != nil {
		t.Fatalf("empty queue has %v", r)
	}
	// A failed record pauses, however much is written to it.
	for range 3 {
		q.failed(a)
	}
	q.add(a, start)
	if r := next(time.Since(start) + 3*retryMin); r != nil {
		t.Error("a record that failed three times did not pause")
	}
	if r := next(time.Since(start) + 4*retryMin); r != a {
		t.Error("the pause does not end")
	}
	q.failed(a)
	q.succeeded(a, true)
	if r := next(time.Hour); r != nil {
		t.Error("a clean record is still queued")
	}
	q.add(a, start)
	if r := next(0); r != a {
		t.Error("a record that succeeded still pauses")
	}
}
