package vfs_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

// upload records every chunk of the file as durable.
func (b *bench) upload(ino fs.Ino) {
	b.Helper()
	var ids []fs.ChunkID
	_, err := b.meta.Read(b.ctx, func(v fs.View) error {
		ids = nil
		extents, err := v.Extents(ino, 0, fs.FileMax)
		for _, x := range extents {
			ids = append(ids, x.Chunk)
		}
		return err
	})
	must(b, err)
	_, err = b.meta.Do(b.ctx, fs.MarkDurable{Chunks: ids})
	must(b, err)
}

// TestCloseAwaitsTheBucket: with BucketMax, close and fsync return once the object
// store has the content, and no later than BucketMax.
func TestCloseAwaitsTheBucket(t *testing.T) {
	for what, content := range map[string]string{"inline": "abc", "a chunk": strings.Repeat("x", vfs.InlineDefault+1)} {
		for call, end := range map[string]func(b *bench, h vfs.Handle) error{
			"flush": func(b *bench, h vfs.Handle) error { return b.Flush(b.ctx, h) },
			"fsync": func(b *bench, h vfs.Handle) error { return b.Fsync(b.ctx, h) },
		} {
			t.Run(call+" of "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t, func(o *vfs.Options) { o.BucketMax = 10 * time.Second })
					ino, h := b.create("f")
					b.write(h, content, 0)
					time.AfterFunc(3*time.Second, func() { b.upload(ino) })
					start := time.Now()
					if err := end(b, h); err != nil || time.Since(start) < 3*time.Second {
						t.Errorf("%v after %v", err, time.Since(start))
					}
					start = time.Now()
					if err := end(b, h); err != nil || time.Since(start) != 0 {
						t.Errorf("again: %v after %v", err, time.Since(start))
					}
					b.write(h, "more", 0)
					start = time.Now()
					err := end(b, h)
					if took := time.Since(start); fs.KindOf(err) != fs.ErrIO || took < 10*time.Second || took > 11*time.Second {
						t.Errorf("without an upload: %v after %v", err, took)
					}
					ctx, cancel := context.WithCancel(b.ctx)
					time.AfterFunc(time.Second, cancel)
					if err := b.FS.Flush(ctx, h); fs.KindOf(err) != fs.ErrInterrupted {
						t.Errorf("interrupted: %v", err)
					}
					b.Release(h)
				})
			})
		}
	}
}
