package fuse

import "sync/atomic"

// opcode is a kind of request that is counted.
type opcode int

const (
	opLookup opcode = iota
	opForget
	opGetAttr
	opStatx
	opSetAttr
	opReadlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opSymlink
	opGetXattr
	opListXattr
	opSetXattr
	opRemoveXattr
	opCreate
	opTmpfile
	opOpen
	opRead
	opWrite
	opFlush
	opFsync
	opRelease
	opLseek
	opFallocate
	opCopyFileRange
	opOpenDir
	opReadDir
	opReleaseDir
	opFsyncDir
	opStatFs
	opCount
)

var opNames = [opCount]string{
	"lookup", "forget", "getattr", "statx", "setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir", "rename",
	"link", "symlink", "getxattr", "listxattr", "setxattr", "removexattr", "create", "tmpfile", "open", "read",
	"write", "flush", "fsync", "release", "lseek", "fallocate", "copy_file_range", "opendir", "readdir",
	"releasedir", "fsyncdir", "statfs",
}

// requestCounts counts requests by opcode.
type requestCounts [opCount]atomic.Uint64

func (c *requestCounts) count(op opcode) { c[op].Add(1) }

// snapshot is the counts by name.
func (c *requestCounts) snapshot() map[string]uint64 {
	m := make(map[string]uint64, opCount)
	for op := range opCount {
		m[opNames[op]] = c[op].Load()
	}
	return m
}
