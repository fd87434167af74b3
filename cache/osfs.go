package cache

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// files is what Disk asks of the operating system; tests fail or tear every
// step of it. Paths are absolute.
type files interface {
	Mkdir(path string) error
	Create(path string) (file, error) // for writing; it must not exist
	Open(path string) (file, error)   // for reading
	Rename(from, to string) error
	Remove(path string) error
	Stat(path string) (stat, error)
	List(path string) ([]string, error) // names, in no order
	SyncDir(path string) error
	Free(path string) (uint64, error) // bytes an unprivileged process may still use
}

// file is an open file.
type file interface {
	io.Writer
	io.ReaderAt
	Sync() error // the content, and the size
	Forget()     // lets the kernel drop its pages, so that a read comes from the disk
	Stat() (stat, error)
	Close() error
}

// stat is what tells one file from another of the same name.
type stat struct {
	ino     uint64
	size    int64
	changed uint32 // Unix seconds of the last change of its bytes
}

// osFiles is the real thing.
type osFiles struct{}

func (osFiles) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (osFiles) Create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) Open(path string) (file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }

func (osFiles) Stat(path string) (stat, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return stat{}, err
	}
	return statOf(info), nil
}

func statOf(info os.FileInfo) stat {
	s := stat{size: info.Size(), changed: uint32(info.ModTime().Unix())}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.ino = sys.Ino
	}
	return s
}

func (osFiles) List(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (osFiles) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osFiles) Free(path string) (uint64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
		}
		return st.Bavail * uint64(st.Bsize), nil
	}
}

type osFile struct{ *os.File }

func (f osFile) Stat() (stat, error) {
	info, err := f.File.Stat()
	if err != nil {
		return stat{}, err
	}
	return statOf(info), nil
}

// Sync writes the content and what is needed to read it back; times may be lost.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}

// Forget is advice: pages that are in use or not written yet stay.
func (f osFile) Forget() { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
