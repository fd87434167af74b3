package vfstest

import (
	"context"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Meta passes calls on to another fs.Meta and lets a test in between.
type Meta struct {
	fs.Meta

	mu     sync.Mutex
	before func(fs.Op) error
	after  func(fs.Op, error) error
	read   func()
	ops    []fs.Op
}

// Before makes f run before each Do; its error is the answer and nothing is
// committed. nil ends that.
func (m *Meta) Before(f func(fs.Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = f
}

// After makes f run after each commit, before Do returns; what it returns is
// the error of Do. nil ends that.
func (m *Meta) After(f func(fs.Op, error) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after = f
}

// AfterRead makes f run at the end of each Read. nil ends that.
func (m *Meta) AfterRead(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read = f
}

// Ops returns the operations since the last call of Ops, refused ones included.
func (m *Meta) Ops() []fs.Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	ops := m.ops
	m.ops = nil
	return ops
}

// Do implements fs.Meta.
func (m *Meta) Do(ctx context.Context, op fs.Op) (fs.Result, error) {
	m.mu.Lock()
	m.ops = append(m.ops, op)
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return fs.Result{}, err
		}
	}
	res, err := m.Meta.Do(ctx, op)
	m.mu.Lock()
	after := m.after
	m.mu.Unlock()
	if after != nil {
		err = after(op, err)
	}
	return res, err
}

// Read implements fs.Meta.
func (m *Meta) Read(ctx context.Context, f func(fs.View) error) (time.Duration, error) {
	keep, err := m.Meta.Read(ctx, f)
	m.mu.Lock()
	read := m.read
	m.mu.Unlock()
	if read != nil {
		read()
	}
	return keep, err
}
