package main

import (
	"os/exec"
	"runtime"
)

// spawner starts processes from one operating system thread that lives as long
// as it does. The kernel sends a child its parent-death signal when the thread
// that started it ends, not the process (prctl(2)); without this a child could
// die whenever the Go runtime retires a thread.
type spawner struct {
	jobs chan func()
}

func newSpawner() *spawner { return &spawner{jobs: make(chan func())} }

// Run serves start until stop is closed.
func (s *spawner) Run(stop <-chan struct{}) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	for {
		select {
		case f := <-s.jobs:
			f()
		case <-stop:
			return
		}
	}
}

// start is cmd.Start on the spawner's thread.
func (s *spawner) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.jobs <- func() { done <- cmd.Start() }
	return <-done
}
