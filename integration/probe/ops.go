package probe

import (
	"golang.org/x/sys/unix"
)

// Constructors for the usual operations, so that a test reads like the program
// it stands for.

// Lstat asks for attributes.
func Lstat(path string) Op { return Op{Call: CallStat, Path: path} }

// ReadFile reads a whole file.
func ReadFile(path string) Op { return Op{Call: CallReadFile, Path: path} }

// WriteFile does what file_put_contents does: open with O_TRUNC, write, close.
func WriteFile(path string, data []byte) Op {
	return Op{Call: CallWriteFile, Path: path, Data: data, Mode: 0o644, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC}
}

// AppendFile opens with O_APPEND, writes once and closes.
func AppendFile(path string, data []byte) Op {
	return Op{Call: CallWriteFile, Path: path, Data: data, Mode: 0o644, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND}
}

// CreateExcl makes a file with content that must not exist yet.
func CreateExcl(path string, data []byte) Op {
	return Op{Call: CallWriteFile, Path: path, Data: data, Mode: 0o644, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL}
}

// Open opens path under the handle h.
func Open(h int, path string, flags int, mode uint32) Op {
	return Op{Call: CallOpen, H: h, Path: path, Flags: flags, Mode: mode}
}

// Close closes h.
func Close(h int) Op { return Op{Call: CallClose, H: h} }

// Pread reads n bytes at off.
func Pread(h int, off, n int64) Op { return Op{Call: CallRead, H: h, Off: off, Len: n} }

// Write writes at the handle's position, or at its file's end with O_APPEND.
func Write(h int, data []byte) Op { return Op{Call: CallWrite, H: h, Data: data, Off: -1} }

// Pwrite writes at off.
func Pwrite(h int, off int64, data []byte) Op {
	return Op{Call: CallWrite, H: h, Data: data, Off: off}
}

// Fstat asks for the attributes of an open file.
func Fstat(h int) Op { return Op{Call: CallFstat, H: h} }

// Getdents lists an open directory from its beginning.
func Getdents(h int) Op { return Op{Call: CallGetdents, H: h} }

// Ftruncate sets an open file's size.
func Ftruncate(h int, size int64) Op { return Op{Call: CallFtruncate, H: h, Len: size} }

// Fsync makes an open file durable.
func Fsync(h int) Op { return Op{Call: CallFsync, H: h} }

// Mkdir makes a directory.
func Mkdir(path string) Op { return Op{Call: CallMkdir, Path: path, Mode: 0o755} }

// Rmdir removes an empty directory.
func Rmdir(path string) Op { return Op{Call: CallRmdir, Path: path} }

// Unlink removes a name.
func Unlink(path string) Op { return Op{Call: CallUnlink, Path: path} }

// Mkfifo makes a named pipe.
func Mkfifo(path string) Op { return Op{Call: CallMknod, Path: path, Mode: unix.S_IFIFO | 0o600} }

// Symlink makes path a symbolic link to target.
func Symlink(target, path string) Op { return Op{Call: CallSymlink, Path: path, Path2: target} }

// Readlink tells where a symbolic link points.
func Readlink(path string) Op { return Op{Call: CallReadlink, Path: path} }

// Link gives the file old the further name path.
func Link(old, path string) Op { return Op{Call: CallLink, Path: old, Path2: path} }

// Rename is renameat2 with flags.
func Rename(from, to string, flags int) Op {
	return Op{Call: CallRename, Path: from, Path2: to, Flags: flags}
}

// Chmod sets permission bits.
func Chmod(path string, mode uint32) Op { return Op{Call: CallChmod, Path: path, Mode: mode} }

// Chown sets owner and group without following links.
func Chown(path string, uid, gid int) Op {
	return Op{Call: CallChown, Path: path, Uid: uid, Gid: gid}
}

// Truncate sets a file's size.
func Truncate(path string, size int64) Op { return Op{Call: CallTruncate, Path: path, Len: size} }

// Utimens sets both times to mtime, in nanoseconds since 1970.
func Utimens(path string, mtime int64) Op { return Op{Call: CallUtimens, Path: path, Mtime: mtime} }

// Setxattr sets an extended attribute.
func Setxattr(path, name string, value []byte) Op {
	return Op{Call: CallSetxattr, Path: path, Name: name, Data: value}
}

// Getxattr reads an extended attribute.
func Getxattr(path, name string) Op { return Op{Call: CallGetxattr, Path: path, Name: name} }

// Removexattr removes an extended attribute.
func Removexattr(path, name string) Op {
	return Op{Call: CallRemovexattr, Path: path, Name: name}
}

// Readdir lists a directory's names, sorted, without "." and "..".
func Readdir(path string) Op { return Op{Call: CallReaddir, Path: path} }

// Statfs asks for the file system's size.
func Statfs(path string) Op { return Op{Call: CallStatfs, Path: path} }

// Fill writes n bytes of [Pattern] with the given seed to path and closes it.
func Fill(path string, n int64, seed byte) Op {
	return Op{Call: CallFill, Path: path, Len: n, Data: []byte{seed}}
}

// Sum is the SHA-256 of a file's content.
func Sum(path string) Op { return Op{Call: CallSum, Path: path} }

// Scan lists a whole tree with attributes and checksums.
func Scan(path string) Op { return Op{Call: CallScan, Path: path} }

// Watch repeats op until the time until and reports the runs of equal answers.
func Watch(op Op, until int64) Op {
	return Op{Call: CallWatch, Path: op.Path, Inner: &op, Until: until}
}

// Pattern fills b with the bytes that Fill writes at off.
func Pattern(b []byte, off int64, seed byte) {
	for i := range b {
		x := uint64(off) + uint64(i)
		b[i] = byte(x) ^ byte(x>>8)*7 ^ byte(x>>16)*13 ^ byte(x>>24)*29 ^ seed
	}
}
