package bulk

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

func (b *bucket) links() bool       { return false } // every name is an object
func (b *bucket) ensure(*dir) error { return nil }
func (b *bucket) sync() error       { return nil }

// put implements target: one object for an entry, with what s3cmd keeps of a
// file in its metadata. What is no file is one too: its mode says what it is.
func (b *bucket) put(ctx context.Context, _ *dir, want, _ *entry, c *content) (sum, inode, error) {
	key, err := keyOf(want.path, false)
	if err != nil {
		return sum{}, inode{}, err
	}
	var body io.ReaderAt = strings.NewReader(want.target)
	size := int64(len(want.target))
	if want.isRegular() {
		body, size = c.file, want.size
	}
	s, small, err := b.read(ctx, body, size)
	if err != nil {
		return s, inode{}, fault("read", err)
	}
	if small != nil {
		body = bytes.NewReader(small)
	}
	if err := c.unchanged(want); err != nil {
		return s, inode{}, err
	}
	meta, err := want.meta(s.hex())
	if err != nil {
		return s, inode{}, err
	}
	local := &localErrors{r: body}
	_, err = b.objs.Put(ctx, key, local, size, object.PlainHead{ContentType: ContentType(want.path, body, size), CacheControl: b.o.CacheControl, Meta: meta})
	switch {
	case local.err != nil:
		return s, inode{}, fault("read", local.err)
	case err != nil:
		return s, inode{}, &objectError{err: err, write: true}
	}
	if c.wrote != nil {
		c.wrote(size)
	}
	return s, inode{}, c.unchanged(want)
}

// smallMax is up to which size a file is read once, and sent from memory.
const smallMax = 1 << 20

// read sums up size bytes, and returns them if they are few.
func (b *bucket) read(ctx context.Context, body io.ReaderAt, size int64) (sum, []byte, error) {
	var small *bytes.Buffer
	src := io.Reader(io.NewSectionReader(body, 0, size))
	if size <= smallMax {
		small = new(bytes.Buffer)
		src = io.TeeReader(src, small)
	}
	s, n, err := sumOf(ctx, src)
	if err == nil && n != size {
		err = errChanged
	}
	if small == nil {
		return s, nil, err
	}
	return s, small.Bytes(), err
}

// localErrors remembers what reading the file failed with, which the way
// through the client hides.
type localErrors struct {
	r   io.ReaderAt
	err error
}

func (l *localErrors) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	return n, err
}

// ContentType is what a browser is to be told that a file is: by its name, else
// by its first bytes.
func ContentType(name string, body io.ReaderAt, size int64) string {
	if t := mime.TypeByExtension(strings.ToLower(path.Ext(name))); t != "" {
		return t
	}
	head := make([]byte, min(size, 512))
	n, _ := body.ReadAt(head, 0)
	return http.DetectContentType(head[:n])
}

// leave implements target: a directory is an empty object whose key ends in a
// slash, so that empty ones and their attributes are kept.
func (b *bucket) leave(ctx context.Context, d *dir) error {
	if d.want.path == "" {
		return nil
	}
	if d.have != nil && d.have.key != "" {
		if err := b.complete(ctx, d.have); err != nil {
			return err
		}
		if d.have.known&knowsMode != 0 && attrsDiffer(d.want, d.have) == "" {
			return nil
		}
	}
	key, err := keyOf(d.want.path, true)
	if err != nil {
		return err
	}
	meta, err := d.want.meta("")
	if err != nil {
		return err
	}
	if _, err = b.objs.Put(ctx, key, strings.NewReader(""), 0, object.PlainHead{ContentType: "application/x-directory", Meta: meta}); err != nil {
		return &objectError{err: err, write: true}
	}
	return nil
}

// setAttrs implements target; an object is put again instead.
func (b *bucket) setAttrs(context.Context, *dir, *entry, *entry) error {
	return fmt.Errorf("change attributes: %w", unix.EOPNOTSUPP)
}

// link implements target.
func (b *bucket) link(context.Context, *dir, *entry, *entry, string) error {
	return fmt.Errorf("link: %w", unix.EOPNOTSUPP)
}

// remove implements target.
func (b *bucket) remove(ctx context.Context, _ *dir, e *entry) error {
	if e.key == "" {
		return unix.ENOENT // a directory that no object stands for
	}
	if err := b.objs.Delete(ctx, e.key); err != nil {
		return &objectError{err: err, write: true}
	}
	return nil
}

// readTarget reads what a link's object holds.
func (e *entry) readTarget(c *content) error {
	if c.size == 0 || c.size >= unix.PathMax {
		return fmt.Errorf("the object says that it is a symbolic link, but has %d bytes", c.size)
	}
	t, err := io.ReadAll(c.stream)
	e.target = string(t)
	return err
}

// checked is an object's content, compared with the sum that s3cmd has noted.
type checked struct {
	ctx  context.Context
	body io.ReadCloser
	want string // "": none
	h    hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if c.want != "" {
		if c.h == nil {
			c.h = md5.New()
		}
		c.h.Write(p[:n])
		if err == io.EOF {
			if got := fmt.Sprintf("%x", c.h.Sum(nil)); !strings.EqualFold(got, c.want) {
				return n, fmt.Errorf("the object's content (MD5 %s) is not what was uploaded (MD5 %s, says its metadata)", got, c.want)
			}
		}
	}
	if err != nil && err != io.EOF {
		err = &objectError{err: err}
	}
	return n, err
}

func (c *checked) Close() error { return c.body.Close() }
