package archive

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// due tells whether it is time for a snapshot.
func (l *lead) due() bool {
	now := time.Now()
	if l.job != nil || now.Before(l.notBefore) {
		return false
	}
	switch {
	case len(l.snaps) == 0, !l.chain.known(), !l.chain.anchored(l.snaps):
		return true
	case l.sinceRaw >= l.s.o.SnapshotBytes:
		return true
	}
	return l.changed && now.Sub(l.made) >= l.s.o.SnapshotEvery
}

// job is one snapshot on its way into the bucket, beside the segments.
type job struct {
	cancel context.CancelFunc
	pinned chan struct{} // closed once at and hash are known
	at     fs.Index      // of the state
	hash   uint64
	raw    int64         // of the log shipped since the snapshot before
	done   chan struct{} // closed at the end; what follows does not change then
	m      *Manifest
	kept   []*Manifest // in the bucket after it
	swept  bool        // nothing of older epochs is left there
	err    error
}

func (j *job) stop() {
	j.cancel()
	<-j.done
}

// startJob begins a snapshot and waits until it is decided which state it has, so
// that the log behind it can be shipped at once.
func (l *lead) startJob(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{cancel: cancel, pinned: make(chan struct{}), done: make(chan struct{}), m: &Manifest{
		Cluster: l.cluster, Name: l.s.o.Name, Epoch: l.epoch, Term: l.term,
		Next: l.chain.next, Prev: l.chain.prev, Node: l.s.o.Node, Time: time.Now().UTC(),
	}}
	l.job = j
	known := append([]*Manifest(nil), l.snaps...)
	go func() { // ends with the job; lead.end waits for it
		defer close(j.done)
		defer cancel()
		j.err = l.s.snapshot(ctx, j, known)
	}()
	select {
	case <-j.pinned:
	case <-j.done:
		select {
		case <-j.pinned: // it was quick
		default:
			return
		}
	}
	if !l.chain.known() {
		l.chain.begin(l.cluster, l.epoch, j.at, j.hash)
	}
	j.raw, l.sinceRaw, l.changed = l.sinceRaw, 0, false
}

// reap takes over a snapshot that is done.
func (l *lead) reap() {
	if l.job == nil {
		return
	}
	select {
	case <-l.job.done:
	default:
		return
	}
	j := l.job
	l.job = nil
	if j.kept != nil {
		l.snaps, l.made = j.kept, j.m.Time
		l.older = l.older && !j.swept
	}
	if l.jobErr = j.err; j.err != nil {
		pause := l.s.o.Backoff
		if j.at == 0 { // it did not come to the expensive part
			pause /= attachOften
		}
		l.notBefore, l.changed = time.Now().Add(pause), true
		l.sinceRaw += j.raw
	}
}

// snapshot puts a state into the bucket, then deletes what is not needed any more.
// Reading a large state costs seconds of a processor, so the bucket is asked first.
func (s *Shipper) snapshot(ctx context.Context, j *job, known []*Manifest) error {
	if err := s.o.Owner.Confirm(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(s.o.SpoolDir, 0o700); err != nil {
		return fmt.Errorf("spool a snapshot: %w", err)
	}
	dir, err := os.MkdirTemp(s.o.SpoolDir, "snapshot-")
	if err != nil {
		return fmt.Errorf("spool a snapshot: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := s.spool(ctx, j, dir); err != nil {
		return fmt.Errorf("spool a snapshot: %w", err)
	}
	size, err := s.putParts(ctx, j.m, dir)
	if err != nil {
		return err
	}
	if err := s.putManifest(ctx, j.m); err != nil {
		return err
	}
	s.update(func(st *Status) { st.Snapshots++; st.SnapshotBytes += uint64(size) })
	s.o.Log.Debug("a snapshot is in the bucket", "index", j.m.Index, "parts", len(j.m.Parts), "bytes", size)
	j.kept = append(known, j.m)
	kept, err := s.retain(ctx, j.m.Cluster, j.m.Epoch)
	if kept != nil {
		j.kept = kept
	}
	j.swept = err == nil && len(kept) > 1
	if err != nil { // the snapshot is there all the same
		s.o.Log.Warn("old snapshots and log could not be deleted from the bucket; the next snapshot does it", "err", err)
	}
	return nil
}

// spool writes the parts of the present state into dir. The state is held open
// meanwhile, so nothing here waits for the bucket.
func (s *Shipper) spool(ctx context.Context, j *job, dir string) error {
	var p partBuilder
	flush := func() error {
		b, err := p.take(partHead{Cluster: j.m.Cluster, Epoch: j.m.Epoch, Index: j.m.Index, Part: len(j.m.Parts)})
		if err != nil {
			return err
		}
		j.m.Parts = append(j.m.Parts, Part{Bytes: len(b), Sum: hashOf(b)})
		return os.WriteFile(spoolFile(dir, len(j.m.Parts)-1), b, 0o600)
	}
	begin := func(at fs.Index, hash uint64) error {
		j.m.Index, j.m.Hash = at, hash
		j.at, j.hash = at, hash
		if at == 0 {
			return errors.New("the state is empty")
		}
		if j.m.Next == 0 { // a run of the chain begins here
			j.m.Next, j.m.Prev = at+1, linkHash(j.m.Cluster, j.m.Epoch, at, hash)
		}
		close(j.pinned)
		return nil
	}
	err := s.o.Source.Export(begin, func(k, v []byte) error {
		p.add(k, v)
		if !p.full() {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return flush()
	})
	if err == nil && p.records > 0 {
		err = flush()
	}
	return err
}

func spoolFile(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("part-%05d", n)) }

func (s *Shipper) putParts(ctx context.Context, m *Manifest, dir string) (size int64, err error) {
	var random [6]byte
	rand.Read(random[:])
	nonce := hex.EncodeToString(random[:])
	for i := range m.Parts {
		p := &m.Parts[i]
		b, err := os.ReadFile(spoolFile(dir, i))
		if err != nil {
			return 0, fmt.Errorf("read the spool: %w", err)
		}
		var h partHead
		if _, err := unframe(partMagic, b, &h); err != nil || hashOf(b) != p.Sum {
			return 0, fmt.Errorf("read the spool: %w (%v)", ErrDamaged, err)
		}
		p.Key, p.Records = partKey(m.Epoch, m.Index, nonce, i), h.Records
		if err := s.put(ctx, p.Key, b); err != nil {
			return 0, err
		}
		size += int64(len(b))
	}
	return size, nil
}

// putManifest makes the snapshot one. If another leader has made one at the same
// index, that is as good; the parts of this one go with the next clean-up.
func (s *Shipper) putManifest(ctx context.Context, m *Manifest) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	key := manifestKey(m.Epoch, m.Index)
	err = s.put(ctx, key, b)
	if !errors.Is(err, object.Exists) {
		return err
	}
	got, err := get(ctx, s.o.Store, key)
	if err != nil {
		return err
	}
	theirs, err := decodeManifest(got)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if theirs.Cluster != m.Cluster || theirs.Index != m.Index || theirs.Hash != m.Hash {
		return fmt.Errorf("%s: %w", key, ErrDiverged)
	}
	*m = *theirs
	return nil
}

func (s *Shipper) put(ctx context.Context, key string, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return s.o.Store.Put(ctx, key, b, object.PutOptions{IfAbsent: true})
}
