package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// surveyShare bounds the part of the time that counting a long backlog takes:
// one tenth.
const surveyShare = 10

// Status tells how the upload stands.
func (u *Uploader) Status() UploadStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.status
	s.InFlight = len(u.busy) - len(u.done)
	return s
}

// survey counts the backlog again and again, which also dates its chunks.
func (u *Uploader) survey(ctx context.Context) {
	for pause := time.Duration(0); sleep(ctx, pause); {
		start := time.Now()
		if err := u.surveyOnce(ctx); err != nil && ctx.Err() == nil {
			u.note(fmt.Errorf("count the upload backlog: %w", err))
		}
		pause = max(u.o.Idle, surveyShare*time.Since(start))
	}
}

func (u *Uploader) surveyOnce(ctx context.Context) error {
	var after fs.ChunkID
	chunks, bytes := 0, uint64(0)
	var oldest, newest fs.Index
	for ctx.Err() == nil {
		page, err := u.o.Backlog.Undurable(after, backlogPage)
		if err != nil {
			return err
		}
		for _, info := range page {
			if info.Refs == 0 || info.Durable {
				continue
			}
			if chunks == 0 || info.ID.Gen < oldest {
				oldest = info.ID.Gen
			}
			chunks++
			bytes += uint64(info.Size)
			newest = max(newest, info.ID.Gen)
		}
		if len(page) < backlogPage {
			break
		}
		after = page[len(page)-1].ID
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	u.status.Chunks, u.status.Bytes, u.status.OldestAge = chunks, bytes, 0
	if chunks > 0 {
		u.ages.add(oldest, newest, now)
		u.status.OldestAge = u.ages.of(oldest, now)
	}
	return nil
}

// note records an error that stops nothing.
func (u *Uploader) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.noteLocked(err)
}

func (u *Uploader) noteLocked(err error) {
	u.status.LastError, u.status.LastErrorAt = err, time.Now()
}

// unreadable records that the content of a chunk cannot be had and puts it off.
func (u *Uploader) unreadable(info fs.ChunkInfo, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.noteLocked(fmt.Errorf("upload chunk %s: %w", info.ID, err))
	u.status.Unreadable++
	if _, again := u.later[info.ID]; !again {
		u.o.Log.Error("a chunk cannot be uploaded; it is tried again", "chunk", info.ID, "error", err)
	}
	if len(u.later) >= laterMax {
		clear(u.later) // costs some tries too early, nothing else
	}
	u.later[info.ID] = time.Now().Add(laterFor)
}

// storeFails records a failure of the store: everything waits.
func (u *Uploader) storeFails(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	u.noteLocked(err)
	if now.Before(u.notBefore) {
		return // a neighbour has failed for the same reason
	}
	if u.streak == 0 {
		u.status.FailingSince = now
		u.o.Log.Warn("the object store fails; content stays on the nodes' disks until it works again", "advice", object.Advice(err))
	}
	pause := u.o.BackoffMax
	if u.streak < 20 {
		pause = min(pause, u.o.BackoffMin<<u.streak)
	}
	u.streak++
	u.notBefore = now.Add(pause)
}

func (u *Uploader) storeWorks() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.streak == 0 {
		return
	}
	u.o.Log.Info("the object store works again", "failed_for", time.Since(u.status.FailingSince).Round(time.Second))
	u.streak, u.notBefore, u.status.FailingSince = 0, time.Time{}, time.Time{}
}

// paused tells whether no job may be handed out now. After a failure the store
// gets a pause, then one pack to try; the others follow when that has succeeded.
func (u *Uploader) paused() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Now().Before(u.notBefore) || u.streak > 0 && u.uploading > 0
}

// turn waits until this worker may ask the store; false when ctx ends. After a
// failure one asks, the others wait for what it finds.
func (u *Uploader) turn(ctx context.Context) bool {
	for ctx.Err() == nil {
		u.mu.Lock()
		wait := time.Until(u.notBefore)
		if wait <= 0 && (u.streak == 0 || u.trying == 0) {
			u.trying++
			u.mu.Unlock()
			return true
		}
		u.mu.Unlock()
		sleep(ctx, max(wait, u.o.Idle))
	}
	return false
}

func (u *Uploader) turnEnds() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.trying--
}

// recorded counts a pack that is done.
func (u *Uploader) recorded(chunks []fs.ChunkInfo, size int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = append(u.done, chunks...)
	u.status.Packs++
	u.status.PackBytes += uint64(size)
	u.status.Uploaded += uint64(len(chunks))
	for _, info := range chunks {
		u.status.UploadedBytes += uint64(info.Size)
		delete(u.later, info.ID)
	}
}
