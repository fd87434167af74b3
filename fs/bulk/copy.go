package bulk

import (
	"context"
	"errors"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// group is the names of one file of the source that has several. The first that
// comes is copied, the others become links to it.
type group struct {
	path    string // of the copy
	is      inode  // what the copy is
	busy    bool   // it is being made
	waiting []*job
}

// errLater: the job has been left with a group that is being made.
var errLater = errors.New("later")

// copyPass makes the destination what the source is.
type copyPass struct{ r *run }

func (p *copyPass) file(ctx context.Context, m *merge, j *job) error {
	r := p.r
	same := false
	if j.have != nil {
		var err error
		if same, err = r.same(ctx, j.want, j.have); err != nil {
			return unlessGone(err)
		}
		if same && r.o.To.Dir == "" && attrsToSet(j.want, j.have) {
			same = false // an object's attributes cannot be changed alone
		}
	}
	var c *content
	if !same {
		var err error
		if c, err = r.open(ctx, j.want); err != nil {
			return unlessGone(err)
		}
		defer c.close()
	}
	if j.want.link == "" || !r.dst.links() {
		return p.one(ctx, j, c, same)
	}
	return p.named(ctx, m, j, c, same)
}

// one makes or completes an entry that has no other names, or is the first.
func (p *copyPass) one(ctx context.Context, j *job, c *content, same bool) error {
	_, err := p.make(ctx, j, c, same)
	return err
}

func (p *copyPass) make(ctx context.Context, j *job, c *content, same bool) (inode, error) {
	r := p.r
	if same {
		r.passed(1, max(j.want.size, 0))
		return j.have.ino, p.attrs(ctx, j)
	}
	if r.o.DryRun {
		r.passed(1, max(j.want.size, 0))
		r.copied(j.want, sum{}, "copy")
		return inode{}, nil
	}
	if err := r.dst.ensure(j.d); err != nil {
		return inode{}, err
	}
	c.wrote = func(n int64) { r.p.bytes.Add(n) }
	s, is, err := r.dst.put(ctx, j.d, j.want, j.have, c)
	if err != nil {
		return is, err
	}
	r.p.files.Add(1)
	r.copied(j.want, s, "copy")
	return is, nil
}

// attrsToSet reports whether an entry with the right content lacks attributes.
func attrsToSet(want, have *entry) bool {
	return attrsDiffer(want, have) != "" || want.known&have.known&knowsMtime != 0 && !sameTime(want, have)
}

// attrs gives an entry with the right content the right attributes.
func (p *copyPass) attrs(ctx context.Context, j *job) error {
	r := p.r
	if !attrsToSet(j.want, j.have) {
		r.did(&r.rep.Same, "", j.want)
		return nil
	}
	if !r.o.DryRun {
		if err := r.dst.ensure(j.d); err != nil {
			return err
		}
		if err := r.dst.setAttrs(ctx, j.d, j.want, j.have); err != nil {
			return err
		}
		r.mark(j.want.path, sum{})
	}
	r.did(&r.rep.Updated, "update", j.want)
	return nil
}

// named makes one of several names of a file.
func (p *copyPass) named(ctx context.Context, m *merge, j *job, c *content, same bool) error {
	r := p.r
	r.mu.Lock()
	g := r.groups[j.want.link]
	if g != nil && g.busy {
		g.waiting = append(g.waiting, j)
		r.mu.Unlock()
		return errLater
	}
	if g == nil {
		g = &group{path: j.want.path, busy: true}
		r.groups[j.want.link] = g
		if same && j.have.nlink > 1 { // two files of the source must not stay one here
			if owner, taken := r.claims[j.have.ino]; taken && owner != j.want.link {
				same = false
			} else {
				r.claims[j.have.ino] = j.want.link
			}
		}
		r.mu.Unlock()
		return p.lead(ctx, m, g, j, c, same)
	}
	r.mu.Unlock()
	if j.have != nil && j.have.ino == g.is && g.is != (inode{}) {
		r.passed(1, max(j.want.size, 0))
		r.did(&r.rep.Same, "", j.want)
		return nil
	}
	if !r.o.DryRun {
		if err := r.dst.ensure(j.d); err != nil {
			return err
		}
		if err := r.dst.link(ctx, j.d, j.want, j.have, g.path); err != nil {
			return err
		}
		r.mark(j.want.path, sum{})
	}
	r.passed(1, max(j.want.size, 0))
	r.did(&r.rep.Linked, "link", j.want)
	return nil
}

// lead makes the first name of a file, then those that waited for it. If it
// fails, the next one is the first.
func (p *copyPass) lead(ctx context.Context, m *merge, g *group, j *job, c *content, same bool) error {
	if !same && c == nil { // it was the same, but is somebody else's
		var err error
		if c, err = p.r.open(ctx, j.want); err == nil {
			defer c.close()
		} else {
			return p.led(ctx, m, g, j, inode{}, err)
		}
	}
	is, err := p.make(ctx, j, c, same)
	return p.led(ctx, m, g, j, is, err)
}

func (p *copyPass) led(ctx context.Context, m *merge, g *group, j *job, is inode, err error) error {
	r := p.r
	r.mu.Lock()
	g.is, g.busy = is, false
	waiting := g.waiting
	g.waiting = nil
	if err != nil {
		delete(r.groups, j.want.link)
	}
	r.mu.Unlock()
	for _, w := range waiting {
		if werr := m.do(ctx, w); werr != nil {
			return errors.Join(err, werr)
		}
	}
	return err
}

func (p *copyPass) leave(ctx context.Context, d *dir) error {
	r := p.r
	kept := d.extras[:0]
	for _, e := range d.extras {
		switch {
		case !e.temp && d.want.unread:
			r.mu.Lock()
			r.rep.KeptBack = true
			r.mu.Unlock()
			continue
		case r.o.DryRun && !e.temp:
			r.did(&r.rep.Deleted, "delete", e)
		}
		kept = append(kept, e)
	}
	d.extras = kept
	if r.o.DryRun {
		if d.have == nil {
			r.did(&r.rep.Directories, "make", d.want)
		}
		return nil
	}
	if err := p.removeExtras(ctx, d); err != nil {
		return err
	}
	if !d.want.unread {
		if err := r.complete(ctx, r.src, d.want); err != nil && !errors.Is(err, errGone) {
			return err
		}
	}
	if d.have == nil {
		if err := r.dst.ensure(d); err != nil && !errors.Is(err, errDirFailed) {
			return err
		}
	}
	if err := r.dst.leave(ctx, d); err != nil {
		return err
	}
	if d.have == nil && d.err == nil {
		r.did(&r.rep.Directories, "make", d.want)
	}
	return nil
}

// removeExtras removes what the source does not have, deepest first.
func (p *copyPass) removeExtras(ctx context.Context, d *dir) error {
	r := p.r
	if len(d.extras) == 0 {
		return nil
	}
	if err := r.dst.ensure(d); err != nil {
		return err
	}
	for i := len(d.extras) - 1; i >= 0; i-- {
		e := d.extras[i]
		err := r.dst.remove(ctx, d, e)
		switch {
		case err == nil && e.temp:
			r.did(&r.rep.Leftovers, "remove leftover", e)
		case err == nil:
			r.did(&r.rep.Deleted, "delete", e)
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
			// Something excluded is in it; or it has made way for something else.
		default:
			if err := r.fail(e.path, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// same reports whether have's content is want's. It completes both as far as
// that takes.
func (r *run) same(ctx context.Context, want, have *entry) (bool, error) {
	if r.o.From.Dir == "" && !r.o.Checksum && have.isRegular() && want.size == have.size &&
		have.nlink < 2 && have.mtime == want.modified.UnixNano() {
		return true, nil // what has no attributes was given the object's own time
	}
	if r.o.From.Dir == "" || have.size == want.size || !want.isRegular() {
		if err := r.complete(ctx, r.src, want); err != nil {
			return false, err
		}
	}
	if want.kind() == have.kind() && want.isRegular() && want.size != have.size {
		return false, nil
	}
	if err := r.complete(ctx, r.dst, have); err != nil {
		if isFatal(err) {
			return false, err
		}
		return false, nil // what cannot be read is replaced
	}
	if want.known&knowsLinks != 0 && r.dst.links() && want.link == "" && have.nlink > 1 {
		return false, nil
	}
	byContent := want.isRegular() && have.isRegular() && want.size == have.size &&
		(r.o.Checksum || want.known&have.known&knowsMtime == 0)
	if !byContent {
		return contentDiffers(want, have) == "", nil
	}
	return r.sameContent(ctx, want, have)
}

func (r *run) complete(ctx context.Context, s side, e *entry) error {
	err := s.complete(ctx, e)
	if s == r.src {
		r.adjust(e)
		err = r.gone(err)
	}
	return err
}

// errGone: the file has been removed from the source since it was listed, which
// is no fault: then there is nothing to copy.
var errGone = errors.New("it is no longer there")

func (r *run) gone(err error) error {
	if r.o.From.Dir != "" && errors.Is(err, unix.ENOENT) {
		return errGone
	}
	return err
}

func unlessGone(err error) error {
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

func (r *run) open(ctx context.Context, e *entry) (*content, error) {
	c, err := r.src.open(ctx, e)
	r.adjust(e)
	return c, r.gone(err)
}

func hashPath(path string) uint64 { return xxhash.Sum64String(path) }

// mark notes that path is to be verified. A zero sum means that its content is
// not this run's work.
func (r *run) mark(path string, s sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums[hashPath(path)] = s
}

func (r *run) copied(e *entry, s sum, verb string) {
	if !r.o.DryRun {
		r.mark(e.path, s)
	}
	r.did(&r.rep.Copied, verb, e)
	if e.isRegular() {
		r.mu.Lock()
		r.rep.CopiedBytes += e.size
		r.mu.Unlock()
	}
}
