package bulk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

// bucket is the tree that ordinary objects below a prefix stand for.
type bucket struct {
	objs   object.Plain
	o      Options
	filter filter
}

func openSource(o Options, f filter) (side, error) {
	if o.From.Dir == "" {
		return &bucket{o.From.Objs, o, f}, nil
	}
	return openLocal(o, f, o.From.Dir, false)
}

func openTarget(o Options, f filter) (target, error) {
	if o.To.Dir == "" {
		return &bucket{o.To.Objs, o, f}, nil
	}
	return openLocal(o, f, o.To.Dir, true)
}

func (b *bucket) close() error { return nil }

// What entries are whose objects do not say it.
const (
	fileMode = unix.S_IFREG | 0o644
	dirMode  = unix.S_IFDIR | 0o755
)

// walk implements side. Keys come in byte order, so all below a directory come
// in a row, and the directories that no object stands for can be put in front.
func (b *bucket) walk(ctx context.Context) iter.Seq2[*entry, error] {
	return func(yield func(*entry, error) bool) {
		w := keyWalk{yield: yield}
		if !yield(&entry{mode: dirMode}, nil) {
			return
		}
		empty := true
		for info, err := range b.objs.List(ctx) {
			if err != nil {
				yield(nil, &objectError{err: err, all: true})
				return
			}
			empty = false
			path, dir, err := pathOf(info.Key)
			if err == nil {
				if b.filter.left(path) {
					continue
				}
				err = w.conflict(path)
			}
			if err != nil {
				if !yield(&entry{path: info.Key}, fmt.Errorf("%w: %w", errKey, err)) {
					return
				}
				continue
			}
			// Heads tell the time in whole seconds, some servers' lists do not.
			e := &entry{path: path, mode: fileMode, key: info.Key, etag: info.ETag, size: info.Size, modified: info.Modified.Truncate(time.Second)}
			if dir {
				e.mode, e.size = dirMode, 0
			}
			if !w.emit(e) {
				return
			}
		}
		if empty && b.o.From.Dir == "" { // more likely a mistake in the URL than what somebody wants to have
			err := &object.Error{Op: object.OpList, Store: b.o.From.Name, Kind: object.NotExist,
				Hint: "nothing is below this prefix: correct the URL", Err: errors.New("the list is empty")}
			yield(nil, &objectError{err: err, all: true})
		}
	}
}

// keyWalk makes a tree of keys.
type keyWalk struct {
	yield func(*entry, error) bool
	dirs  []string // the open directories, each in the one before
	files []string // files whose names the last key begins with, each a prefix of the next
}

// conflict says that path would be in a directory that is a file: some stores
// have both "a" and "a/b". The file, which comes first, is the one that stays.
func (w *keyWalk) conflict(path string) error {
	for len(w.files) > 0 && !strings.HasPrefix(path, w.files[len(w.files)-1]) {
		w.files = w.files[:len(w.files)-1]
	}
	for _, f := range w.files {
		if path == f || inside(path, f) {
			return fmt.Errorf("there is also an object %s, and a file cannot be a directory too", Shown(f))
		}
	}
	return nil
}

// emit yields e and the directories on the way to it.
func (w *keyWalk) emit(e *entry) bool {
	for len(w.dirs) > 0 && !inside(e.path, w.dirs[len(w.dirs)-1]) {
		w.dirs = w.dirs[:len(w.dirs)-1]
	}
	at := 0
	if len(w.dirs) > 0 {
		at = len(w.dirs[len(w.dirs)-1]) + 1
	}
	for i := at; i < len(e.path); i++ {
		if e.path[i] == '/' {
			w.dirs = append(w.dirs, e.path[:i])
			if !w.yield(&entry{path: e.path[:i], mode: dirMode}, nil) {
				return false
			}
		}
	}
	if e.isDir() {
		w.dirs = append(w.dirs, e.path)
	} else {
		w.files = append(w.files, e.path)
	}
	return w.yield(e, nil)
}

// complete implements side with a HEAD request; for a link with its content.
func (b *bucket) complete(ctx context.Context, e *entry) error {
	if e.key == "" || e.head {
		return nil
	}
	info, err := b.objs.Stat(ctx, e.key)
	if err != nil {
		return &objectError{err: err}
	}
	b.know(e, info)
	if e.isSymlink() {
		c, err := b.get(ctx, e)
		if c != nil {
			c.close()
		}
		return err
	}
	return nil
}

// know takes in the head of an answer.
func (b *bucket) know(e *entry, info object.PlainInfo) {
	e.readMeta(info.Head.Meta)
	e.head, e.etag = true, info.ETag
	if !e.isDir() {
		e.size = info.Size
	}
	if e.known&knowsMtime == 0 && e.isRegular() && b.o.From.Dir == "" {
		e.mtime, e.known = info.Modified.UnixNano(), e.known|knowsMtime
	}
}

// open implements side.
func (b *bucket) open(ctx context.Context, e *entry) (*content, error) { return b.get(ctx, e) }

func (b *bucket) get(ctx context.Context, e *entry) (*content, error) {
	info, body, err := b.objs.Open(ctx, e.key)
	if err != nil {
		return nil, &objectError{err: err}
	}
	b.know(e, info)
	c := &content{stream: &checked{ctx: ctx, body: body, want: e.md5}, size: info.Size}
	if e.isRegular() {
		return c, nil
	}
	defer c.close()
	if e.isSymlink() {
		return &content{}, e.readTarget(c)
	}
	return &content{}, nil
}
