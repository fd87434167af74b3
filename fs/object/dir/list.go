package dir

import (
	"context"
	"errors"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/wpfs/wpfs/fs/object"
)

// List implements object.Store. It reads one directory at a time, so its memory
// is bounded by the largest one.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if err := object.CheckPrefix(prefix); err != nil {
			yield(object.Info{}, s.fail(object.OpList, prefix, object.Invalid, err))
			return
		}
		w := walk{s: s, ctx: ctx, prefix: prefix, after: after, yield: yield}
		err := w.dir("")
		if err == nil {
			err = s.checkRoot(object.OpList, prefix)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(object.Info{}, err)
		}
	}
}

// errStop ends a walk whose consumer has had enough.
var errStop = errors.New("stop")

type walk struct {
	s             *Store
	ctx           context.Context
	prefix, after string
	yield         func(object.Info, error) bool
}

// dir walks the directory whose keys start with base ("" or ending in a slash)
// in byte order of whole keys. A directory sorts as its name with the slash:
// "a-b" is before "a/b", although "a" is before "a-b".
func (w *walk) dir(base string) error {
	if err := w.ctx.Err(); err != nil {
		return w.s.fail(object.OpList, w.prefix, object.Interrupted, err)
	}
	entries, err := os.ReadDir(w.s.path(base))
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return w.s.wrap(object.OpList, w.prefix, err)
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		key := base + e.Name()
		if e.IsDir() {
			key += "/"
		}
		if w.wants(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := w.visit(key); err != nil {
			return err
		}
	}
	return nil
}

// wants tells whether key, or for a directory anything below it, is asked for.
func (w *walk) wants(key string) bool {
	if !strings.HasSuffix(key, "/") {
		return key > w.after && strings.HasPrefix(key, w.prefix)
	}
	inPrefix := strings.HasPrefix(key, w.prefix) || strings.HasPrefix(w.prefix, key)
	return inPrefix && (key > w.after || strings.HasPrefix(w.after, key))
}

func (w *walk) visit(key string) error {
	if strings.HasSuffix(key, "/") {
		return w.dir(key)
	}
	if object.CheckKey(key) != nil {
		return nil // not ours
	}
	if err := w.ctx.Err(); err != nil {
		return w.s.fail(object.OpList, w.prefix, object.Interrupted, err)
	}
	info, err := os.Lstat(w.s.path(key))
	if isMissing(err) || err == nil && !info.Mode().IsRegular() {
		return nil // deleted meanwhile, or never an object
	}
	if err != nil {
		return w.s.wrap(object.OpList, w.prefix, err)
	}
	if !w.yield(object.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
		return errStop
	}
	return nil
}
