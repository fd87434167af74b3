package vfs_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/vfs"
)

var (
	modelSeed = flag.Uint64("model.seed", 0, "run TestModel with this seed only")
	modelRuns = flag.Uint64("model.runs", 40, "how many seeds TestModel runs with")
)

// modelFile is one file and what it must contain.
type modelFile struct {
	ino  fs.Ino
	want []byte // as processes of the writing node see it
	seen []byte // as other nodes see it
	open []vfs.Handle
}

// TestModel compares random operations on one node with flat arrays, and what
// another node sees with the state of the last publication.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	runs := *modelRuns
	if testing.Short() {
		runs = min(runs, 9)
	}
	for seed := uint64(1); seed <= runs; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := newBench(t, func(o *vfs.Options) {
		o.MemoryBytesMax = []int64{1, 1 << 16, 1 << 30}[seed%3]
		o.InlineMax = []int{1, 4096, fs.InlineMax}[seed/3%3]
		o.PutParallel = 1 + int(seed%4)
	})
	m := &model{bench: b, other: b.newNode(), rng: rng}
	for i := range 2 {
		ino, h := b.create(fmt.Sprint("file", i))
		m.files = append(m.files, &modelFile{ino: ino, open: []vfs.Handle{h}})
	}
	for step := range 300 {
		m.step()
		if t.Failed() {
			t.Fatalf("seed %d step %d: %s", seed, step, m.last)
		}
	}
	if err := b.Drain(b.ctx); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.files {
		m.check(m.other, f.ino, f.want, 0, 1<<20)
	}
}

type model struct {
	*bench
	other *node
	rng   *rand.Rand
	files []*modelFile
	last  string
}

// modelMax is the size of the files: more than one chunk, so that borders count.
const modelMax = fs.ChunkMax + 300_000

// place is an offset, often near something that matters.
func (m *model) place(f *modelFile) int {
	spots := []int{0, len(f.want), fs.ChunkMax, 4096, m.rng.IntN(modelMax), m.rng.IntN(modelMax)}
	off := spots[m.rng.IntN(len(spots))] + m.rng.IntN(2000) - 1000
	return min(max(off, 0), modelMax-1)
}

func (m *model) bytes() []byte {
	p := make([]byte, 1+m.rng.IntN([]int{10, 3000, 40_000, 300_000}[m.rng.IntN(4)]))
	for i := range p {
		p[i] = byte(m.rng.Uint32()) | 1
	}
	return p
}

func (m *model) step() {
	f := m.files[m.rng.IntN(len(m.files))]
	h := f.open[m.rng.IntN(len(f.open))]
	switch k := m.rng.IntN(20); k {
	case 0, 1, 2, 3, 4:
		m.write(f, h, m.place(f), m.bytes())
	case 5, 6, 7:
		m.append(f, h, m.bytes())
	case 8, 9:
		m.resize(f, h, m.place(f))
	case 10:
		m.allocate(f, h, m.place(f), 1+m.rng.IntN(10_000))
	case 11, 12:
		m.publish(f, h, k == 12)
	case 13:
		m.reopen(f)
	case 14:
		m.setAttr(f)
	case 15:
		m.resizeByName(f, m.place(f))
	case 16:
		m.last = "check the other node"
		m.check(m.other, f.ino, f.seen, m.place(f), 1<<18)
	case 17:
		m.seek(f, h, m.place(f))
	default:
		m.last = "check"
		m.check(m.node, f.ino, f.want, m.place(f), 1<<18)
	}
}

func (m *model) write(f *modelFile, h vfs.Handle, off int, p []byte) {
	m.last = fmt.Sprintf("write %d at %d", len(p), off)
	p = p[:min(len(p), modelMax-off)]
	m.Must(m.Write(m.ctx, h, p, uint64(off), vfs.WriteFlags{}))
	f.grow(off + len(p))
	copy(f.want[off:], p)
}

func (m *model) append(f *modelFile, h vfs.Handle, p []byte) {
	m.last = fmt.Sprintf("append %d to %d", len(p), len(f.want))
	p = p[:min(len(p), max(modelMax-len(f.want), 0))]
	m.Must(m.Write(m.ctx, h, p, 77, vfs.WriteFlags{Append: true}))
	f.want = append(f.want, p...)
}

func (m *model) resize(f *modelFile, h vfs.Handle, size int) {
	m.last = fmt.Sprintf("ftruncate %d to %d", len(f.want), size)
	m.truncate(f.ino, h, uint64(size))
	f.resize(size)
}

func (m *model) resizeByName(f *modelFile, size int) {
	m.last = fmt.Sprintf("truncate %d to %d", len(f.want), size)
	a, err := m.SetAttr(m.ctx, vfs.SetAttr{SetAttr: fs.SetAttr{Ino: f.ino, Mask: fs.SetSize, Size: uint64(size)}})
	m.Must(err)
	if a.Size != uint64(size) {
		m.Errorf("size is %d, want %d", a.Size, size)
	}
	f.resize(size)
	f.publish()
}

func (m *model) allocate(f *modelFile, h vfs.Handle, off, n int) {
	m.last = fmt.Sprintf("fallocate %d at %d", n, off)
	m.Must(m.Allocate(h, uint64(off), uint64(n), 0))
	f.grow(off + n)
}

func (m *model) publish(f *modelFile, h vfs.Handle, fsync bool) {
	m.last = fmt.Sprintf("publish, fsync %t", fsync)
	if fsync {
		m.Must(m.Fsync(m.ctx, h))
	} else {
		m.Must(m.Flush(m.ctx, h))
	}
	f.publish()
}

func (m *model) reopen(f *modelFile) {
	if len(f.open) > 3 {
		m.last = "close"
		i := m.rng.IntN(len(f.open))
		m.close(f.open[i])
		f.open = append(f.open[:i], f.open[i+1:]...)
		f.publish()
		return
	}
	flags := uint32(rdwr)
	if m.rng.IntN(3) == 0 {
		flags = trunc
		f.want = nil
	}
	m.last = fmt.Sprintf("open with flags %#o", flags)
	f.open = append(f.open, m.open(f.ino, flags))
}

// setAttr changes the mtime, which publishes what is unpublished.
func (m *model) setAttr(f *modelFile) {
	m.last = "utimens"
	mtime := fs.Time{Sec: m.rng.Int64N(1 << 31)}
	a, err := m.SetAttr(m.ctx, vfs.SetAttr{SetAttr: fs.SetAttr{Ino: f.ino, Mask: fs.SetMtime, Mtime: mtime}})
	m.Must(err)
	if a.Mtime != mtime || m.attr(f.ino).Mtime != mtime {
		m.Errorf("mtime is %v, want %v", a.Mtime, mtime)
	}
	f.publish()
}

// seek checks that nothing in front of what SEEK_DATA finds is data.
func (m *model) seek(f *modelFile, h vfs.Handle, off int) {
	m.last = fmt.Sprintf("seek from %d", off)
	got, err := m.Seek(m.ctx, h, uint64(off), vfs.SeekData)
	if fs.KindOf(err) == fs.ErrNoDevice {
		got, err = uint64(max(len(f.want), off)), nil
	}
	m.Must(err)
	for i := off; i < int(got) && i < len(f.want); i++ {
		if f.want[i] != 0 {
			m.Fatalf("data at %d, but SEEK_DATA says %d", i, got)
		}
	}
}

func (m *model) check(n *node, ino fs.Ino, want []byte, off, size int) {
	m.Helper()
	h := n.open(ino, unix.O_RDONLY)
	defer n.Release(h)
	p := bytes.Repeat([]byte{0xee}, size)
	got, err := n.Read(n.ctx, h, p, uint64(off))
	m.Must(err)
	expect := want[min(off, len(want)):min(off+size, len(want))]
	if !bytes.Equal(p[:got], expect) {
		at := 0
		for at < min(got, len(expect)) && p[at] == expect[at] {
			at++
		}
		m.Errorf("inode %d: %d bytes from %d differ from the %d wanted at %d", ino, got, off, len(expect), off+at)
	}
	if a := n.attr(ino); a.Size != uint64(len(want)) {
		m.Errorf("size is %d, want %d", a.Size, len(want))
	}
}

func (m *model) Must(err error) {
	m.Helper()
	if err != nil {
		m.Fatalf("%s: %v", m.last, err)
	}
}

func (f *modelFile) grow(size int) {
	if size > len(f.want) {
		f.resize(size)
	}
}

func (f *modelFile) resize(size int) {
	if size <= len(f.want) {
		f.want = f.want[:size:size]
		return
	}
	f.want = append(f.want, make([]byte, size-len(f.want))...)
}

func (f *modelFile) publish() { f.seen = bytes.Clone(f.want) }
