package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/wpfs/wpfs/fs"
)

const (
	scrubPass    = 7 * 24 * time.Hour // rule R43
	scrubRateMin = 64 << 10           // bytes per second; a small cache is done sooner
	scrubSave    = time.Minute        // between two notes of how far it has come
	scrubLook    = time.Minute        // between two looks at whether a pass is due
	scrubNames   = 16                 // damaged chunks that are remembered by name
	mendQueue    = 256                // damaged chunks that wait to be mended
	mendMax      = 2 * time.Minute    // for one
)

// ScrubOptions for NewScrubber.
type ScrubOptions struct {
	Tier *Tier
	// BytesPerSecond of a pass that nobody asked for; 0: what makes a pass in
	// seven days.
	BytesPerSecond int64
	Log            *slog.Logger // default: discarded
}

// Scrubber reads every chunk on the disk again, slowly, and compares it with its
// name: a disk loses bits that nobody has asked for in years. What is damaged goes
// to quarantine and is fetched again, from another node or the object store,
// whoever has found it.
type Scrubber struct {
	o    ScrubOptions
	disk *Disk
	wake chan struct{} // has a token when a pass was asked for
	mend chan fs.Hash

	mu   sync.Mutex
	pass scrubState
	rate int64              // of the pass that was asked for; 0: none was
	stop context.CancelFunc // ends the pass that goes on; nil: none does
}

// scrubState is how far a pass has come; it survives restarts.
type scrubState struct {
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"` // zero while it goes on
	After    string    `json:"after"`    // the last chunk that was read
	Chunks   int64     `json:"chunks"`
	Bytes    int64     `json:"bytes"`
	Damaged  int64     `json:"damaged"`
	Mended   int64     `json:"mended"`
	Unread   int64     `json:"unread,omitempty"` // files that could not be read to their end
	Names    []string  `json:"names,omitempty"`  // of damaged chunks, the first ones
}

// ScrubStatus tells of the pass that goes on, or of the last one.
type ScrubStatus struct {
	Running           bool
	Asked             bool // by Start
	Started, Finished time.Time
	Chunks, Bytes     int64 // read
	TotalBytes        int64 // on the disk
	Damaged, Mended   int64
	Unread            int64    // files that could not be read; the next pass tries again
	Names             []string // of damaged chunks, the first ones
}

// NewScrubber makes a Scrubber. It starts nothing; see Run.
func NewScrubber(o ScrubOptions) (*Scrubber, error) {
	if o.Tier == nil {
		return nil, errors.New("cache: a scrubber needs a tier")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scrubber{o: o, disk: o.Tier.disk, wake: make(chan struct{}, 1), mend: make(chan fs.Hash, mendQueue)}
	s.load()
	return s, nil
}

// Found tells of a chunk whose file was damaged and is gone; Run fetches it again.
// It returns at once.
func (s *Scrubber) Found(h fs.Hash) {
	select {
	case s.mend <- h:
	default: // its next reader, or the next holder's question, brings it back
	}
}

// Start begins a pass now, at so many bytes per second, 0 for no bound, in place
// of one that goes on.
func (s *Scrubber) Start(bytesPerSecond int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass = scrubState{Started: time.Now()}
	if s.rate = bytesPerSecond; s.rate <= 0 {
		s.rate = 1 << 50
	}
	if s.stop != nil {
		s.stop()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status does not block.
func (s *Scrubber) Status() ScrubStatus {
	total := s.disk.index.Stats().Bytes
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pass
	return ScrubStatus{Running: !p.Started.IsZero() && p.Finished.IsZero(), Asked: s.rate > 0, Started: p.Started, Finished: p.Finished,
		Chunks: p.Chunks, Bytes: p.Bytes, TotalBytes: total, Damaged: p.Damaged, Mended: p.Mended, Unread: p.Unread, Names: slices.Clone(p.Names)}
}

// Run scrubs and mends until ctx ends; it returns nil then.
func (s *Scrubber) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case h := <-s.mend:
				if err := s.mendOne(ctx, h); err != nil && ctx.Err() == nil {
					s.o.Log.Error("a damaged chunk cannot be fetched again yet", "chunk", h, "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for ctx.Err() == nil {
		if !s.due() {
			select {
			case <-s.wake:
			case <-time.After(scrubLook):
			case <-ctx.Done():
			}
			continue
		}
		s.passOnce(ctx)
	}
	s.save()
	wg.Wait()
	return nil
}

// due tells whether there is something to read, and begins a pass if it is time
// for the next one.
func (s *Scrubber) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pass
	if !p.Started.IsZero() && p.Finished.IsZero() {
		return true
	}
	if time.Since(p.Started) < scrubPass {
		return false
	}
	s.pass = scrubState{Started: time.Now()}
	return true
}

// passOnce goes on with the pass until its end, another one, or the end of ctx.
func (s *Scrubber) passOnce(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s.mu.Lock()
	s.stop = stop
	mine, after := s.pass.Started, s.pass.After
	limit := rate.NewLimiter(s.speed(), hashBuffer)
	s.mu.Unlock()
	saved := time.Now()
	from, _ := parseHash(after)
	for i := int(from[0]); i < shards; i++ {
		names, err := s.disk.o.files.List(s.disk.path(chunkDir, hex.EncodeToString([]byte{byte(i)})))
		if err != nil {
			s.o.Log.Error("the scrub cannot list a part of the cache", "part", i, "error", err)
			continue
		}
		slices.Sort(names)
		for _, name := range names {
			h, ok := parseHash(name)
			if !ok || after != "" && bytes.Compare(h[:], from[:]) <= 0 {
				continue
			}
			n, damaged, err := s.disk.scrub(ctx, h, limit)
			if err != nil && ctx.Err() == nil {
				s.o.Log.Error("a chunk's file cannot be read; it stays, and the next scrub tries again. Check the disk", "chunk", h, "error", err)
			}
			if ctx.Err() != nil || !s.noted(ctx, mine, h, n, damaged, err != nil) {
				return
			}
			if time.Since(saved) >= scrubSave {
				s.save()
				saved = time.Now()
			}
		}
	}
	s.finish(mine)
}

// speed is called with mu held.
func (s *Scrubber) speed() rate.Limit {
	switch {
	case s.rate > 0:
		return rate.Limit(s.rate)
	case s.o.BytesPerSecond > 0:
		return rate.Limit(s.o.BytesPerSecond)
	}
	return max(scrubRateMin, rate.Limit(float64(s.disk.index.Stats().Bytes)/scrubPass.Seconds()))
}

// noted counts a chunk that was read, and mends it; false if another pass has
// begun.
func (s *Scrubber) noted(ctx context.Context, mine time.Time, h fs.Hash, n int64, damaged, unread bool) bool {
	mended := damaged && s.mendOne(ctx, h) == nil
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pass
	if !p.Started.Equal(mine) {
		return false
	}
	p.After = h.String()
	p.Chunks++
	p.Bytes += n
	if unread {
		p.Unread++
	}
	if damaged {
		p.Damaged++
		if len(p.Names) < scrubNames {
			p.Names = append(p.Names, h.String())
		}
	}
	if mended {
		p.Mended++
	}
	return true
}

func (s *Scrubber) finish(mine time.Time) {
	s.mu.Lock()
	if !s.pass.Started.Equal(mine) {
		s.mu.Unlock()
		return
	}
	s.pass.Finished, s.rate = time.Now(), 0
	p := s.pass
	s.mu.Unlock()
	s.save()
	s.o.Log.Info("the cache was read once over", "chunks", p.Chunks, "bytes", p.Bytes, "damaged", p.Damaged, "mended", p.Mended, "unread", p.Unread,
		"took", p.Finished.Sub(p.Started).Round(time.Second))
}

// mendOne brings a damaged chunk back, if anything cites it.
func (s *Scrubber) mendOne(ctx context.Context, h fs.Hash) error {
	ctx, cancel := context.WithTimeout(ctx, mendMax)
	defer cancel()
	infos, err := s.o.Tier.chunks(h)
	if err != nil || len(infos) == 0 || s.disk.isGood(h) {
		return err // a chunk that nothing cites needs no copy
	}
	if _, err := s.o.Tier.fill(ctx, infos[len(infos)-1], fs.ErrCorrupt); err != nil {
		return err
	}
	if !s.disk.isGood(h) {
		return fail("mend chunk", h, errors.New("there is another copy, but it cannot be kept here"))
	}
	s.o.Log.Info("a damaged chunk was fetched again", "chunk", infos[len(infos)-1].ID)
	return nil
}

func (s *Scrubber) load() {
	b, err := os.ReadFile(s.disk.path(scrubFile))
	if err != nil || json.Unmarshal(b, &s.pass) != nil {
		s.pass = scrubState{} // it begins anew
	}
}

// save notes how far the pass has come. A note that is lost costs reading again.
func (s *Scrubber) save() {
	s.mu.Lock()
	b, err := json.Marshal(s.pass)
	s.mu.Unlock()
	temp := s.disk.path(tempDir, scrubFile)
	if err == nil {
		err = os.WriteFile(temp, b, 0o600)
	}
	if err == nil {
		err = os.Rename(temp, s.disk.path(scrubFile))
	}
	if err != nil {
		s.o.Log.Warn("how far the scrub has come cannot be noted", "error", err)
	}
}

// isGood tells whether there is a file for h that is right, as far as is known.
func (d *Disk) isGood(h fs.Hash) bool {
	c, err := d.verified(h)
	if err == nil {
		d.open.release(c)
	}
	return err == nil
}

// scrub reads a chunk's file from the disk, whatever is known of it, no faster
// than limit. It returns how many bytes it has read, and whether they were wrong:
// then the file is not used any more. A file that cannot be read stays: a disk that
// does not answer, or a process without descriptors, says nothing about its bytes.
func (d *Disk) scrub(ctx context.Context, h fs.Hash, limit *rate.Limiter) (n int64, damaged bool, err error) {
	f, err := d.o.files.Open(d.chunkPath(h))
	if errors.Is(err, os.ErrNotExist) || d.closed.Load() {
		return 0, false, nil
	}
	var st stat
	if err == nil {
		defer f.Close()
		if st, err = f.Stat(); err == nil {
			f.Forget()
			err = d.hashSlowly(ctx, f, h, st.size, limit)
			f.Forget()
		}
	}
	if err == nil {
		return st.size, false, nil
	}
	if !errors.Is(err, fs.ErrCorrupt) {
		return 0, false, err
	}
	// A handle that is open has read pages that may have been good.
	err = d.quarantine(&chunkFile{hash: h, stat: st}, err)
	d.open.drop(h)
	if err != nil {
		d.o.Log.Error("a damaged file stays where it is", "chunk", h, "error", err)
	}
	return st.size, true, nil
}

func (d *Disk) hashSlowly(ctx context.Context, f file, h fs.Hash, size int64, limit *rate.Limiter) error {
	if size == 0 || size > fs.ChunkMax {
		return fmt.Errorf("%w: it has %d bytes", fs.ErrCorrupt, size)
	}
	sum := sha256.New()
	buf := hashBuffers.Get().(*[hashBuffer]byte)
	defer hashBuffers.Put(buf)
	for off := int64(0); off < size; {
		p := buf[:min(hashBuffer, size-off)]
		if err := limit.WaitN(ctx, len(p)); err != nil {
			return err
		}
		if n, err := f.ReadAt(p, off); n < len(p) {
			return unexpected(err)
		}
		sum.Write(p)
		off += int64(len(p))
	}
	if got := fs.Hash(sum.Sum(nil)); got != h {
		return fmt.Errorf("%w: the bytes have hash %s", fs.ErrCorrupt, got)
	}
	return nil
}
