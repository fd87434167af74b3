package meta_test

import (
	"fmt"
	"testing"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// benchState is a store on disk with production's options and n files in
// directories of 50, as in a web site.
func benchState(b *testing.B, n int) *meta.State {
	b.Helper()
	o := smallPebble()
	o.CacheBytes, o.MemTableBytes = 0, 0
	kv, err := meta.OpenPebble(b.TempDir(), o)
	if err != nil {
		b.Fatal(err)
	}
	s, err := meta.Open(kv)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	benchFill(b, s, n)
	return s
}

func benchFill(b *testing.B, s *meta.State, n int) {
	b.Helper()
	dir := fs.Ino(0)
	for i := 0; i < n; i += 50 {
		res, _, err := s.Apply(s.Applied()+1, []fs.Command{{Op: fs.Mkdir{Parent: 1, Name: fmt.Sprint("d", i/50)}}})
		if err != nil || res[0].Kind != fs.OK {
			b.Fatal(res, err)
		}
		dir = res[0].Attr.Ino
		var batch []fs.Command
		for j := range 50 {
			batch = append(batch, fs.Command{Op: fs.Create{Parent: dir, Name: fmt.Sprint("file", j, ".php"), Mode: 0o644}})
		}
		if _, _, err := s.Apply(s.Applied()+1, batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkApplyCreate is one create per entry, and 64, with a session as in
// production. One operation is one create.
func BenchmarkApplyCreate(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprint("batch", size), func(b *testing.B) {
			s := benchState(b, 0)
			if _, _, err := s.Apply(1, []fs.Command{{Op: fs.OpenSession{Session: 1, Node: "n"}}, {Op: fs.Mkdir{Parent: 1, Name: "d"}}}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for seq := 0; seq < b.N; {
				var batch []fs.Command
				for range size {
					seq++
					batch = append(batch, fs.Command{Session: 1, Seq: uint64(seq), LowWater: uint64(seq), Op: fs.Create{Parent: 2, Name: fmt.Sprint("f", seq), Mode: 0o644}})
				}
				if _, _, err := s.Apply(s.Applied()+1, batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkApplyPublish is a small file's content inside the command.
func BenchmarkApplyPublish(b *testing.B) {
	s := benchState(b, 0)
	if _, _, err := s.Apply(1, []fs.Command{{Op: fs.Create{Parent: 1, Name: "f"}}}); err != nil {
		b.Fatal(err)
	}
	content := make([]byte, 8<<10)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		copy(content, fmt.Sprint(i))
		op := fs.Publish{Ino: 2, Cut: ptr(0), Pieces: []fs.Piece{{Len: uint64(len(content)), Data: content}}}
		if _, _, err := s.Apply(s.Applied()+1, []fs.Command{{Op: op}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLookup reads names of a store of 100,000 files that has been flushed;
// after the first rounds all come from the cache.
func BenchmarkLookup(b *testing.B) {
	s := benchState(b, 100_000)
	dirs := make([]fs.Ino, 2000)
	for i := range dirs {
		a, err := s.View().Lookup(1, fmt.Sprint("d", i))
		if err != nil {
			b.Fatal(err)
		}
		dirs[i] = a.Ino
	}
	names := make([]string, 50)
	for i := range names {
		names[i] = fmt.Sprint("file", i, ".php")
	}
	b.Run("present", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if _, err := s.View().Lookup(dirs[i*7919%len(dirs)], names[i%50]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("absent", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if _, err := s.View().Lookup(dirs[i*7919%len(dirs)], "missing.php"); fs.KindOf(err) != fs.ErrNotFound {
				b.Fatal(err)
			}
		}
	})
	b.Run("attr", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if _, err := s.View().Attr(dirs[i*7919%len(dirs)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
