// Package fuse puts the kernel in front of fs/vfs: it mounts /dev/fuse itself,
// serves go-fuse's raw protocol on it with our inode numbers as node ids, and is
// the only package that imports go-fuse.
//
// It adds two nouns: a [Server] is one mount and what answers it; a
// [MountError] says why there is none, in a sentence for the operator.
//
// Nothing is cached by the kernel beyond one system call for now: all timeouts
// are 0 and files are opened without FOPEN_KEEP_CACHE. Pages of a file that
// stays open live on until the attributes, which the kernel asks for before each
// read(2), show another size or mtime (AUTO_INVAL_DATA).
//
// An interrupted call is finished like any other: what was proposed cannot be
// taken back, and everything below bounds its own waiting. That is why the
// cancel channels of go-fuse are not looked at.
//
// Nobody in this process may touch its own mount except from a goroutine of its
// own with an ordinary system call; mmap, exec and poll of it block the Go
// runtime that would have to answer.
package fuse
