// Package fuse puts the kernel in front of fs/vfs: it mounts /dev/fuse itself,
// serves go-fuse's raw protocol on it with our inode numbers as node ids, and is
// the only package that imports go-fuse.
//
// It adds two nouns: a [Server] is one mount and what answers it; a
// [MountError] says why there is none, in a sentence for the operator.
//
// The kernel answers most calls from its caches; package kcache says what it may
// keep, and takes it away. Each handler says how long its answer may be kept, and
// tells kcache before the answer can reach the kernel. Some answers may never be
// kept, because of what the kernel does with them; the handlers say why.
//
// The requests are read, and the replies written, by a loop of this package around
// go-fuse's ProtocolServer, which turns the one into calls and the results into the
// other. go-fuse calls that interface experimental; its own loop has no place to
// look at the clock after a reply was written.
//
// An interrupted call is finished like any other: what was proposed cannot be
// taken back, and everything below bounds its own waiting. That is why the
// cancel channels of go-fuse are not looked at.
//
// Nobody in this process may touch its own mount except from a goroutine of its
// own with an ordinary system call; mmap, exec and poll of it block the Go
// runtime that would have to answer.
package fuse
