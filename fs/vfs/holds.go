package vfs

import (
	"context"
	"time"

	"github.com/wpfs/wpfs/fs"
)

const (
	// holdsWait bounds how long Holds waits for calls that are about to open
	// something.
	holdsWait = 2 * time.Second
	// deniedMax is how many answers of Holds are remembered: far more than
	// orphans wait for their removal at a time.
	deniedMax = 1 << 16
)

// maker is a call in flight that ends with a new handle for an inode whose
// number is not known yet.
type maker struct{ done chan struct{} }

func (f *FS) startMaking() *maker {
	m := &maker{done: make(chan struct{})}
	f.mu.Lock()
	f.making[m] = struct{}{}
	f.mu.Unlock()
	return m
}

func (f *FS) endMaking(m *maker) {
	f.mu.Lock()
	delete(f.making, m)
	f.mu.Unlock()
	close(m.done)
}

// Kernel is the kernel in front of the FS, as far as it keeps things by itself.
// Its methods do not block.
type Kernel interface {
	// Pinned tells whether a directory without a name is in use here: nobody opens
	// a directory with a handle.
	Pinned(ino fs.Ino) bool
	// Lost tells that content written here was given up: pages that hold it must go.
	Lost(ino fs.Ino)
}

// SetKernel gives the FS its kernel. Without one nothing is kept.
func (f *FS) SetKernel(k Kernel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kernel = k
}

// Holds tells which of inos are open here or have unpublished content here. It
// waits for calls in flight that may be about to open one, for holdsWait at
// most, and then says yes to all: an inode that is held is never denied, and
// what is denied here cannot become open here any more once it has no name.
func (f *FS) Holds(ctx context.Context, inos []fs.Ino) ([]fs.Ino, error) {
	f.mu.Lock()
	wait := make([]*maker, 0, len(f.making))
	for m := range f.making {
		wait = append(wait, m)
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, holdsWait)
	defer cancel()
	for _, m := range wait {
		select {
		case <-m.done:
		case <-ctx.Done():
			return inos, nil
		}
	}
	f.mu.Lock()
	kernel := f.kernel
	f.mu.Unlock()
	var held []fs.Ino
	for _, ino := range inos {
		// The kernel is asked without the lock; a directory that it has let go of
		// has no name by which it could come back.
		if kernel != nil && kernel.Pinned(ino) || !f.deny(ino) {
			held = append(held, ino)
		}
	}
	return held, nil
}

// deny remembers that ino is not open here, unless it is.
func (f *FS) deny(ino fs.Ino) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.records[ino] != nil {
		return false
	}
	f.denied.add(ino)
	return true
}

func (f *FS) isDenied(ino fs.Ino) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.denied.known[ino]
}

// deniedSet remembers the inodes that Holds said no to last.
type deniedSet struct {
	known map[fs.Ino]bool
	ring  []fs.Ino // in the order of adding, to forget the oldest
	next  int
}

func (d *deniedSet) add(ino fs.Ino) {
	if d.known[ino] {
		return
	}
	if d.known == nil {
		d.known = map[fs.Ino]bool{}
	}
	if len(d.ring) < deniedMax {
		d.ring = append(d.ring, ino)
	} else {
		delete(d.known, d.ring[d.next])
		d.ring[d.next] = ino
		d.next = (d.next + 1) % deniedMax
	}
	d.known[ino] = true
}
