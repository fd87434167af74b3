package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// content makes n bytes that differ from place to place and from seed to seed.
func content(seed, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func hashOf(b []byte) fs.Hash { return fs.Hash(sha256.Sum256(b)) }

// openDisk opens dir with a reserve that a test machine has.
func openDisk(t testing.TB, dir string, o DiskOptions) *Disk {
	t.Helper()
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 1
	}
	d, err := OpenDisk(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// ramDir is a directory in memory where there is one: for tests whose power cuts
// and disk faults are simulated, a real fsync shows nothing.
func ramDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "wpfs-cache-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newDisk(t testing.TB) *Disk {
	t.Helper()
	return openDisk(t, filepath.Join(ramDir(t), "cache"), DiskOptions{})
}

// reopen stands for a new process over the same directory.
func reopen(t testing.TB, d *Disk, o DiskOptions) *Disk {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return openDisk(t, d.dir, o)
}

func mustPut(t testing.TB, d *Disk, b []byte, sync bool) fs.Hash {
	t.Helper()
	h, err := d.Put(b, sync)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// readAll reads a chunk of n bytes.
func readAll(d *Disk, h fs.Hash, n int) ([]byte, error) {
	p := make([]byte, n)
	got, err := d.ReadAt(h, uint32(n), p, 0)
	return p[:got], err
}

func wantKind(t testing.TB, what string, err error, kind fs.Kind) {
	t.Helper()
	if fs.KindOf(err) != kind {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func wantBytes(t testing.TB, what string, got []byte, err error, want []byte) {
	t.Helper()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want the right %d", what, len(got), err, len(want))
	}
}

func wantEmptyDir(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%s holds %v, %v", dir, entries, err)
	}
}

func TestPutAndRead(t *testing.T) {
	for _, n := range []int{1, 8 << 10, 100_001, fs.ChunkMax} {
		for _, sync := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, sync %v", n, sync), func(t *testing.T) {
				d := newDisk(t)
				b := content(n, n)
				h := mustPut(t, d, b, sync)
				if h != hashOf(b) {
					t.Errorf("hash %v", h)
				}
				if !d.Has(h) || d.Has(fs.Hash{}) {
					t.Error("Has is wrong")
				}
				for _, when := range []string{"at once", "in another process"} {
					got, err := readAll(d, h, n)
					wantBytes(t, when, got, err, b)
					got, err = d.Fetch(h)
					wantBytes(t, "Fetch "+when, got, err, b)
					d = reopen(t, d, DiskOptions{})
				}
				wantEmptyDir(t, d.path(tempDir))
			})
		}
	}
}

func TestReadRanges(t *testing.T) {
	d := newDisk(t)
	b := content(1, 1000)
	h := mustPut(t, d, b, false)
	for _, row := range []struct {
		name      string
		off       int64
		n         int
		from, end int
	}{
		{"all", 0, 1000, 0, 1000}, {"middle", 100, 50, 100, 150}, {"last byte", 999, 1, 999, 1000},
		{"over the end", 990, 100, 990, 1000}, {"at the end", 1000, 10, 0, 0}, {"beyond", 5000, 10, 0, 0}, {"nothing", 5, 0, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := make([]byte, row.n)
			n, err := d.ReadAt(h, 1000, p, row.off)
			wantBytes(t, "ReadAt", p[:n], err, b[row.from:row.end])
		})
	}
	_, err := d.ReadAt(h, 1000, make([]byte, 1), -1)
	wantKind(t, "negative offset", err, fs.ErrInvalid)
	_, err = d.ReadAt(hashOf(nil), 1, make([]byte, 1), 0)
	wantKind(t, "absent chunk", err, fs.ErrNotFound)
	_, err = d.Fetch(hashOf(nil))
	wantKind(t, "fetch of an absent chunk", err, fs.ErrNotFound)
	_, err = d.ReadAt(h, 999, make([]byte, 1), 0)
	wantKind(t, "a size that is not the file's", err, fs.ErrCorrupt)
	if !d.Has(h) {
		t.Error("a good file was removed because the metadata gave another size")
	}
}

func TestPutRefuses(t *testing.T) {
	d := newDisk(t)
	for _, n := range []int{0, fs.ChunkMax + 1} {
		b := make([]byte, n)
		_, err := d.Put(b, false)
		wantKind(t, fmt.Sprintf("Put of %d bytes", n), err, fs.ErrInvalid)
		wantKind(t, fmt.Sprintf("Keep of %d bytes", n), d.Keep(hashOf(b), b, false), fs.ErrInvalid)
	}
	good, bad := content(1, 100), content(2, 100)
	wantKind(t, "Keep of other bytes", d.Keep(hashOf(good), bad, true), fs.ErrCorrupt)
	if d.Has(hashOf(good)) || d.Has(hashOf(bad)) {
		t.Error("Keep stored what it refused")
	}
	if err := d.Keep(hashOf(good), good, true); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := d.Put(good, false)
	wantKind(t, "Put after Close", err, fs.ErrIO)
}

func TestRemove(t *testing.T) {
	d := newDisk(t)
	b := content(5, 100)
	h := mustPut(t, d, b, false)
	if _, err := d.Fetch(h); err != nil { // so that the file is open
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Remove(h); err != nil {
			t.Error(err)
		}
		_, err := d.Fetch(h)
		wantKind(t, "Fetch", err, fs.ErrNotFound)
	}
	mustPut(t, d, b, false)
	if _, err := os.Stat(d.chunkPath(h)); err != nil {
		t.Errorf("put after remove: %v", err)
	}
}

// TestPutSeesThatTheNameIsGone: an open file is no proof of a name.
func TestPutSeesThatTheNameIsGone(t *testing.T) {
	d := newDisk(t)
	b := content(6, 100)
	h := mustPut(t, d, b, true)
	if _, err := d.Fetch(h); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.chunkPath(h)); err != nil {
		t.Fatal(err)
	}
	mustPut(t, d, b, true)
	if _, err := os.Stat(d.chunkPath(h)); err != nil {
		t.Errorf("put believed its open file: %v", err)
	}
}

func TestReserve(t *testing.T) {
	d := openDisk(t, filepath.Join(t.TempDir(), "cache"), DiskOptions{ReserveBytes: 1 << 62})
	_, err := d.Put(content(1, 100), true)
	wantKind(t, "Put", err, fs.ErrNoSpace)
	wantEmptyDir(t, d.path(tempDir))
	if st := d.Stats(); st.Refused != 1 || st.Free == 0 {
		t.Errorf("stats %+v", st)
	}
	d = reopen(t, d, DiskOptions{})
	h := mustPut(t, d, content(1, 100), true)
	d = reopen(t, d, DiskOptions{ReserveBytes: 1 << 62})
	if again := mustPut(t, d, content(1, 100), true); again != h {
		t.Error("what is there already needs no space")
	}
}

func TestScanCounts(t *testing.T) {
	d := newDisk(t)
	for i := range 300 {
		mustPut(t, d, content(i, 10+i), false)
	}
	d = reopen(t, d, DiskOptions{})
	if st := d.Stats(); st.Counted {
		t.Error("counted before the scan")
	}
	// Puts and removals while the scan runs are counted once.
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < 300; i += 4 {
				if err := d.Remove(hashOf(content(i, 10+i))); err != nil {
					t.Error(err)
				}
				mustPut(t, d, content(1000+i, 7), i%2 == 0)
			}
		})
	}
	if err := d.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if st := d.Stats(); !st.Counted || st.Chunks != 300 || st.Bytes != 300*7 {
		t.Errorf("stats %+v, want 300 chunks of 7 bytes", st)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Scan(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan after its context: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("in use", func(t *testing.T) {
		d := newDisk(t)
		if _, err := OpenDisk(d.dir, DiskOptions{}); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("OpenDisk: %v", err)
		}
	})
	t.Run("newer version", func(t *testing.T) {
		d := newDisk(t)
		if err := os.WriteFile(d.path(formatFile), []byte("wpfs cache 2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.Close()
		if _, err := OpenDisk(d.dir, DiskOptions{}); err == nil || !strings.Contains(err.Error(), `"wpfs cache 2"`) {
			t.Errorf("OpenDisk: %v", err)
		}
	})
	t.Run("no parent", func(t *testing.T) {
		if _, err := OpenDisk(filepath.Join(t.TempDir(), "no", "cache"), DiskOptions{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("OpenDisk: %v", err)
		}
	})
}

func TestStartRemovesTempFiles(t *testing.T) {
	d := newDisk(t)
	if err := os.WriteFile(d.path(tempDir, "1-abcd"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d, DiskOptions{})
	wantEmptyDir(t, d.path(tempDir))
}

// TestConcurrentUse mixes everything on few chunks; nothing wrong is ever read.
func TestConcurrentUse(t *testing.T) {
	d := openDisk(t, filepath.Join(t.TempDir(), "cache"), DiskOptions{OpenFilesMax: 3})
	chunks := make([][]byte, 8)
	for i := range chunks {
		chunks[i] = content(i, 20_000)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range 200 {
				b := chunks[rng.IntN(len(chunks))]
				h := hashOf(b)
				switch rng.IntN(4) {
				case 0:
					if _, err := d.Put(b, rng.IntN(4) == 0); err != nil {
						t.Errorf("Put: %v", err)
					}
				case 1:
					if err := d.Remove(h); err != nil {
						t.Errorf("Remove: %v", err)
					}
				case 2:
					got, err := d.Fetch(h)
					if err != nil && fs.KindOf(err) != fs.ErrNotFound || err == nil && !bytes.Equal(got, b) {
						t.Errorf("Fetch: %v", err)
					}
				default:
					p := make([]byte, 100)
					n, err := d.ReadAt(h, 20_000, p, 777)
					if err != nil && fs.KindOf(err) != fs.ErrNotFound || err == nil && !bytes.Equal(p[:n], b[777:877]) {
						t.Errorf("ReadAt: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	if st := d.Stats(); st.Corrupt != 0 || st.OpenFiles > 3 {
		t.Errorf("stats %+v", st)
	}
}
