package cache

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

var benchSizes = []int{8 << 10, fs.ChunkMax}

func BenchmarkPut(b *testing.B) {
	for _, size := range benchSizes {
		for _, sync := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/sync=%v", size>>10, sync), func(b *testing.B) {
				d := openDisk(b, filepath.Join(b.TempDir(), "cache"), DiskOptions{})
				p := content(1, size)
				b.SetBytes(int64(size))
				n := uint64(0)
				for b.Loop() {
					n++
					binary.LittleEndian.PutUint64(p, n) // another chunk each time
					h, err := d.Put(p, sync)
					if err != nil {
						b.Fatal(err)
					}
					if size == fs.ChunkMax && n%64 == 0 { // or it fills the disk
						b.StopTimer()
						if err := d.Remove(h); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
				}
			})
		}
	}
}

func BenchmarkReadAt(b *testing.B) {
	for _, size := range benchSizes {
		for _, part := range []int{8 << 10, 128 << 10} {
			if part > size {
				continue
			}
			b.Run(fmt.Sprintf("chunk=%dKiB/read=%dKiB", size>>10, part>>10), func(b *testing.B) {
				d := openDisk(b, filepath.Join(b.TempDir(), "cache"), DiskOptions{})
				h, err := d.Put(content(1, size), false)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(part))
				b.RunParallel(func(pb *testing.PB) {
					p := make([]byte, part)
					for pb.Next() {
						if _, err := d.ReadAt(h, uint32(size), p, 0); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// BenchmarkFirstTouch is a read by a process that has not verified the file.
func BenchmarkFirstTouch(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			d := openDisk(b, filepath.Join(b.TempDir(), "cache"), DiskOptions{})
			h, err := d.Put(content(1, size), false)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			p := make([]byte, 4096)
			for b.Loop() {
				d.known.forget(h)
				d.open.drop(h)
				if _, err := d.ReadAt(h, uint32(size), p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
