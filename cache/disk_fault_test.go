package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// TestFailEveryStep fails the first system call of a day in the life of a Disk,
// then the second, and so on until a whole day passes. After each the directory
// is opened by a healthy process: what was acknowledged is there, and nothing
// wrong is.
func TestFailEveryStep(t *testing.T) {
	chunks := make([][]byte, 6)
	for i := range chunks {
		chunks[i] = content(i, hashBuffer+i) // read in two steps
	}
	base := ramDir(t)
	for failAt := int64(1); ; failAt++ {
		dir := filepath.Join(base, fmt.Sprint(failAt))
		faults := newFaultFiles(failAt)
		stored := day(t, dir, faults, chunks)
		if faults.opened != 0 {
			t.Errorf("step %d: %d files are still open", failAt, faults.opened)
		}
		d := openDisk(t, dir, DiskOptions{})
		wantEmptyDir(t, d.path(tempDir))
		for i, b := range chunks {
			got, err := readAll(d, hashOf(b), len(b))
			if stored[i] || err == nil {
				wantBytes(t, fmt.Sprintf("step %d, chunk %d", failAt, i), got, err, b)
			} else if fs.KindOf(err) != fs.ErrNotFound && fs.KindOf(err) != fs.ErrCorrupt {
				t.Errorf("step %d, chunk %d: %v", failAt, i, err)
			}
			if _, err := d.Put(b, true); err != nil {
				t.Errorf("step %d: the directory cannot be used afterwards: %v", failAt, err)
			}
		}
		d.Close()
		os.RemoveAll(dir)
		if !faults.failed.Load() {
			if failAt < 300 { // 259 directories alone
				t.Errorf("only %d steps", failAt)
			}
			return
		}
		if failAt == 3 {
			failAt = 255 // making one of the 256 directories is like making another
		}
	}
}

// day is what a Disk does: chunks come in both ways, are read, damaged, read
// again, removed. It tells which chunks were acknowledged and must be there.
func day(t *testing.T, dir string, faults *faultFiles, chunks [][]byte) (stored [6]bool) {
	t.Helper()
	d, err := OpenDisk(dir, DiskOptions{ReserveBytes: 1, OpenFilesMax: 2, files: faults})
	if err != nil {
		return stored
	}
	defer d.Close()
	for i, b := range chunks {
		_, err := d.Put(b, i%2 == 0)
		stored[i] = err == nil
	}
	for i, b := range chunks[:3] {
		if got, err := readAll(d, hashOf(b), len(b)); stored[i] && err == nil && !bytes.Equal(got, b) {
			t.Errorf("chunk %d: wrong bytes", i)
		}
	}
	// Chunk 1 goes bad unnoticed; a put with sync must notice or replace it.
	if stored[1] {
		damage(t, d, hashOf(chunks[1]), damages[0].do)
		stored[1] = false
		d.known.forget(hashOf(chunks[1]))
		d.open.drop(hashOf(chunks[1]))
		_, err := d.Put(chunks[1], true)
		stored[1] = err == nil
	}
	_, err = d.Put(chunks[3], true) // makes the earlier put without sync durable
	if err != nil && stored[3] && !d.Has(hashOf(chunks[3])) {
		stored[3] = false // a failed fdatasync gives the file up
	}
	stored[5] = false
	if err := d.Remove(hashOf(chunks[5])); err == nil && d.Has(hashOf(chunks[5])) && !faults.failed.Load() {
		t.Error("removed and still there")
	}
	_ = d.Scan(t.Context())
	return stored
}

func TestNoSpaceHasItsKind(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		for _, op := range []string{"create", "write", "sync", "close", "rename"} {
			t.Run(fmt.Sprintf("%s in %s", errno, op), func(t *testing.T) {
				faults := newFaultFiles(0)
				d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{files: faults})
				faults.fails = func(got, path string) error {
					if got == op {
						return &os.PathError{Op: op, Path: path, Err: errno}
					}
					return nil
				}
				b := content(1, 1000)
				_, err := d.Put(b, true)
				wantKind(t, "Put", err, fs.ErrNoSpace)
				wantEmptyDir(t, d.path(tempDir))
				faults.fails = nil
				mustPut(t, d, b, true)
			})
		}
	}
}

// TestReserveCountsPutsUnderWay: many puts at once do not pass the reserve
// together.
func TestReserveCountsPutsUnderWay(t *testing.T) {
	const room = 10 * 1000
	faults := newFaultFiles(0)
	hold := make(chan struct{})
	var arrived sync.WaitGroup
	arrived.Add(10)
	faults.fails = func(op, path string) error {
		if op == "create" {
			arrived.Done()
			<-hold
		}
		return nil
	}
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{ReserveBytes: 5000, files: freeFiles{faults, 5000 + room}})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { mustPut(t, d, content(i, 1000), false) })
	}
	arrived.Wait() // all have passed the check, none has written
	_, err := d.Put(content(10, 1000), false)
	wantKind(t, "one put too many", err, fs.ErrNoSpace)
	close(hold)
	wg.Wait()
}

// freeFiles says how much is free.
type freeFiles struct {
	files
	free uint64
}

func (f freeFiles) Free(string) (uint64, error) { return f.free, nil }

// TestFailedDirectorySyncIsNotForgotten: its next fsync may falsely succeed.
func TestFailedDirectorySyncIsNotForgotten(t *testing.T) {
	faults := newFaultFiles(0)
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{files: faults})
	b := content(1, 1000)
	faults.fails = func(op, _ string) error {
		if op == "syncdir" {
			return errFault
		}
		return nil
	}
	if _, err := d.Put(b, true); !errors.Is(err, errFault) {
		t.Fatalf("Put: %v", err)
	}
	faults.fails = nil
	for _, again := range [][]byte{b, content(2, 10)} {
		if _, err := d.Put(again, true); !errors.Is(err, errFault) {
			t.Errorf("a later put with sync: %v", err)
		}
	}
	if _, err := d.Put(content(2, 10), false); err != nil {
		t.Errorf("a put without sync: %v", err)
	}
	got, err := readAll(d, hashOf(b), len(b))
	wantBytes(t, "read", got, err, b)
}

// TestFailedFileSyncGivesTheFileUp: so that the next put writes it again.
func TestFailedFileSyncGivesTheFileUp(t *testing.T) {
	faults := newFaultFiles(0)
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{files: faults})
	b := content(1, 1000)
	h := mustPut(t, d, b, false)
	faults.fails = func(op, _ string) error {
		if op == "sync" {
			return errFault
		}
		return nil
	}
	if _, err := d.Put(b, true); !errors.Is(err, errFault) {
		t.Errorf("Put: %v", err)
	}
	if d.Has(h) {
		t.Error("a file whose fdatasync failed is still trusted")
	}
	faults.fails = nil
	before := faults.count("write")
	mustPut(t, d, b, true)
	if faults.count("write") != before+1 {
		t.Error("the bytes were not written again")
	}
}

// TestUnreadableFile: it is not thrown away by readers, for it may be the only
// copy, but a put replaces it.
func TestUnreadableFile(t *testing.T) {
	faults := newFaultFiles(0)
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{})
	b := content(1, 1000)
	h := mustPut(t, d, b, false)
	d = reopen(t, d, DiskOptions{files: faults})
	broken := true
	faults.fails = func(op, _ string) error {
		if op == "read" && broken {
			return syscall.EIO
		}
		return nil
	}
	_, err := d.Fetch(h)
	wantKind(t, "Fetch", err, fs.ErrIO)
	if !d.Has(h) {
		t.Error("an unreadable file was removed by a reader")
	}
	syncs := faults.count("sync")
	mustPut(t, d, b, false)
	if faults.count("sync") != syncs+1 {
		t.Error("a file that may have been durable was replaced by one that is not")
	}
	broken = false
	got, err := d.Fetch(h)
	wantBytes(t, "Fetch after a put", got, err, b)
}

// TestVerifiedOnce: the hash costs one reading of the file per process, also
// when its open file was closed in between.
func TestVerifiedOnce(t *testing.T) {
	faults := newFaultFiles(0)
	d := newDisk(t)
	const size = 10 * hashBuffer
	big, other := content(1, size), content(2, 100)
	h := mustPut(t, d, big, false)
	mustPut(t, d, other, false)
	d = reopen(t, d, DiskOptions{files: faults, OpenFilesMax: 1})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			p := make([]byte, 10)
			if n, err := d.ReadAt(h, size, p, 5000); err != nil || !bytes.Equal(p[:n], big[5000:5010]) {
				t.Errorf("ReadAt: %v", err)
			}
		})
	}
	wg.Wait()
	if n := faults.count("read"); n != 10+20 {
		t.Errorf("%d reads, want 10 to verify and 20 to answer", n)
	}
	if _, err := d.Fetch(hashOf(other)); err != nil { // closes the first
		t.Fatal(err)
	}
	reads, opens := faults.count("read"), faults.count("open")
	if _, err := d.ReadAt(h, size, make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	if n := faults.count("read") - reads; n != 1 {
		t.Errorf("%d reads of a file that was verified and closed", n)
	}
	if n := faults.count("open") - opens; n != 1 {
		t.Errorf("%d opens of a file that was closed", n)
	}
}

func TestOpenFilesAreBounded(t *testing.T) {
	const limit, readers = 5, 4
	faults := newFaultFiles(0)
	d := openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{files: faults, OpenFilesMax: limit})
	const n = 40
	for i := range n {
		mustPut(t, d, content(i, 100), false)
	}
	faults.mu.Lock()
	faults.most = 0
	faults.mu.Unlock()
	var wg sync.WaitGroup
	for w := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range 300 {
				b := content(rng.IntN(n), 100)
				got, err := readAll(d, hashOf(b), 100)
				wantBytes(t, "read", got, err, b)
			}
		})
	}
	wg.Wait()
	if faults.most > limit+2*readers {
		t.Errorf("%d files were open, the limit is %d and %d readers", faults.most, limit, readers)
	}
	if got := d.Stats().OpenFiles; got != limit {
		t.Errorf("%d files stay open, want %d", got, limit)
	}
	d.Close()
	if faults.opened != 0 {
		t.Errorf("%d files are open after Close", faults.opened)
	}
}

func TestKnownSetForgets(t *testing.T) {
	s := newKnownSet(3)
	for i := range 10 {
		s.verified(hashOf([]byte{byte(i)}), uint64(i))
		if _, ok := s.get(hashOf([]byte{0})); !ok {
			t.Errorf("what is asked for again and again was forgotten after %d", i)
		}
	}
	if n := len(s.young) + len(s.old); n > 6 {
		t.Errorf("%d entries, want at most 6", n)
	}
	if _, ok := s.get(hashOf([]byte{1})); ok {
		t.Error("what nobody asked for was kept")
	}
	s.synced(hashOf([]byte{0}), 0)
	s.verified(hashOf([]byte{0}), 0)
	if k, _ := s.get(hashOf([]byte{0})); !k.synced {
		t.Error("verifying a durable file made it less durable")
	}
	s.verified(hashOf([]byte{0}), 77)
	if k, _ := s.get(hashOf([]byte{0})); k.synced || k.ino != 77 {
		t.Error("another file of the name inherits that it is durable")
	}
	s.forget(hashOf([]byte{0}))
	if _, ok := s.get(hashOf([]byte{0})); ok {
		t.Error("not forgotten")
	}
}

// TestPowerCut: whatever was acknowledged with sync is there afterwards, and
// whatever else is there is whole or found out. Puts of the same chunks with and
// without sync run into each other on purpose.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			base := ramDir(t)
			dir := filepath.Join(base, "cache")
			chunks := make([][]byte, 6)
			for i := range chunks {
				chunks[i] = content(i, 3000)
			}
			var durable [6]bool
			for boot := range uint64(3) { // what one process left, the next one finds
				attic := filepath.Join(base, fmt.Sprint("attic", boot))
				if err := os.Mkdir(attic, 0o700); err != nil {
					t.Fatal(err)
				}
				disk := newCrashFiles(attic)
				d := openDisk(t, dir, DiskOptions{files: disk})
				for i, b := range chunks {
					got, err := d.Fetch(hashOf(b))
					switch {
					case err == nil || durable[i]:
						wantBytes(t, fmt.Sprintf("boot %d, chunk %d, durable %v", boot, i, durable[i]), got, err, b)
					case fs.KindOf(err) != fs.ErrNotFound && fs.KindOf(err) != fs.ErrCorrupt:
						t.Errorf("boot %d, chunk %d: %v", boot, i, err)
					}
				}
				var mu sync.Mutex
				var wg sync.WaitGroup
				for w := range uint64(4) {
					wg.Go(func() {
						rng := rand.New(rand.NewPCG(seed<<8|boot, w))
						for range 5 {
							i, sync := rng.IntN(len(chunks)), rng.IntN(3) == 0
							if _, err := d.Put(chunks[i], sync); err != nil {
								t.Errorf("Put: %v", err)
							} else if sync {
								mu.Lock()
								durable[i] = true
								mu.Unlock()
							}
						}
					})
				}
				wg.Wait()
				d.Close()
				if err := disk.crash(rand.New(rand.NewPCG(seed, boot)), dir); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
