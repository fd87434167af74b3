package fuse_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
)

var (
	fsxSeed  = flag.Uint64("fsx.seed", 0, "run TestFsx with this seed only")
	fsxSteps = flag.Int("fsx.steps", 1500, "how many calls TestFsx makes with each seed")
)

// TestFsx makes the same random calls on a file of a mount and on a file of the
// local disk, mappings included, and compares the two all the time. The mount's
// memory is so small that most content is spilled.
func TestFsx(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4}
	if *fsxSeed != 0 {
		seeds = []uint64{*fsxSeed}
	}
	steps := *fsxSteps
	if testing.Short() {
		steps = min(steps, 500)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			m := s.node(t, func(o *options) {
				o.vfs.MemoryBytesMax = []int64{1, 100 << 10, 1 << 30}[seed%3]
				o.vfs.InlineMax = []int{fs.InlineMax, 1}[seed%2]
			})
			t.Log(help(t, "fsx", m.path("f"), filepath.Join(t.TempDir(), "f"), strconv.FormatUint(seed, 10), strconv.Itoa(steps)))
			other := s.node(t)
			a, err := os.ReadFile(m.path("f"))
			must(t, err)
			b, err := os.ReadFile(other.path("f"))
			must(t, err)
			if !bytes.Equal(a, b) {
				t.Errorf("seed %d: another node sees another content", seed)
			}
		})
	}
}

// fsxMax is the size of the file: more than one chunk.
const fsxMax = fs.ChunkMax + 600_000

// fsxFile is one of the two files with its descriptors.
type fsxFile struct {
	name string
	fd   int // read and write
	app  int // O_APPEND
}

type fsx struct {
	rng   *rand.Rand
	files [2]*fsxFile
	size  int
	last  []string
}

func fsxHelper(args []string) error {
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	steps, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	x := &fsx{rng: rand.New(rand.NewPCG(seed, 4))}
	for i := range x.files {
		x.files[i] = &fsxFile{name: args[i]}
		if err := x.files[i].open(unix.O_CREAT); err != nil {
			return err
		}
	}
	for step := range steps {
		if err := x.step(); err != nil {
			return fmt.Errorf("seed %d step %d: %w; the last calls were %q", seed, step, err, x.last)
		}
	}
	fmt.Printf("%d calls, %d bytes at the end\n", steps, x.size)
	return nil
}

func (f *fsxFile) open(flags int) (err error) {
	if f.fd, err = unix.Open(f.name, unix.O_RDWR|flags, 0o644); err != nil {
		return err
	}
	f.app, err = unix.Open(f.name, unix.O_RDWR|unix.O_APPEND, 0)
	return err
}

func (f *fsxFile) close() error { return errors.Join(unix.Close(f.fd), unix.Close(f.app)) }

// both makes a call on both files, the mount's first.
func (x *fsx) both(call func(f *fsxFile) error) error {
	for _, f := range x.files {
		if err := call(f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func (x *fsx) step() error {
	off, n := x.rng.IntN(fsxMax), 1+x.rng.IntN([]int{100, 5000, 70_000, 300_000}[x.rng.IntN(4)])
	if x.rng.IntN(3) == 0 {
		off = min(max(x.size-x.rng.IntN(3000), 0), fsxMax-1) // near the end
	}
	n = min(n, fsxMax-off)
	calls := []struct {
		name string
		do   func(off, n int) error
	}{
		{"write", x.write}, {"write", x.write}, {"write", x.write}, {"append", x.append}, {"append", x.append},
		{"read", x.read}, {"read", x.read}, {"readapp", x.readAppend}, {"truncate", x.truncate}, {"ftruncate", x.ftruncate},
		{"mapread", x.mapRead}, {"mapread", x.mapRead}, {"mapwrite", x.mapWrite}, {"mapwrite", x.mapWrite},
		{"fsync", x.fsync}, {"reopen", x.reopen}, {"empty", x.empty}, {"fallocate", x.fallocate}, {"dup", x.dup},
		{"osync", x.writeSync},
	}
	c := calls[x.rng.IntN(len(calls))]
	x.last = append(x.last, fmt.Sprintf("%s %d+%d of %d", c.name, off, n, x.size))
	if len(x.last) > 6 {
		x.last = x.last[1:]
	}
	if err := c.do(off, n); err != nil {
		return err
	}
	return x.sameSize()
}

func (x *fsx) random(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(x.rng.Uint32()) | 1
	}
	return p
}

func (x *fsx) write(off, n int) error {
	p := x.random(n)
	x.size = max(x.size, off+n)
	return x.both(func(f *fsxFile) error { return pwrite(f.fd, p, off) })
}

func pwrite(fd int, p []byte, off int) error {
	n, err := unix.Pwrite(fd, p, int64(off))
	if err == nil && n != len(p) {
		err = fmt.Errorf("wrote %d of %d", n, len(p))
	}
	return err
}

func (x *fsx) writeSync(off, n int) error {
	p := x.random(n)
	x.size = max(x.size, off+n)
	return x.both(func(f *fsxFile) error {
		fd, err := unix.Open(f.name, unix.O_WRONLY|unix.O_SYNC, 0)
		if err != nil {
			return err
		}
		return errors.Join(pwrite(fd, p, off), unix.Close(fd))
	})
}

func (x *fsx) append(_, n int) error {
	n = min(n, fsxMax-x.size)
	if n <= 0 {
		return nil
	}
	p := x.random(n)
	x.size += n
	return x.both(func(f *fsxFile) error {
		got, err := unix.Write(f.app, p)
		if err == nil && got != len(p) {
			err = fmt.Errorf("appended %d of %d", got, len(p))
		}
		return err
	})
}

func (x *fsx) read(off, n int) error {
	return x.compare(off, n, func(f *fsxFile, p []byte) (int, error) { return unix.Pread(f.fd, p, int64(off)) })
}

func (x *fsx) readAppend(off, n int) error {
	return x.compare(off, n, func(f *fsxFile, p []byte) (int, error) { return unix.Pread(f.app, p, int64(off)) })
}

func (x *fsx) compare(off, n int, read func(*fsxFile, []byte) (int, error)) error {
	var got [2][]byte
	for i, f := range x.files {
		p := make([]byte, n)
		k, err := read(f, p)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		got[i] = p[:k]
	}
	if bytes.Equal(got[0], got[1]) {
		return nil
	}
	at := 0
	for at < min(len(got[0]), len(got[1])) && got[0][at] == got[1][at] {
		at++
	}
	return fmt.Errorf("%d and %d bytes from %d, which differ at %d", len(got[0]), len(got[1]), off, off+at)
}

func (x *fsx) sameSize() error {
	for _, f := range x.files {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return err
		}
		if st.Size != int64(x.size) {
			return fmt.Errorf("%s has %d bytes, want %d", f.name, st.Size, x.size)
		}
	}
	return nil
}

func (x *fsx) truncate(off, _ int) error {
	x.size = off
	return x.both(func(f *fsxFile) error { return unix.Truncate(f.name, int64(off)) })
}

func (x *fsx) ftruncate(off, _ int) error {
	x.size = off
	return x.both(func(f *fsxFile) error { return unix.Ftruncate(f.fd, int64(off)) })
}

func (x *fsx) fallocate(off, n int) error {
	x.size = max(x.size, off+n)
	return x.both(func(f *fsxFile) error { return unix.Fallocate(f.fd, 0, int64(off), int64(n)) })
}

// mapRead compares what mappings of the files show.
func (x *fsx) mapRead(off, n int) error {
	if off, n = x.inside(off, n); n == 0 {
		return nil
	}
	return x.compare(off, n, func(f *fsxFile, p []byte) (int, error) {
		return len(p), mapped(f.fd, off, n, unix.PROT_READ, func(b []byte) { copy(p, b) })
	})
}

func (x *fsx) mapWrite(off, n int) error {
	if off, n = x.inside(off, n); n == 0 {
		return nil
	}
	p := x.random(n)
	fd := func(f *fsxFile) int { return f.fd }
	if x.rng.IntN(3) == 0 {
		fd = func(f *fsxFile) int { return f.app } // opened without a page cache
	}
	return x.both(func(f *fsxFile) error {
		return mapped(fd(f), off, n, unix.PROT_READ|unix.PROT_WRITE, func(b []byte) { copy(b, p) })
	})
}

// inside cuts a range to the file.
func (x *fsx) inside(off, n int) (int, int) {
	if off >= x.size {
		return 0, min(n, x.size)
	}
	return off, min(n, x.size-off)
}

// mapped calls use with a range of a file, mapped shared.
func mapped(fd, off, n, prot int, use func([]byte)) error {
	start := off / unix.Getpagesize() * unix.Getpagesize()
	b, err := unix.Mmap(fd, int64(start), off-start+n, prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	use(b[off-start:])
	return unix.Munmap(b)
}

func (x *fsx) fsync(int, int) error {
	return x.both(func(f *fsxFile) error { return unix.Fsync(f.fd) })
}

func (x *fsx) reopen(int, int) error {
	return x.both(func(f *fsxFile) error { return errors.Join(f.close(), f.open(0)) })
}

// empty opens the files with O_TRUNC while they are open.
func (x *fsx) empty(int, int) error {
	if x.rng.IntN(3) > 0 {
		return nil
	}
	x.size = 0
	return x.both(func(f *fsxFile) error { return errors.Join(f.close(), f.open(unix.O_TRUNC)) })
}

// dup closes a copy of a descriptor, which publishes.
func (x *fsx) dup(int, int) error {
	return x.both(func(f *fsxFile) error {
		fd, err := unix.Dup(f.fd)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}
