package vfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// Options of one FS. The zero value of a field means its default; StagingDir
// has none.
type Options struct {
	// StagingDir is an existing local directory for unpublished content that
	// memory has no room for. Nothing in it outlives the FS.
	StagingDir string
	// MemoryBytesMax is how much unpublished content stays in memory, of all
	// inodes together. Default 64 MiB.
	MemoryBytesMax int64
	// InlineMax is how much content one operation carries itself instead of
	// citing chunks. Default InlineDefault, at most fs.InlineMax.
	InlineMax int
	// PublishAfter is the age at which unpublished content is published in the
	// background. Default 5 s.
	PublishAfter time.Duration
	// AppendBytesMax is how much unpublished appended content of one inode
	// starts a background publication at once. Default 8 MiB.
	AppendBytesMax int64
	// PutParallel bounds the chunks being stored at a time, each with a buffer
	// of up to fs.ChunkMax bytes. Default 4.
	PutParallel int
	// Now is the clock that stamps files. Default time.Now.
	Now func() time.Time
	// Free tells how many bytes the local disk has left, for statfs. Default:
	// that of StagingDir.
	Free func() uint64
	// BucketMax makes close and fsync of a writer wait until the object store has
	// the content, at most so long. Default: they do not.
	BucketMax time.Duration
	// Admit is asked before n bytes are taken from a writer. It may block, no
	// longer than a fraction of a second, or refuse. Default: it does neither.
	Admit func(ctx context.Context, n int) error
	// Logger gets what an operator can act on. Default: nothing.
	Logger *slog.Logger
}

// InlineDefault is the usual Options.InlineMax. docs/ARCHITECTURE.md has the
// measurement behind it.
const InlineDefault = 32 << 10

func (o *Options) setDefaults() {
	if o.MemoryBytesMax == 0 {
		o.MemoryBytesMax = 64 << 20
	}
	if o.InlineMax == 0 {
		o.InlineMax = InlineDefault
	}
	if o.PublishAfter == 0 {
		o.PublishAfter = 5 * time.Second
	}
	if o.AppendBytesMax == 0 {
		o.AppendBytesMax = 8 << 20
	}
	if o.PutParallel == 0 {
		o.PutParallel = 4
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Admit == nil {
		o.Admit = func(context.Context, int) error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Free == nil {
		dir := o.StagingDir
		o.Free = func() uint64 { return freeBytes(dir) }
	}
}

// Validate names the first field that makes no sense, and the rule.
func (o Options) Validate() error {
	o.setDefaults()
	switch {
	case o.StagingDir == "":
		return errors.New("vfs: StagingDir is empty; it must be an existing local directory")
	case o.MemoryBytesMax < 0:
		return errors.New("vfs: MemoryBytesMax is negative")
	case o.InlineMax < 0 || o.InlineMax > fs.InlineMax:
		return fmt.Errorf("vfs: InlineMax is %d; it must be between 1 and %d bytes", o.InlineMax, fs.InlineMax)
	case o.PublishAfter < 0:
		return errors.New("vfs: PublishAfter is negative")
	case o.AppendBytesMax < 0:
		return errors.New("vfs: AppendBytesMax is negative")
	case o.PutParallel < 0:
		return errors.New("vfs: PutParallel is negative")
	}
	st, err := os.Stat(o.StagingDir)
	if err != nil {
		return fmt.Errorf("vfs: StagingDir: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("vfs: StagingDir %s is not a directory", o.StagingDir)
	}
	return nil
}

// FS is the file system of one node. All methods may be called at any time from
// any goroutine. Errors are *fs.Error or wrap one.
type FS struct {
	meta   fs.Meta
	chunks fs.Chunks
	opt    Options

	memory  budget
	stage   *staging
	puts    chan struct{} // one token per chunk being stored
	buffers sync.Pool     // *[]byte of fs.ChunkMax bytes; puts bounds how many are in use
	queue   queue
	synced  syncedSet
	metrics metrics
	pubSeq  atomic.Uint64 // publications ever; numbers them for FS.settled

	mu         sync.Mutex
	records    map[fs.Ino]*record
	handles    map[Handle]*handle
	lastHandle Handle
	making     map[*maker]struct{} // calls in flight that end with a new handle
	denied     deniedSet
	kernel     Kernel // may be nil
}

// New makes an FS. It starts nothing: see Run.
func New(meta fs.Meta, chunks fs.Chunks, o Options) (*FS, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.setDefaults()
	stage, err := openStaging(o.StagingDir)
	if err != nil {
		return nil, fmt.Errorf("vfs: %w", err)
	}
	f := &FS{
		meta: meta, chunks: chunks, opt: o,
		stage:   stage,
		puts:    make(chan struct{}, o.PutParallel),
		records: map[fs.Ino]*record{},
		handles: map[Handle]*handle{},
		making:  map[*maker]struct{}{},
	}
	f.memory.max = o.MemoryBytesMax
	f.buffers.New = func() any {
		b := make([]byte, fs.ChunkMax)
		return &b
	}
	f.queue.wake = make(chan struct{}, 1)
	return f, nil
}

// Close gives the staging space back, and with it all content that was not
// published: call Drain first. No method may be called afterwards.
func (f *FS) Close() error { return f.stage.close() }

// now is the time that a change made now is stamped with.
func (f *FS) now() fs.Time { return fs.TimeOf(f.opt.Now()) }

// look runs f on committed state, for answers that the kernel does not cache.
func (f *FS) look(ctx context.Context, see func(fs.View) error) error {
	_, err := f.meta.Read(ctx, see)
	return err
}

// do commits op and turns a decided failure into an error.
func (f *FS) do(ctx context.Context, name string, ino fs.Ino, entry string, op fs.Op) (fs.Result, error) {
	res, err := f.meta.Do(ctx, op)
	if err == nil && res.Kind != fs.OK {
		err = res.Kind
	}
	if err != nil {
		return res, failure(name, ino, entry, err)
	}
	return res, nil
}

// failure wraps err with what was attempted, and keeps its kind.
func failure(op string, ino fs.Ino, name string, err error) error {
	if err == nil || saysAll(op, ino, name, err) {
		return err
	}
	return &fs.Error{Op: op, Ino: ino, Name: name, Kind: fs.KindOf(err), Err: err}
}

// saysAll tells that err is a missing name that is described already. Web
// servers ask for names that are not there all the time; saying so allocates
// nothing.
func saysAll(op string, ino fs.Ino, name string, err error) bool {
	e, ok := err.(*fs.Error) //nolint:errorlint // what wraps it says something else
	return ok && e.Kind == fs.ErrNotFound && e.Op == op && e.Ino == ino && e.Name == name
}

// refuse is an error that vfs itself decides.
func refuse(op string, ino fs.Ino, kind fs.Kind) error {
	return &fs.Error{Op: op, Ino: ino, Kind: kind}
}
