package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// side is one end of a copy.
type side interface {
	// walk yields the entries in their order, the root first. An error beside an
	// entry concerns that path alone unless isFatal.
	walk(ctx context.Context) iter.Seq2[*entry, error]
	// complete reads what walk does not tell: a link's target, extended
	// attributes, an object's metadata.
	complete(ctx context.Context, e *entry) error
	// open opens the content of a regular file and completes e.
	open(ctx context.Context, e *entry) (*content, error)
	close() error
}

// target is a side that can be written to.
type target interface {
	side
	// ensure makes and opens a directory, once, its parents before it.
	ensure(d *dir) error
	// leave gives a directory its attributes and lets go of it.
	leave(ctx context.Context, d *dir) error
	// put makes the entry, whole or not at all, in place of have, and tells the
	// sum of its content and which inode it is now.
	put(ctx context.Context, d *dir, want, have *entry, c *content) (sum, inode, error)
	// link makes another name of the file at first in place of have.
	link(ctx context.Context, d *dir, want, have *entry, first string) error
	// links reports whether link is to be used.
	links() bool
	setAttrs(ctx context.Context, d *dir, want, have *entry) error
	// remove removes an entry that is not in the source.
	remove(ctx context.Context, d *dir, e *entry) error
	sync() error
}

// content is an open file or object.
type content struct {
	file   *os.File      // with holes, and to be read at any place
	stream io.ReadCloser // without
	size   int64
	wrote  func(n int64) // hears of progress
}

func (c *content) close() {
	if c.file != nil {
		c.file.Close()
	}
	if c.stream != nil {
		c.stream.Close()
	}
}

type inode struct{ dev, ino uint64 }

// dir is a directory of the source in work. It is left when the merge has gone
// past it and all jobs in it are done: only then are its times set.
type dir struct {
	parent *dir
	want   *entry
	have   *entry // nil: absent
	extras []*entry

	pending atomic.Int64 // jobs and directories in it, and the merge
	once    sync.Once
	fd      int // of a local target, once ensured; -1 before
	err     error
}

// job is one entry for a worker; for the leave of a directory want is nil.
type job struct {
	d          *dir
	want, have *entry
}

// merge walks both ends in step.
type merge struct {
	r     *run
	p     pass
	jobs  *queue
	stack []*dir
	first map[inode]string // the first name of files with several
	seen  int              // entries of the source below its root
}

// walk is the merge's goroutine.
func (m *merge) walk(ctx context.Context) error {
	m.first = map[inode]string{}
	nextWant, stopWant := iter.Pull2(m.r.src.walk(ctx))
	defer stopWant()
	nextHave, stopHave := iter.Pull2(m.r.dst.walk(ctx))
	defer stopHave()
	want, err := m.nextWant(nextWant)
	if err != nil {
		return err
	}
	have, err := m.nextHave(nextHave)
	for (want != nil || have != nil) && err == nil {
		switch {
		case have == nil, want != nil && want.order() < have.order():
			if err = m.entry(ctx, want, nil); err == nil {
				want, err = m.nextWant(nextWant)
			}
		case want == nil, have.order() < want.order():
			m.extra(have)
			have, err = m.nextHave(nextHave)
		default:
			if err = m.entry(ctx, want, have); err == nil {
				if want, err = m.nextWant(nextWant); err == nil {
					have, err = m.nextHave(nextHave)
				}
			}
		}
	}
	if err == nil && m.seen == 0 && len(m.stack) > 0 && m.r.o.Delete && len(m.stack[0].extras) > 0 {
		return errEmptySource
	}
	for len(m.stack) > 0 && err == nil {
		err = m.pop(ctx)
	}
	return err
}

// errEmptySource: nothing has been deleted yet, for all of it would be when the
// root is left.
var errEmptySource = &UsageError{errors.New("the source is empty, and with --delete all of the destination would go: is the source mounted? To empty the destination, do so by hand")}

// nextWant is the next entry of the source, nil at its end. What concerns single
// paths is reported on the way.
func (m *merge) nextWant(next func() (*entry, error, bool)) (*entry, error) {
	for {
		e, err, ok := next()
		if !ok {
			return nil, nil
		}
		if err == nil {
			return e, nil
		}
		if e == nil || isFatal(err) {
			return nil, err
		}
		if err := m.r.fail(e.path, err); err != nil {
			return nil, err
		}
		if e.isDir() {
			return e, nil // it is there, only its names are not known
		}
		if !errors.Is(err, errKey) {
			m.top(e.path).want.unread = true
		}
	}
}

// nextHave is the next entry of the destination. What cannot be read there
// counts as absent: whoever has to make it will find out.
func (m *merge) nextHave(next func() (*entry, error, bool)) (*entry, error) {
	for {
		e, err, ok := next()
		switch {
		case !ok:
			return nil, nil
		case err == nil:
			return e, nil
		case e == nil || isFatal(err):
			return nil, err
		case e.isDir():
			return e, nil
		}
	}
}

// top is the innermost directory in work that path is in.
func (m *merge) top(path string) *dir {
	for i := len(m.stack) - 1; i > 0; i-- {
		if inside(path, m.stack[i].want.path) {
			return m.stack[i]
		}
	}
	return m.stack[0]
}

// entry hands one entry of the source to the workers.
func (m *merge) entry(ctx context.Context, want, have *entry) error {
	for len(m.stack) > 0 && !inside(want.path, m.stack[len(m.stack)-1].want.path) {
		if err := m.pop(ctx); err != nil {
			return err
		}
	}
	m.r.adjust(want)
	var d *dir
	if len(m.stack) > 0 {
		m.seen++
		d = m.stack[len(m.stack)-1]
		d.pending.Add(1)
	}
	if want.isDir() {
		n := &dir{parent: d, want: want, have: have, fd: -1}
		n.pending.Store(1)
		m.stack = append(m.stack, n)
		return nil
	}
	m.name(want)
	return m.send(ctx, &job{d: d, want: want, have: have})
}

// name makes link, which is an inode so far, the first of the file's names.
func (m *merge) name(e *entry) {
	if e.nlink < 2 {
		return
	}
	if _, ok := m.first[e.ino]; !ok {
		m.first[e.ino] = e.path
	}
	e.link = m.first[e.ino]
}

// extra keeps what only the destination has for the end of its directory.
func (m *merge) extra(e *entry) {
	if len(m.stack) == 0 {
		return // no root: nothing to compare with
	}
	if d := m.top(e.path); e.temp || m.r.o.Delete {
		d.extras = append(d.extras, e)
	} else {
		e.skip = true // a mount may have a million files beside the ten that come
	}
}

func (m *merge) pop(ctx context.Context) error {
	d := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	if d.pending.Add(-1) == 0 {
		return m.send(ctx, &job{d: d})
	}
	return nil
}

func (m *merge) send(ctx context.Context, j *job) error {
	return m.jobs.push(ctx, j)
}

// do is a worker's step: the job, then the directories that it was the last of.
func (m *merge) do(ctx context.Context, j *job) error {
	if j.want == nil {
		return m.leave(ctx, j.d)
	}
	later := false
	err := m.p.file(ctx, m, j)
	if errors.Is(err, errLater) {
		later, err = true, nil
	}
	if err != nil {
		if err = m.r.fail(j.want.path, err); err != nil {
			return fmt.Errorf("%s: %w", Shown(j.want.path), err)
		}
	}
	if later {
		return nil // whoever it waits for does it
	}
	return m.done(ctx, j.d)
}

// done takes one job off a directory.
func (m *merge) done(ctx context.Context, d *dir) error {
	if d != nil && d.pending.Add(-1) == 0 {
		return m.leave(ctx, d)
	}
	return nil
}

func (m *merge) leave(ctx context.Context, d *dir) error {
	if err := m.p.leave(ctx, d); err != nil {
		if err = m.r.fail(d.want.path, err); err != nil {
			return fmt.Errorf("%s: %w", Shown(d.want.path), err)
		}
	}
	return m.done(ctx, d.parent)
}

// adjust applies the options that change what an entry should be.
func (r *run) adjust(e *entry) {
	switch {
	case r.o.Owner != nil:
		e.uid, e.gid, e.known = r.o.Owner.UID, r.o.Owner.GID, e.known|knowsOwner
	case r.o.To.Dir != "" && unix.Geteuid() != 0:
		e.known &^= knowsOwner
	}
	if r.o.NoXattrs {
		e.known &^= knowsXattrs
		e.xattrs = nil
	}
}
