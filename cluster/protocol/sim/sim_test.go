package sim

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cluster/protocol/internal/mutant"
)

func TestScratch(t *testing.T) {
	start := time.Now()
	n := 2000
	fmt.Sscan(os.Getenv("N"), &n)
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var events int
	for range 2 {
		wg.Go(func() {
			for {
				s := next.Add(1)
				if s > int64(n) {
					return
				}
				r := Run(Options{Seed: uint64(s)})
				mu.Lock()
				events += r.Stats.Events
				if r.Violation != "" {
					fmt.Printf("seed %d: %s\n", s, r.Violation)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(events, time.Since(start))
}

func TestScratchMutants(t *testing.T) {
	for m := mutant.None + 1; m < mutant.End; m++ {
		found, first := 0, 0
		start := time.Now()
		var text string
		n := 0
		for n = 1; n <= 1000 && time.Since(start) < 20*time.Second && found < 5; n++ {
			r := Run(Options{Seed: uint64(n), Mutant: m, Observe: true})
			if r.Violation != "" {
				if found == 0 {
					first, text = n, r.Violation
				}
				found++
			}
		}
		fmt.Printf("%-20s found %d in %d seeds, first %d: %s\n", m, found, n-1, first, text)
	}
}

func TestSeed(t *testing.T) {
	var seed uint64
	var mut mutant.Mutant
	fmt.Sscan(os.Getenv("SEED"), &seed)
	fmt.Sscan(os.Getenv("MUT"), &mut)
	r := Run(Options{Seed: seed, Mutant: mut, Trace: true})
	for _, l := range r.Trace {
		fmt.Println(l)
	}
	fmt.Println(r.Violation)
}
