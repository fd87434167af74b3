package probe

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/tree"
)

// callWhole does the operations that are several system calls on one path.
func callWhole(op *Op, r *Result) error {
	switch op.Call {
	case CallReadFile:
		return readFile(op, r)
	case CallWriteFile:
		return writeFile(op, r)
	case CallReaddir:
		return readdir(op, r)
	case CallFill:
		return fill(op, r)
	case CallSum:
		return sum(op, r)
	}
	entries, err := tree.Scan(op.Path)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(entries); err != nil {
		return fmt.Errorf("encode scan: %v", err)
	}
	r.Data = b.Bytes()
	return nil
}

// Entries decodes what a scan returned.
func (r Result) Entries() ([]tree.Entry, error) {
	if err := r.Err(); err != nil {
		return nil, err
	}
	var es []tree.Entry
	err := gob.NewDecoder(bytes.NewReader(r.Data)).Decode(&es)
	return es, err
}

func readFile(op *Op, r *Result) error {
	r.Step = "open"
	fd, err := open(op.Path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	r.Step = "read"
	b := make([]byte, 64<<10)
	for {
		n, err := preadFull(fd, b, int64(len(r.Data)))
		if err != nil {
			unix.Close(fd)
			return err
		}
		r.Data = append(r.Data, b[:n]...)
		if n < len(b) {
			break
		}
		if len(r.Data) > readFileMax {
			unix.Close(fd)
			return fmt.Errorf("larger than %d bytes", readFileMax)
		}
	}
	r.Step = "close"
	if err := unix.Close(fd); err != nil {
		return err
	}
	r.Step = ""
	return nil
}

func writeFile(op *Op, r *Result) error {
	r.Step = "open"
	fd, err := open(op.Path, op.Flags, op.Mode)
	if err != nil {
		return err
	}
	r.Step = "write"
	n, err := writeFull(fd, op.Data, -1)
	r.N = int64(n)
	if err != nil {
		unix.Close(fd)
		return err
	}
	r.Step = "close"
	if err := unix.Close(fd); err != nil {
		return err
	}
	r.Step = ""
	return nil
}

func readdir(op *Op, r *Result) error {
	r.Step = "open"
	fd, err := open(op.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	r.Step = "getdents"
	if err := getdents(fd, op.Skip, r); err != nil {
		unix.Close(fd)
		return err
	}
	r.Step = "close"
	if err := unix.Close(fd); err != nil {
		return err
	}
	r.Step = ""
	return nil
}

// getdents lists from the descriptor's position to the end, without the names
// that begin with skip.
func getdents(fd int, skip string, r *Result) error {
	b := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		_, _, r.Names = unix.ParseDirent(b[:n], -1, r.Names)
	}
	if skip != "" {
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return strings.HasPrefix(n, skip) })
	}
	slices.Sort(r.Names)
	return nil
}

func fill(op *Op, r *Result) error {
	r.Step = "open"
	fd, err := open(op.Path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	r.Step = "write"
	b := make([]byte, 1<<20)
	for off := int64(0); off < op.Len; off += int64(len(b)) {
		part := b[:min(int64(len(b)), op.Len-off)]
		Pattern(part, off, op.Data[0])
		if _, err := writeFull(fd, part, off); err != nil {
			unix.Close(fd)
			return err
		}
	}
	r.N = op.Len
	r.Step = "close"
	if err := unix.Close(fd); err != nil {
		return err
	}
	r.Step = ""
	return nil
}

func sum(op *Op, r *Result) error {
	r.Step = "open"
	fd, err := open(op.Path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r.Step = "read"
	h := sha256.New()
	b := make([]byte, 1<<20)
	for {
		n, err := preadFull(fd, b, r.N)
		if err != nil {
			return err
		}
		h.Write(b[:n])
		r.N += int64(n)
		if n < len(b) {
			break
		}
	}
	r.Str, r.Step = hex.EncodeToString(h.Sum(nil)), ""
	return nil
}

func listxattr(path string) ([]string, error) {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	if err != nil || n == 0 {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	slices.Sort(names)
	return names, nil
}
