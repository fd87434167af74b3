// Package probe does system calls in another process, as told over a pipe.
//
// A test of a mounted file system must not do everything from its own process:
// a call that hangs would hang the test, mmap and poll of a mount can deadlock
// the Go runtime that also runs the test, and one process per call is far too
// slow for thousands of trials. So a test starts one [Client] per mount. Its
// child is the test binary itself, started again (see [Main]), and does
// batches of [Op] in the order given. Every [Result] carries the time before
// and after the call on CLOCK_MONOTONIC, which all processes of one host
// share; so results of several probes can be put on one line of time.
package probe
