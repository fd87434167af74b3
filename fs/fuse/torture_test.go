package fuse_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tortureVar is for how long each torture goes on, as a Go duration.
const tortureVar = "WPFS_TORTURE"

const (
	tortureTime    = 4 * time.Second
	tortureWorkers = 8 // on each mount
	tortureDirs    = 3 // that all of them share
	tortureCommit  = 200 * time.Microsecond
)

// TestTwoMountTorture: workers on two mounts change names in the same few
// directories, and each looks at every change through the other mount as soon as
// its call has returned. Every worker changes names of its own, so it knows what
// must be seen; the directories, whose locks the kernel holds meanwhile, are
// everybody's. A bare FUSE_NOTIFY_INVAL_ENTRY hangs here within two seconds.
func TestTwoMountTorture(t *testing.T) {
	for _, noEpoch := range []bool{false, true} {
		t.Run(fmt.Sprintf("noEpoch=%t", noEpoch), func(t *testing.T) {
			s := newSite(t)
			var mounts []*mount
			for range 2 {
				m := s.node(t, func(o *options) { o.fuse.NoEpoch = noEpoch })
				m.seat.delay.Store(int64(tortureCommit))
				mounts = append(mounts, m)
			}
			for d := range tortureDirs {
				must(t, os.Mkdir(mounts[0].path(strconv.Itoa(d)), 0o755))
			}
			torture(t, mounts)
			for i, m := range mounts {
				st := m.server.Stats().Kernel
				t.Logf("mount %d: %d conflicts, %d epochs, %d of its own, %d relaxed, %d retries, %d names dropped",
					i, st.Conflicts, st.Epochs, st.OwnEpochs, st.Relaxed, st.Retries, st.Latency["name"].Count)
				if noEpoch && st.Latency["epoch"].Count > 0 {
					t.Errorf("%d epochs although there are none", st.Latency["epoch"].Count)
				}
			}
		})
	}
}

func torture(t *testing.T, mounts []*mount) {
	t.Helper()
	limit := tortureTime
	if s := os.Getenv(tortureVar); s != "" {
		var err error
		limit, err = time.ParseDuration(s)
		must(t, err)
	}
	end := time.Now().Add(limit)
	var ops, stale atomic.Int64
	var wg sync.WaitGroup
	for i, m := range mounts {
		for w := range tortureWorkers {
			k := &tormentor{t: t, here: m, there: mounts[1-i], id: fmt.Sprintf("m%dw%d", i, w),
				rng: rand.New(rand.NewPCG(uint64(i), uint64(w))), names: map[string]uint64{}}
			wg.Go(func() {
				for time.Now().Before(end) && !t.Failed() {
					k.step()
					ops.Add(1)
				}
				stale.Add(int64(k.stale))
			})
		}
	}
	wg.Wait()
	t.Logf("%d operations, %d violations", ops.Load(), stale.Load())
}

// tormentor is one worker. names is what it has made: path below the mount to
// inode.
type tormentor struct {
	t           *testing.T
	here, there *mount
	id          string
	rng         *rand.Rand
	n           int
	names       map[string]uint64
	stale       int
}

func (k *tormentor) fresh() string {
	k.n++
	return filepath.Join(strconv.Itoa(k.rng.IntN(tortureDirs)), fmt.Sprintf("%s-%d", k.id, k.n%12))
}

// step makes one change and looks at it.
func (k *tormentor) step() {
	name := k.fresh()
	if k.rng.IntN(2) == 0 { // let the other kernel keep what it finds
		_ = unix.Lstat(k.there.path(name), &unix.Stat_t{})
		_, _ = os.ReadDir(filepath.Dir(k.there.path(name)))
	}
	_, exists := k.names[name]
	switch {
	case !exists && k.rng.IntN(5) == 0:
		k.must("mkdir", os.Mkdir(k.here.path(name), 0o755))
		k.made(name)
	case !exists:
		fd, err := unix.Open(k.here.path(name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		k.must("create", err)
		if err == nil {
			k.must("close", unix.Close(fd))
		}
		k.made(name)
	case k.rng.IntN(3) == 0:
		k.rename(name)
	default:
		k.must("remove", os.Remove(k.here.path(name)))
		delete(k.names, name)
		k.gone(name)
	}
}

func (k *tormentor) must(what string, err error) {
	if err != nil {
		k.t.Errorf("%s: %s: %v", k.id, what, err)
	}
}

// rename moves a name, over another one of this worker or to a new one.
func (k *tormentor) rename(name string) {
	to := k.fresh()
	if to == name {
		return
	}
	err := os.Rename(k.here.path(name), k.here.path(to))
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EEXIST) {
		return
	}
	k.must("rename", err)
	k.names[to] = k.names[name]
	delete(k.names, name)
	k.gone(name)
	k.seen(to)
}

func (k *tormentor) made(name string) {
	var st unix.Stat_t
	k.must("lstat", unix.Lstat(k.here.path(name), &st))
	k.names[name] = st.Ino
	k.seen(name)
}

// seen looks for a name through the other mount.
func (k *tormentor) seen(name string) {
	var st unix.Stat_t
	err := unix.Lstat(k.there.path(name), &st)
	if err != nil || st.Ino != k.names[name] {
		k.violation("%s: inode %d, %v; want %d", name, st.Ino, err, k.names[name])
	}
	if !k.listed(name) {
		k.violation("%s is not listed", name)
	}
}

// gone looks for the absence of a name through the other mount.
func (k *tormentor) gone(name string) {
	if err := unix.Lstat(k.there.path(name), &unix.Stat_t{}); !errors.Is(err, unix.ENOENT) {
		k.violation("%s is still there: %v", name, err)
	}
	if k.listed(name) {
		k.violation("%s is still listed", name)
	}
}

func (k *tormentor) listed(name string) bool {
	list, err := os.ReadDir(filepath.Dir(k.there.path(name)))
	k.must("readdir", err)
	return slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == filepath.Base(name) })
}

func (k *tormentor) violation(format string, args ...any) {
	k.stale++
	k.t.Errorf(k.id+": "+format, args...)
}
