package rawraft

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestThreeProcessesCommit(t *testing.T) {
	c, err := Start(t.TempDir(), []string{"127.201.3.1:7580", "127.201.3.2:7580", "127.201.3.3:7580"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	took, err := c.Measure(50, 300)
	if err != nil {
		t.Fatal(err)
	}
	if len(took) != 50 {
		t.Fatalf("%d figures for 50 commits", len(took))
	}
	for _, d := range took {
		if d <= 0 {
			t.Errorf("a commit took %v", d)
		}
	}
}
