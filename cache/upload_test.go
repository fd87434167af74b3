package cache

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/cache/pack"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/retry"
	"github.com/wpfs/wpfs/fs/object/seal"
)

// site is a node with an uploader over a bucket that can fail.
type site struct {
	t      *testing.T
	tier   *Tier
	disk   *Disk
	bucket *mem.Store
	faults *faulty.Store
	back   *backlog
	up     *Uploader
	log    bytes.Buffer
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, bucket: mem.New()}
	s.faults = faulty.New(s.bucket)
	c := newCluster(t, "a")
	s.disk = c.disks["a"]
	s.tier = tierOf(t, c, "a", func(o *TierOptions) { o.Store = s.faults })
	s.back = newBacklog(t, s.holds)
	s.restart()
	return s
}

// restart makes a new uploader, as the next process would.
func (s *site) restart() {
	s.t.Helper()
	up, err := NewUploader(UploaderOptions{
		Store: retry.New(s.faults, retry.Options{}), Backlog: s.back, Chunks: s.tier,
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.up = up
}

// puts counts the requests that put something.
func (s *site) puts() (n int) {
	for _, call := range s.faults.Calls() {
		if call.Op == object.OpPut {
			n++
		}
	}
	return n
}

// holds looks into the bucket itself.
func (s *site) holds(info fs.ChunkInfo) error {
	b, err := s.bucket.Get(context.Background(), pack.Key(info.Place.Pack), int64(info.Place.Off), int64(info.Place.Len))
	if err != nil {
		return err
	}
	_, err = pack.Open(b, info.ID)
	return err
}

// add makes n chunks, every third inline, with generations from gen.
func (s *site) add(gen fs.Index, n int) (infos []fs.ChunkInfo) {
	s.t.Helper()
	for i := range n {
		b := content(int(gen)+i, 100+i)
		info := infoOf(b, gen+fs.Index(i), "a")
		if i%3 == 0 {
			info.Inline = b
		} else {
			mustPut(s.t, s.disk, b, true)
		}
		infos = append(infos, info)
	}
	s.back.add(infos...)
	return infos
}

// objects counts the packs in the bucket.
func (s *site) objects() int {
	n := 0
	for _, err := range s.bucket.List(context.Background(), pack.Prefix, "") {
		if err != nil {
			s.t.Fatal(err)
		}
		n++
	}
	return n
}

// drained waits, on fake time, until nothing is left.
func (s *site) drained(most time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(most); s.back.left() > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%d chunks are left after %v: %+v", s.back.left(), most, s.up.Status())
		}
	}
}

// bubble runs f on fake time.
func bubble(t *testing.T, f func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newSite(t)) })
}

func TestUploaderDrains(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		const n = 3*backlogPage + 17
		s.add(1, n)
		stop := running(t, s.up.Run)
		s.drained(10 * time.Second)
		time.Sleep(2 * time.Second)
		st := s.up.Status()
		if st.Uploaded != n || st.Chunks != 0 || st.Bytes != 0 || st.InFlight != 0 || st.LastError != nil || st.OldestAge != 0 {
			t.Errorf("status %+v", st)
		}
		if s.back.markedOften() != 0 {
			t.Errorf("%d recorded twice", s.back.markedOften())
		}
		// About 1.3 MB that hardly compress: they all fit into one pack.
		if s.objects() != 1 || s.puts() != 1 || st.Packs != 1 || len(s.back.stored()) != 1 {
			t.Errorf("%d packs, %d puts, status %+v", s.objects(), s.puts(), st)
		}
		stop()
	})
}

// TestUploaderSortsBySize: large chunks go alone, small ones together, and no
// pack is too large.
// TestPutOnceOverDamage: what an earlier attempt left is replaced if it is damaged,
// encrypted or not.
func TestPutOnceOverDamage(t *testing.T) {
	bucket := mem.New()
	for what, st := range map[string]object.Store{"plain": bucket, "sealed": seal.New(bucket, seal.Options{Keys: seal.Keys{{1}}})} {
		if err := st.Put(t.Context(), what, []byte("content"), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		b, err := bucket.Get(t.Context(), what, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := bucket.Put(t.Context(), what, b, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := putOnce(t.Context(), st, what, []byte("content")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got, err := st.Get(t.Context(), what, 0, -1); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

func TestUploaderSortsBySize(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		var want uint64
		for i, size := range []int{fs.ChunkMax, pack.Alone, pack.Alone - 1, 500 << 10, 100, 2 << 20} {
			b := content(100+i, size)
			mustPut(t, s.disk, b, true)
			s.back.add(infoOf(b, fs.Index(1+i), "a"))
			want += uint64(size)
		}
		for i := range 40 { // 20 MiB of small ones
			b := content(200+i, 512<<10)
			mustPut(t, s.disk, b, true)
			s.back.add(infoOf(b, fs.Index(100+i), "a"))
			want += 512 << 10
		}
		stop := running(t, s.up.Run)
		s.drained(20 * time.Second)
		stop()
		alone := 0
		for _, p := range s.back.stored() {
			large := p.Chunks[0].Len > pack.Alone
			if large && len(p.Chunks) > 1 || p.Size > fs.PackMax {
				t.Errorf("a pack of %d bytes and %d chunks, the first of %d", p.Size, len(p.Chunks), p.Chunks[0].Len)
			}
			if large {
				alone++
			}
		}
		if alone != 3 || len(s.back.stored()) > 3+5 {
			t.Errorf("%d alone, %d packs", alone, len(s.back.stored()))
		}
		if st := s.up.Status(); st.UploadedBytes != want || st.Packs != uint64(len(s.back.stored())) {
			t.Errorf("status %+v, want %d bytes", st, want)
		}
	})
}

// TestUploaderLingers: small chunks that keep coming wait for company, but not
// longer than they may.
func TestUploaderLingers(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		stop := running(t, s.up.Run)
		var worst time.Duration
		const n = 200
		for i := range n {
			b := content(i, 1000)
			info := infoOf(b, fs.Index(1+i))
			info.Inline = b
			s.back.add(info)
			time.Sleep(50 * time.Millisecond)
			worst = max(worst, s.up.Status().OldestAge)
		}
		s.drained(6 * time.Second)
		stop()
		// 10 s of writes, one pack in each 3 s or so.
		if packs := len(s.back.stored()); packs > 6 || worst > 5*time.Second {
			t.Errorf("%d packs of %d chunks, the oldest waited %v", packs, n, worst)
		}
	})
}

// TestUploaderChoosesItsChunks: not what is too young, not what nobody cites,
// not what another node sees to.
func TestUploaderChoosesItsChunks(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		infos := s.add(1, 3)
		dead, foreign := infos[1], infos[2]
		dead.Refs = 0
		s.back.add(dead)
		s.back.set(func() { s.back.mine = func(i fs.ChunkInfo) bool { return i.ID != foreign.ID } })
		start := time.Now()
		stop := running(t, s.up.Run)
		for s.objects() == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("the first upload came after %v", took)
		}
		time.Sleep(time.Minute)
		if s.objects() != 1 || s.back.left() != 1 {
			t.Errorf("%d objects, %d left", s.objects(), s.back.left())
		}
		if st := s.up.Status(); st.Chunks != 1 || st.Bytes != uint64(foreign.Size) || st.OldestAge < time.Minute {
			t.Errorf("status %+v", st)
		}
		// The other node is gone: it is our turn.
		s.back.set(func() { s.back.mine = func(fs.ChunkInfo) bool { return true } })
		s.drained(6 * time.Second)
		// A tail that is replaced every half second is never uploaded.
		for gen := fs.Index(100); gen < 120; gen++ {
			b := content(int(gen), 50)
			info := infoOf(b, gen)
			info.Inline = b
			s.back.add(info)
			time.Sleep(400 * time.Millisecond)
			info.Refs = 0
			s.back.add(info)
		}
		if s.objects() != 2 {
			t.Errorf("%d objects: tails were uploaded", s.objects())
		}
		stop()
	})
}

// TestUploaderThroughFaults: whatever the bucket does, after it heals everything
// is there and recorded, and at no time is anything recorded that is not there
// (backlog checks that).
func TestUploaderThroughFaults(t *testing.T) {
	for _, row := range []struct {
		name   string
		faults []faulty.Fault
	}{
		{"answers are lost", []faulty.Fault{{Op: object.OpPut, Every: 2, Do: faulty.LoseAnswer}}},
		{"all answers are lost", []faulty.Fault{{Op: object.OpPut, Do: faulty.LoseAnswer}}},
		{"busy", []faulty.Fault{{Kind: object.Busy}}},
		{"every third call is busy", []faulty.Fault{{Every: 3, Kind: object.Busy}}},
		{"hangs", []faulty.Fault{{Do: faulty.Hang}}},
		{"credentials are wrong", []faulty.Fault{{Kind: object.Credentials}}},
		{"bucket is gone", []faulty.Fault{{Kind: object.NoBucket}}},
		{"full", []faulty.Fault{{Op: object.OpPut, Kind: object.NoSpace}}},
		{"comparisons are damaged", []faulty.Fault{
			{Op: object.OpPut, Every: 2, Do: faulty.LoseAnswer}, {Op: object.OpGet, Every: 2, Do: faulty.FlipBit}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *site) {
				s.add(1, 40)
				for _, f := range row.faults {
					s.faults.Inject(f)
				}
				stop := running(t, s.up.Run)
				time.Sleep(10 * time.Minute)
				s.faults.Heal()
				s.add(1000, 10)
				s.drained(uploadTimeout + time.Minute) // a hanging upload ends by its limit
				time.Sleep(5 * time.Second)
				st := s.up.Status()
				if st.Chunks != 0 || !st.FailingSince.IsZero() {
					t.Errorf("status %+v", st)
				}
				if s.back.left() != 0 || s.back.markedOften() != 0 {
					t.Errorf("%d left, %d recorded twice", s.back.left(), s.back.markedOften())
				}
				stop()
			})
		})
	}
}

// TestOutageIsCheapAndSaidOnce: hours without a bucket cost few calls, two log
// lines, and the status says since when.
func TestOutageIsCheapAndSaidOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.add(1, 200)
		s.faults.Inject(faulty.Fault{Kind: object.Unreachable})
		stop := running(t, s.up.Run)
		time.Sleep(time.Hour)
		st := s.up.Status()
		if st.Chunks != 200 || st.FailingSince.IsZero() || time.Since(st.FailingSince) < 59*time.Minute || !errors.Is(st.LastError, object.Unreachable) {
			t.Errorf("status %+v", st)
		}
		if st.OldestAge < 59*time.Minute {
			t.Errorf("the oldest is %v old", st.OldestAge)
		}
		// One upload of 5 attempts in each of 120 pauses and the first few.
		if n := len(s.faults.Calls()); n > 5*130 {
			t.Errorf("%d calls in an hour", n)
		}
		s.faults.Heal()
		s.drained(2 * time.Minute)
		stop()
		if fails, works := strings.Count(s.log.String(), "the object store fails"), strings.Count(s.log.String(), "object store works again"); fails != 1 || works != 1 {
			t.Errorf("said %d and %d times:\n%s", fails, works, &s.log)
		}
	})
}

// TestRestartUploadsAnew: a process that was killed between the upload and its
// record left an object that nobody knows; its chunks are still in the backlog.
func TestRestartUploadsAnew(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.add(1, 30)
		s.back.set(func() { s.back.refuse = 1 << 30 }) // the cluster has no leader
		stop := running(t, s.up.Run)
		time.Sleep(time.Minute)
		if s.objects() != 1 || s.back.left() != 30 {
			t.Errorf("%d objects, %d left", s.objects(), s.back.left())
		}
		if st := s.up.Status(); st.LastError == nil || st.Uploaded != 0 || st.InFlight != 30 {
			t.Errorf("status %+v", st)
		}
		stop()
		s.back.set(func() { s.back.refuse = 0 })
		s.restart()
		stop = running(t, s.up.Run)
		s.drained(10 * time.Second)
		stop()
		if s.objects() != 2 {
			t.Errorf("%d objects", s.objects())
		}
	})
}

// TestPackThatNobodyRecords is given up before the collector may take it for an
// orphan, and its chunks go into another one.
func TestPackThatNobodyRecords(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.up.o.Life = time.Hour
		s.add(1, 30)
		s.back.set(func() { s.back.refuse = 1 << 30 })
		stop := running(t, s.up.Run)
		time.Sleep(59 * time.Minute)
		if s.objects() != 1 {
			t.Errorf("%d objects in the first hour", s.objects())
		}
		time.Sleep(10 * time.Minute)
		if s.objects() != 2 {
			t.Errorf("%d objects after it", s.objects())
		}
		s.back.set(func() { s.back.refuse = 0 })
		s.drained(time.Minute)
		stop()
		if p := s.back.stored(); len(p) != 1 || len(p[0].Chunks) != 30 {
			t.Errorf("recorded: %+v", p)
		}
	})
}

// TestLeaderAwayDoesNotUploadTwice: a record that is refused is repeated, the
// upload is not.
func TestLeaderAwayDoesNotUploadTwice(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.add(1, 20)
		s.back.refuse = 5
		stop := running(t, s.up.Run)
		s.drained(time.Minute)
		stop()
		if n := len(s.faults.Calls()); n != 1 {
			t.Errorf("%d calls of the store for one pack", n)
		}
	})
}

// TestPutOnce: what is there under a pack's own name came from an attempt whose
// answer was lost. It is good, or it is replaced.
func TestPutOnce(t *testing.T) {
	b := content(1, 1000)
	for _, row := range damages {
		t.Run(row.name, func(t *testing.T) {
			st := mem.New()
			if err := st.Put(t.Context(), "k", row.do(bytes.Clone(b)), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := putOnce(t.Context(), st, "k", b); err != nil {
				t.Fatal(err)
			}
			got, err := st.Get(t.Context(), "k", 0, -1)
			wantBytes(t, "the object", got, err, b)
		})
	}
	st := faulty.New(mem.New())
	for range 2 {
		if err := putOnce(t.Context(), st, "k", b); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(st.Calls()); n != 3 {
		t.Errorf("%d calls for a put, and one that compares", n)
	}
}

// TestUnreadableChunkHoldsUpNobody: it is reported once, tried again now and
// then, and uploaded when its content is back.
func TestUnreadableChunkHoldsUpNobody(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		lost := content(5000, 100)
		s.back.add(infoOf(lost, 1, "a"))
		wrong := infoOf(content(5001, 100), 2)
		wrong.Inline = content(5002, 100) // not what the name says
		impossible := fs.ChunkInfo{ID: fs.ChunkID{Gen: 3}, Refs: 1}
		s.back.add(wrong, impossible)
		s.add(10, 20)
		stop := running(t, s.up.Run)
		time.Sleep(time.Minute)
		if s.back.left() != 3 || s.objects() != 1 {
			t.Errorf("%d left, %d objects", s.back.left(), s.objects())
		}
		st := s.up.Status()
		if !st.FailingSince.IsZero() || st.LastError == nil || st.Unreadable < 9 || st.Unreadable > 21 {
			t.Errorf("status %+v", st)
		}
		mustPut(t, s.disk, lost, true)
		time.Sleep(2 * laterFor)
		if s.back.left() != 2 {
			t.Errorf("%d left", s.back.left())
		}
		stop()
		if n := strings.Count(s.log.String(), "cannot be uploaded"); n != 3 {
			t.Errorf("said %d times:\n%s", n, &s.log)
		}
	})
}

// TestRunEndsWhileEverythingHangs: at once, and nothing is marked.
func TestRunEndsWhileEverythingHangs(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.add(1, 100)
		s.faults.Inject(faulty.Fault{Do: faulty.Hang})
		stop := running(t, s.up.Run)
		for s.faults.Hanging() < 1 {
			time.Sleep(10 * time.Millisecond)
		}
		start := time.Now()
		stop()
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if s.back.left() != 100 || s.up.Status().InFlight != 0 {
			t.Errorf("%d left, status %+v", s.back.left(), s.up.Status())
		}
	})
}

func TestBacklogThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, s *site) {
		s.add(1, 5)
		s.back.set(func() { s.back.failing = errors.New("closed") })
		stop := running(t, s.up.Run)
		time.Sleep(10 * time.Second)
		if st := s.up.Status(); st.LastError == nil || s.objects() != 0 {
			t.Errorf("status %+v", st)
		}
		s.back.set(func() { s.back.failing = nil })
		s.drained(6 * time.Second)
		stop()
	})
}

func TestNewUploaderRefuses(t *testing.T) {
	if _, err := NewUploader(UploaderOptions{}); err == nil {
		t.Error("an uploader without anything is made")
	}
}
