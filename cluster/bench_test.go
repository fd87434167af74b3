package cluster

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// BenchmarkDo is one directory made from a node that does not lead, until every
// node of three has applied it: three state machines, logs and disks in one
// process.
func BenchmarkDo(b *testing.B) {
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			c := newCluster(b, 3)
			c.ready()
			n := c.nodes[(c.leader()+1)%3]
			var count atomic.Int64
			b.SetParallelism(parallel)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					name := fmt.Sprintf("%d-%d", b.N, count.Add(1))
					if _, err := n.Do(b.Context(), fs.Mkdir{Parent: fs.RootIno, Name: name}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkRead is one lookup on a node that holds a lease.
func BenchmarkRead(b *testing.B) {
	c := newCluster(b, 3)
	c.ready()
	n := c.nodes[0]
	if _, err := n.Do(b.Context(), fs.Mkdir{Parent: fs.RootIno, Name: "d"}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := n.Read(b.Context(), func(v fs.View) error { _, err := v.Lookup(fs.RootIno, "d"); return err }); err != nil {
			b.Fatal(err)
		}
	}
}
