package bulk

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// write copies content into an open, empty file, and leaves out what is not
// there in the source or is nothing but zeros.
func write(ctx context.Context, fd int, c *content) (s sum, err error) {
	w := &writer{fd: fd, c: c}
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	h := md5.New()
	size := int64(0)
	src := io.Reader(c.stream)
	if c.file != nil {
		src = io.NewSectionReader(c.file, 0, 1<<62)
		w.sparse = isSparse(c.file)
	}
	for {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		n, rerr := io.ReadFull(src, *b)
		h.Write((*b)[:n])
		if err := w.write((*b)[:n], size); err != nil {
			return s, fault("write", err)
		}
		size += int64(n)
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			break
		}
		if rerr != nil {
			return s, fault("read", rerr)
		}
	}
	if w.hole {
		if err := unix.Ftruncate(fd, size); err != nil {
			return s, fault("truncate", err)
		}
	}
	if c.file == nil && size != c.size {
		return s, fmt.Errorf("the object has %d bytes, %d arrived", c.size, size)
	}
	h.Sum(s[:0])
	return s, nil
}

// writer writes at increasing offsets.
type writer struct {
	fd     int
	c      *content
	sparse bool
	hole   bool // the last of it was left out
}

// isSparse reports whether f has less on disk than it is long.
func isSparse(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Blocks*512 < st.Size
}

var zeros [64 << 10]byte

func (w *writer) write(b []byte, at int64) error {
	for len(b) > 0 {
		n := len(b)
		if w.sparse {
			n = min(n, len(zeros))
		}
		w.hole = w.sparse && bytes.Equal(b[:n], zeros[:n])
		if !w.hole {
			if err := pwrite(w.fd, b[:n], at); err != nil {
				return err
			}
		}
		if w.c.wrote != nil {
			w.c.wrote(int64(n))
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func pwrite(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			b, at = b[n:], at+int64(n)
		}
	}
	return nil
}
