package vfs

import (
	"context"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// bucketPoll is the time between two looks at whether the object store has a
// file's content.
const bucketPoll = 25 * time.Millisecond

// awaitBucket returns once the object store has all of the file's committed
// content, if Options.BucketMax asks for that. After that time it fails with
// ErrIO: the content is published and on the nodes' disks, and will get there,
// but nobody can say when.
func (f *FS) awaitBucket(ctx context.Context, r *record) error {
	if f.opt.BucketMax == 0 {
		return nil
	}
	deadline := time.Now().Add(f.opt.BucketMax)
	for {
		lacking, err := f.lacksBucket(ctx, r.ino)
		if fs.KindOf(err) == fs.ErrStale {
			return nil // it is deleted: nobody will miss it
		}
		if err != nil || !lacking {
			return err
		}
		if time.Now().After(deadline) {
			return &fs.Error{Op: "await the object store", Ino: r.ino, Kind: fs.ErrIO,
				Err: fmt.Errorf("it does not have all of the content after %v; that is published, on the nodes' disks, and will be uploaded later", f.opt.BucketMax)}
		}
		select {
		case <-time.After(bucketPoll):
		case <-ctx.Done():
			return &fs.Error{Op: "await the object store", Ino: r.ino, Kind: fs.ErrInterrupted, Err: ctx.Err()}
		}
	}
}

// lacksBucket tells whether any chunk of the file is not durable.
func (f *FS) lacksBucket(ctx context.Context, ino fs.Ino) (bool, error) {
	a, _, err := f.committed(ctx, ino)
	if err != nil || !a.IsRegular() {
		return false, err
	}
	for at := uint64(0); at < a.Size; at += syncWindow {
		var found fetch
		if _, err := found.plan(ctx, f, ino, at, syncWindow); err != nil {
			return false, err
		}
		for _, info := range found.infos {
			if !info.Durable {
				return true, nil
			}
		}
	}
	return false, nil
}
