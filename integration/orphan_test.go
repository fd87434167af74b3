package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
	"github.com/wpfs/wpfs/integration/testcluster"
)

// reclaimMax is how long after the last close the space of an unlinked file may
// still be counted.
const reclaimMax = 30 * time.Second

// patternSum is the SHA-256 of a file that probe.Fill wrote.
func patternSum(size int64, seed byte) string {
	h := sha256.New()
	b := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(b)) {
		part := b[:min(int64(len(b)), size-off)]
		probe.Pattern(part, off, seed)
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// used is the space that statfs reports as taken.
func used(t *testing.T, p *probe.Client, mount string) int64 {
	t.Helper()
	return must(t, p, probe.Statfs(mount))[0].N
}

// TestUnlinkedFileStaysWhileItIsOpen opens a file on node 2, removes it on node
// 1 (by unlink, and by rename over it), and reads it on node 2. After the last
// close its space is free again.
func TestUnlinkedFileStaysWhileItIsOpen(t *testing.T) {
	const size = 24 << 20
	cases := []struct {
		name   string
		remove func(path string) []probe.Op
	}{
		{"unlink", func(path string) []probe.Op { return []probe.Op{probe.Unlink(path)} }},
		{"rename over it", func(path string) []probe.Op {
			return []probe.Op{probe.WriteFile(path+".new", []byte("short")), probe.Rename(path+".new", path, 0)}
		}},
	}
	c, ps := start(t, testcluster.Config{})
	for i, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			seed := byte(i + 1)
			at := func(n int) string { return filepath.Join(c.Nodes[n].Mount, fmt.Sprint("file", i)) }
			empty := used(t, ps[0], c.Nodes[0].Mount)
			must(t, ps[0], probe.Fill(at(0), size, seed))
			must(t, ps[1], probe.Open(1, at(1), unix.O_RDWR, 0))
			full := used(t, ps[0], c.Nodes[0].Mount)
			if full < empty+size/2 {
				t.Fatalf("statfs counts %d bytes before and %d after a file of %d was written", empty, full, size)
			}
			must(t, ps[0], k.remove(at(0))...)

			buf := make([]byte, 4096)
			for _, off := range []int64{0, size / 2, size - int64(len(buf))} {
				probe.Pattern(buf, off, seed)
				r := must(t, ps[1], probe.Pread(1, off, int64(len(buf))))[0]
				if string(r.Data) != string(buf) {
					t.Errorf("the open file has other bytes at %d after its name is gone", off)
				}
			}
			if st := must(t, ps[1], probe.Fstat(1))[0].Stat; st.Nlink != 0 || st.Size != size {
				t.Errorf("fstat of the file without a name: nlink %d, size %d", st.Nlink, st.Size)
			}
			// It can still be written, too.
			must(t, ps[1], probe.Pwrite(1, 5, []byte("rewritten")), probe.Fsync(1))
			if r := must(t, ps[1], probe.Pread(1, 5, 9))[0]; string(r.Data) != "rewritten" {
				t.Errorf("read %q back", r.Data)
			}
			must(t, ps[1], probe.Close(1))
			deadline := time.Now().Add(reclaimMax)
			for {
				now := used(t, ps[2], c.Nodes[2].Mount)
				if now < empty+size/2 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%v after the last close statfs still counts %d bytes (%d without the file)", reclaimMax, now, empty)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}
