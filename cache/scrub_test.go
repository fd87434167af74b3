package cache

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/mem"
)

// scrubbed is a node of a cluster with a scrubber.
type scrubbed struct {
	*cluster
	tier  *Tier
	cited map[fs.Hash]fs.ChunkInfo
}

func newScrubbed(t *testing.T, store object.Store) *scrubbed {
	c := newCluster(t, "a", "b")
	s := &scrubbed{cluster: c, cited: map[fs.Hash]fs.ChunkInfo{}}
	s.tier = tierOf(t, c, "a", func(o *TierOptions) { o.Store, o.Chunks = store, s.chunks })
	return s
}

func (s *scrubbed) chunks(h fs.Hash) ([]fs.ChunkInfo, error) {
	if info, ok := s.cited[h]; ok {
		return []fs.ChunkInfo{info}, nil
	}
	return nil, nil
}

func (s *scrubbed) scrubber(t *testing.T, rate int64) *Scrubber {
	t.Helper()
	sc, err := NewScrubber(ScrubOptions{Tier: s.tier, BytesPerSecond: rate})
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

// TestScrubMends: every kind of damage is found although the files were good when
// this process read them, goes to quarantine, and is fetched again; what nobody
// has is reported and nothing wrong is served.
func TestScrubMends(t *testing.T) {
	for _, row := range damages {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScrubbed(t, mem.New())
				var all [4][]byte
				for i := range all {
					b := content(i, 3000)
					all[i] = b
					h := mustPut(t, s.disks["a"], b, true)
					s.cited[h] = infoOf(b, 1, "a", "b")
					got, err := readAll(s.disks["a"], h, len(b))
					wantBytes(t, "before", got, err, b)
				}
				mustPut(t, s.disks["b"], all[0], true) // a peer has the first
				uncited, lost := hashOf(all[1]), hashOf(all[2])
				delete(s.cited, uncited)
				for _, b := range all[:3] {
					damage(t, s.disks["a"], hashOf(b), row.do)
				}
				sc := s.scrubber(t, 0)
				sc.Start(0)
				stop := running(t, sc.Run)
				time.Sleep(time.Minute)
				st := sc.Status()
				if st.Running || st.Chunks != 4 || st.Damaged != 3 || st.Mended != 2 || len(st.Names) != 3 || !slices.Contains(st.Names, lost.String()) {
					t.Errorf("%+v", st)
				}
				got, err := readAll(s.disks["a"], hashOf(all[0]), 3000)
				wantBytes(t, "a mended chunk", got, err, all[0])
				for _, h := range []fs.Hash{uncited, lost} {
					if _, err := readAll(s.disks["a"], h, 3000); fs.KindOf(err) != fs.ErrNotFound {
						t.Errorf("a damaged chunk without another copy: %v", err)
					}
				}
				if n := s.disks["a"].Stats().Quarantined; n != 3 {
					t.Errorf("%d files in quarantine", n)
				}
				// The copy is there later: whoever finds the damage has it mended.
				mustPut(t, s.disks["b"], all[2], true)
				sc.Found(lost)
				time.Sleep(time.Minute)
				if !s.disks["a"].Has(lost) {
					t.Error("a chunk that was found damaged is not fetched again")
				}
				stop()
				checkIndex(t, s.disks["a"])
			})
		})
	}
}

// TestScrubOfUnreadableFiles: a file that cannot be opened or read is counted and stays
// where it is, and the next pass tries again.
func TestScrubOfUnreadableFiles(t *testing.T) {
	for _, step := range []string{"open", "fstat", "read"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScrubbed(t, mem.New())
				d := s.disks["a"]
				h := mustPut(t, d, content(1, 3000), true)
				faults, works := newFaultFiles(0), d.o.files
				faults.fails = func(op, _ string) error {
					if op == step {
						return errFault
					}
					return nil
				}
				d.o.files = faults
				sc := s.scrubber(t, 0)
				sc.Start(0)
				stop := running(t, sc.Run)
				time.Sleep(time.Minute)
				if st := sc.Status(); st.Running || st.Unread != 1 || st.Damaged != 0 {
					t.Errorf("%+v", st)
				}
				stop()
				d.o.files = works
				if st := d.Stats(); !d.Has(h) || st.Quarantined != 0 || st.Corrupt != 0 {
					t.Errorf("stats %+v, there: %t", st, d.Has(h))
				}
				sc.Start(0)
				stop = running(t, sc.Run)
				time.Sleep(time.Minute)
				if st := sc.Status(); st.Running || st.Unread != 0 || st.Bytes != 3000 {
					t.Errorf("the next pass: %+v", st)
				}
				stop()
			})
		})
	}
}

// TestScrubGoesOn: a pass keeps to its rate, goes on where the process before has
// ended, and the next one begins a week after it began.
func TestScrubGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, mem.New())
		const chunks, size = 50, 100 << 10
		for i := range chunks {
			mustPut(t, s.disks["a"], content(i, size), true)
		}
		read := int64(0)
		for range 5 { // ten seconds each at ten chunks a second would be all
			sc := s.scrubber(t, size)
			if sc.Status().Bytes != read {
				t.Errorf("it goes on at %d, want %d", sc.Status().Bytes, read)
			}
			stop := running(t, sc.Run)
			time.Sleep(8 * time.Second)
			stop()
			st := sc.Status()
			// The first 256 KiB of each run are a burst.
			if n := st.Bytes - read; n < 7*size || n > 12*size {
				t.Errorf("%d bytes read in 8 s at %d a second", n, size)
			}
			read = st.Bytes
		}
		sc := s.scrubber(t, size)
		stop := running(t, sc.Run)
		time.Sleep(time.Minute)
		first := sc.Status()
		if first.Running || first.Chunks != chunks || first.Damaged != 0 {
			t.Errorf("%+v", first)
		}
		time.Sleep(6 * 24 * time.Hour)
		if st := sc.Status(); st.Started != first.Started {
			t.Error("the next pass has begun too early")
		}
		time.Sleep(24*time.Hour + 2*time.Minute)
		if st := sc.Status(); st.Started.Equal(first.Started) || st.Chunks != chunks {
			t.Errorf("no next pass after a week: %+v", st)
		}
		stop()
	})
}

// TestScrubNow: a pass that was asked for does not wait for a chunk that another
// pass reads at its own speed.
func TestScrubNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, mem.New())
		mustPut(t, s.disks["a"], content(1, fs.ChunkMax), true)
		sc := s.scrubber(t, 1000)
		stop := running(t, sc.Run)
		time.Sleep(time.Minute)
		sc.Start(0)
		time.Sleep(time.Second)
		if st := sc.Status(); st.Running || st.Bytes != fs.ChunkMax {
			t.Errorf("%+v", st)
		}
		stop()
	})
}

// TestScrubWithoutAState: a note of an earlier pass that cannot be read costs a
// new pass.
func TestScrubWithoutAState(t *testing.T) {
	s := newScrubbed(t, nil)
	if err := os.WriteFile(filepath.Join(s.disks["a"].dir, scrubFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := s.scrubber(t, 0).Status(); st.Running || !st.Started.IsZero() {
		t.Errorf("%+v", st)
	}
}
