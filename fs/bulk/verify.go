package bulk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// verifyPass merges both ends once more. What the copy did not touch must be
// there, what it did must be equal to the source as that is now, and its content
// to what was read there.
type verifyPass struct{ r *run }

func (r *run) verifyAll(ctx context.Context) error {
	r.p.verifying.Store(true)
	return r.pass(ctx, &verifyPass{r})
}

func (p *verifyPass) file(ctx context.Context, _ *merge, j *job) error {
	r := p.r
	h := hashPath(j.want.path)
	r.mu.Lock()
	want, touched := r.sums[h]
	_, failed := r.failed[h]
	r.mu.Unlock()
	switch {
	case failed: // has been reported
		return nil
	case j.have == nil:
		r.differs(j.want.path, "is missing at the destination")
		return nil
	case !touched:
		return nil
	}
	found, err := p.compare(ctx, j, want)
	switch {
	case err != nil && isFatal(err):
		return err
	case errors.Is(err, errGone):
	case err != nil:
		r.differs(j.want.path, "cannot be verified: "+err.Error())
	case len(found) > 0:
		r.differs(j.want.path, strings.Join(found, "; "))
	default:
		r.did(&r.rep.Verified, "", j.want)
	}
	return nil
}

// compare completes both sides and says in what they differ.
func (p *verifyPass) compare(ctx context.Context, j *job, s sum) (found []string, err error) {
	r := p.r
	if err := r.complete(ctx, r.src, j.want); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if err := r.complete(ctx, r.dst, j.have); err != nil {
		return nil, err
	}
	if r.o.To.Dir == "" && j.have.isRegular() && j.have.known&knowsMtime == 0 {
		j.have.mtime = j.want.mtime // it was the same by content, and was left alone
	}
	if d := contentDiffers(j.want, j.have); d != "" {
		found = append(found, d)
	} else if r.o.Verify == VerifyContent && s != (sum{}) && j.want.isRegular() {
		if d, err := p.content(ctx, j.have, s); err != nil {
			return nil, err
		} else if d != "" {
			found = append(found, d)
		}
	}
	if d := attrsDiffer(j.want, j.have); d != "" {
		found = append(found, d)
	}
	return found, nil
}

func (p *verifyPass) content(ctx context.Context, have *entry, want sum) (string, error) {
	if strings.EqualFold(have.etag, want.hex()) {
		return "", nil // the server has summed up what it got
	}
	got, n, err := p.r.sum(ctx, p.r.dst, have)
	if err != nil {
		return "", err
	}
	if n != have.size || got != want {
		return fmt.Sprintf("has other content (%d bytes, MD5 %s) than what was read at the source (MD5 %s)", n, got.hex(), want.hex()), nil
	}
	return "", nil
}

// clockStep is by how much a file's time may be behind the clock.
const clockStep = time.Second

func (p *verifyPass) leave(ctx context.Context, d *dir) error {
	r := p.r
	r.mu.Lock()
	_, failed := r.failed[hashPath(d.want.path)]
	r.mu.Unlock()
	if failed {
		return nil
	}
	for _, e := range d.extras {
		if !e.temp && !d.want.unread && !e.isDir() {
			r.differs(e.path, "is still at the destination")
		}
	}
	if d.have == nil {
		r.differs(d.want.path, "is missing at the destination")
		return nil
	}
	if err := r.complete(ctx, r.src, d.want); err != nil && !errors.Is(err, errGone) {
		return err
	}
	if err := r.complete(ctx, r.dst, d.have); err != nil {
		return err
	}
	if d.want.mtime > r.began.Add(-clockStep).UnixNano() {
		// Names have come or gone since, which happens in a tree that is in use.
		d.want.known &^= knowsMtime
	}
	if diff := attrsDiffer(d.want, d.have); diff != "" && !(r.o.To.Dir == "" && d.want.path == "") {
		r.differs(d.want.path, diff)
	}
	return nil
}
