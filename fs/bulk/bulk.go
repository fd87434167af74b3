// Package bulk copies whole trees in and out: between two directories, one of
// them usually a mount of wpfs, or between a directory and ordinary objects of a
// bucket, as s3cmd sync and other programs leave them and expect them.
//
// Both ends are walked in one order, that of object keys, and merged: what is
// there already is seen without a list of everything in memory, and what is
// missing or different becomes the job of one of a bounded number of workers.
// A file is written without a name, or under a temporary one, and gets its own
// only when it is whole; so whatever ends a copy, running it again goes on.
// [Run] is all there is to call; [Options] say what, [Report] what came of it.
package bulk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wpfs/wpfs/fs/object"
)

// Verify says how the copy is looked at when it is done.
type Verify string

// The ways. VerifySize compares names, types, sizes, times and other attributes;
// VerifyContent also reads back the content of what was copied.
const (
	VerifyNone    Verify = "none"
	VerifySize    Verify = "size"
	VerifyContent Verify = "content"
)

// WorkersDefault is how many files are copied at once. On a mount most of a
// small file's time is waiting for the other nodes: docs/OPERATIONS.md has the
// measurement.
const WorkersDefault = 64

// Place is one end of a copy: a directory or the ordinary objects of a bucket.
type Place struct {
	Dir  string       // of the local file system
	Objs object.Plain // if Dir is ""
	Name string       // of Objs, for messages
}

// Options for Run.
type Options struct {
	From, To Place // at least one is a directory
	Workers  int   // 0: WorkersDefault
	// Checksum compares the content of files with the same size instead of
	// their times.
	Checksum bool
	Delete   bool // what the source does not have
	// Exclude and Include are doublestar patterns: see filter.
	Exclude, Include []string
	DryRun           bool
	Verify           Verify // "": VerifyContent
	NoXattrs         bool
	// Owner, if set, is what all entries belong to instead of who owns them at
	// the source. Without the right to give files away, owners are not kept.
	Owner *Owner
	// CacheControl is what objects are put with.
	CacheControl string
	// OnAction, if set, hears of every change, in a dry run before it would be
	// made; calls come from several goroutines, one at a time.
	OnAction func(verb, path string)
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Finding is one path with what is wrong with it.
type Finding struct {
	Path string `json:"path"`
	What string `json:"what"`
}

// findingsMax is how many findings of one kind are kept; all are counted.
const findingsMax = 10_000

// Report is what a run has done. Counts are of files and other entries that are
// not directories; with DryRun they tell what would have been done.
type Report struct {
	Copied      int64     `json:"copied"`
	CopiedBytes int64     `json:"copied_bytes"`
	Linked      int64     `json:"linked"`  // became another name of a copied file
	Updated     int64     `json:"updated"` // had the right content and got other attributes
	Same        int64     `json:"same"`
	Directories int64     `json:"directories"`
	Deleted     int64     `json:"deleted"`
	Leftovers   int64     `json:"leftovers_removed"` // of interrupted runs
	Verified    int64     `json:"verified"`
	Failed      []Finding `json:"failed"`
	FailedCount int64     `json:"failed_count"`
	Differs     []Finding `json:"differs"`
	DiffCount   int64     `json:"differs_count"`
	// KeptBack says that nothing was deleted where the source could not be listed.
	KeptBack bool          `json:"deletes_kept_back"`
	Took     time.Duration `json:"-"`
}

// Progress is a look at a run from outside; it may be read at any time.
type Progress struct {
	files, bytes, allFiles, allBytes atomic.Int64
	counted, verifying               atomic.Bool
}

// Snapshot of a Progress. The totals grow until Counted.
type Snapshot struct {
	Files, Bytes, AllFiles, AllBytes int64
	Counted, Verifying               bool
}

// Look reads the progress.
func (p *Progress) Look() Snapshot {
	return Snapshot{p.files.Load(), p.bytes.Load(), p.allFiles.Load(), p.allBytes.Load(), p.counted.Load(), p.verifying.Load()}
}

// UsageError is a mistake in the options, found before anything was done.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap is the mistake.
func (e *UsageError) Unwrap() error { return e.Err }

// ErrBusy means that another run copies into the same directory.
var ErrBusy = errors.New("another import or export into this directory is running")

// Run copies. It blocks until all is done and verified, or ctx ends, or
// something fails that concerns more than one file: no space, no bucket, no
// mount. Then it returns the error with the report so far, and the same call
// goes on later. What concerns single files is in the report only. p may be nil.
func Run(ctx context.Context, o Options, p *Progress) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = WorkersDefault
	}
	if o.Verify == "" {
		o.Verify = VerifyContent
	}
	if !slices.Contains([]Verify{VerifyNone, VerifySize, VerifyContent}, o.Verify) {
		return nil, &UsageError{fmt.Errorf("verify is none, size or content, not %q", o.Verify)}
	}
	count := p != nil
	if p == nil {
		p = new(Progress)
	}
	r, err := newRun(o, p)
	if err != nil {
		return nil, err
	}
	defer r.close()
	err = r.copyAll(ctx, count)
	if err == nil && !o.DryRun && o.Verify != VerifyNone {
		err = r.verifyAll(ctx)
	}
	r.rep.Took = time.Since(r.began)
	slices.SortFunc(r.rep.Failed, byPath)
	slices.SortFunc(r.rep.Differs, byPath)
	return &r.rep, err
}

func byPath(a, b Finding) int {
	switch {
	case a.Path < b.Path:
		return -1
	case a.Path > b.Path:
		return 1
	}
	return 0
}

// run is one call of Run.
type run struct {
	o      Options
	filter filter
	src    side
	dst    target
	p      *Progress
	began  time.Time

	mu     sync.Mutex // guards all below
	rep    Report
	sums   map[uint64]sum // of what was copied, by the hash of its path
	failed map[uint64]struct{}
	groups map[string]*group
	claims map[inode]string // files with several names that were there, and whose they are
}

func newRun(o Options, p *Progress) (*run, error) {
	f, err := newFilter(o.Exclude, o.Include)
	if err != nil {
		return nil, err
	}
	r := &run{o: o, filter: f, p: p, began: time.Now(), sums: map[uint64]sum{}, failed: map[uint64]struct{}{}, groups: map[string]*group{}, claims: map[inode]string{}}
	r.rep.Failed, r.rep.Differs = []Finding{}, []Finding{}
	switch {
	case o.From.Dir != "" && o.To.Dir != "":
		if err := apart(o.From.Dir, o.To.Dir); err != nil {
			return nil, err
		}
	case o.From.Dir == "" && o.To.Dir == "":
		return nil, &UsageError{errors.New("one of the two ends must be a directory")}
	}
	if r.src, err = openSource(o, f); err != nil {
		return nil, err
	}
	if r.dst, err = openTarget(o, f); err != nil {
		return nil, errors.Join(err, r.src.close())
	}
	return r, nil
}

func (r *run) close() {
	r.src.close()
	r.dst.close()
}

// copyAll is the first pass: merge and copy.
func (r *run) copyAll(ctx context.Context, count bool) error {
	counting, stop := context.WithCancel(ctx)
	var counter sync.WaitGroup
	if count {
		counter.Go(func() { r.count(counting) })
	}
	err := r.pass(ctx, &copyPass{r})
	stop()
	counter.Wait()
	if err == nil && !r.o.DryRun {
		err = r.dst.sync()
	}
	return err
}

// count finds out how much there is to do, beside the copy and for the progress
// only.
func (r *run) count(ctx context.Context) {
	for e, err := range r.src.walk(ctx) {
		if err == nil && !e.isDir() {
			r.p.allFiles.Add(1)
			r.p.allBytes.Add(max(e.size, 0))
		}
		if err != nil && isFatal(err) {
			return
		}
	}
	r.p.counted.Store(ctx.Err() == nil)
}

// pass is what is done with each entry of a merge.
type pass interface {
	// file, in a worker: have is nil if the destination lacks it.
	file(ctx context.Context, m *merge, j *job) error
	// leave, when all that is in a directory is done.
	leave(ctx context.Context, d *dir) error
}

// pass walks both ends and has the workers do p.
func (r *run) pass(ctx context.Context, p pass) error {
	g, ctx := errgroup.WithContext(ctx)
	m := &merge{r: r, p: p, jobs: newQueue(ctx)}
	for range r.o.Workers {
		g.Go(func() error {
			for j := m.jobs.pop(ctx); j != nil; j = m.jobs.pop(ctx) {
				if err := m.do(ctx, j); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	g.Go(func() error {
		defer m.jobs.close()
		return m.walk(ctx)
	})
	return g.Wait()
}

// fail notes that path could not be copied. It returns err if that concerns
// more than this path.
func (r *run) fail(path string, err error) error {
	if isFatal(err) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.failed[hashPath(path)]; known {
		return nil // the verification has found it again
	}
	r.rep.FailedCount++
	r.failed[hashPath(path)] = struct{}{}
	if errors.Is(err, errDirFailed) {
		return nil // said once, for the directory
	}
	if len(r.rep.Failed) < findingsMax {
		r.rep.Failed = append(r.rep.Failed, Finding{path, err.Error()})
	}
	return nil
}

func (r *run) differs(path, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rep.DiffCount++
	if len(r.rep.Differs) < findingsMax {
		r.rep.Differs = append(r.rep.Differs, Finding{path, what})
	}
}

// did counts and tells an action.
func (r *run) did(counter *int64, verb string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*counter++
	if r.o.OnAction != nil && verb != "" {
		r.o.OnAction(verb, e.path)
	}
}

// passed moves the progress past a file whose content has been counted already.
func (r *run) passed(files, bytes int64) {
	r.p.files.Add(files)
	r.p.bytes.Add(bytes)
}
