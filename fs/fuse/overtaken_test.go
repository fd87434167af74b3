package fuse_test

import (
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOvertakenRequest: a read of an open file has asked for its attributes, and
// before the daemon comes to it the file is changed once more. The kernel ignores
// the attributes in that answer, and would go on with the length from before both
// changes, of which the first was acknowledged before the read began.
func TestOvertakenRequest(t *testing.T) {
	for name, length := range map[string]func(f *os.File) (int64, error){
		"read": func(f *os.File) (int64, error) {
			n, err := unix.Pread(int(f.Fd()), make([]byte, 100), 0) // f.ReadAt would ask a second time
			return int64(n), err
		},
		"seek": func(f *os.File) (int64, error) { return f.Seek(0, io.SeekEnd) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			a, b := s.node(t), s.node(t)
			for _, sizes := range [][]int{{3, 20, 40}, {60, 50, 10}} {
				put := func(size int) { must(t, os.WriteFile(a.path("f"), make([]byte, size), 0o644)) }
				put(sizes[0])
				f, err := os.Open(b.path("f"))
				must(t, err)
				if n, err := length(f); err != nil || n != int64(sizes[0]) {
					t.Fatalf("%d bytes, %v; want %d", n, err, sizes[0])
				}
				put(sizes[1])
				asked, goOn := make(chan struct{}), make(chan struct{})
				var once sync.Once
				gate := func() { once.Do(func() { close(asked); <-goOn }) }
				b.seat.gate.Store(&gate)
				time.AfterFunc(5*time.Second, func() { once.Do(func() { close(asked) }) }) // nothing asks: say so below
				got := make(chan int64)
				go func() {
					n, err := length(f)
					if err != nil {
						t.Error(err)
					}
					got <- n
				}()
				<-asked
				put(sizes[2])
				close(goOn)
				// What is between the two may be seen, too: the call overlaps the second change.
				if n := <-got; n != int64(sizes[1]) && n != int64(sizes[2]) {
					t.Errorf("%d bytes, want %d or %d; %d is from before the call", n, sizes[1], sizes[2], sizes[0])
				}
				b.seat.gate.Store(nil)
				must(t, f.Close())
			}
		})
	}
}
