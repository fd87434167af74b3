package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

func testConfs() *confLog { return &confLog{changed: func() {}} }

func openLog(t *testing.T, dir string) *logStore {
	t.Helper()
	s, err := openLogStore(dir, testConfs(), func(err error) { t.Logf("fatal: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entries(from, to uint64) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "entry %d", i)})
	}
	return out
}

func storeEntries(t *testing.T, s *logStore, from, to uint64) {
	t.Helper()
	if err := s.StoreLogs(entries(from, to)); err != nil {
		t.Fatal(err)
	}
}

func TestLogKeepsEntries(t *testing.T) {
	dir := t.TempDir()
	s := openLog(t, dir)
	storeEntries(t, s, 1, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openLog(t, dir)
	defer s.Close()
	for i := uint64(1); i <= 100; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil || string(l.Data) != fmt.Sprintf("entry %d", i) {
			t.Fatalf("entry %d: %q, %v", i, l.Data, err)
		}
	}
}

// A follower's uncommitted tail may be cut; that is no damage, and the log
// opens afterwards (raft-wal v0.4.0 did not).
func TestLogTailMayBeCut(t *testing.T) {
	dir := t.TempDir()
	s := openLog(t, dir)
	storeEntries(t, s, 1, 100)
	if err := s.DeleteRange(51, 100); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openLog(t, dir)
	storeEntries(t, s, 51, 60)
	s.Close()
	s = openLog(t, dir)
	defer s.Close()
	if last, _ := s.LastIndex(); last != 60 {
		t.Errorf("log ends at %d, want 60", last)
	}
}

func TestLogHeadMayBeCut(t *testing.T) {
	dir := t.TempDir()
	s := openLog(t, dir)
	storeEntries(t, s, 1, 100)
	if err := s.DeleteRange(1, 90); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openLog(t, dir)
	defer s.Close()
	first, _ := s.FirstIndex()
	if last, _ := s.LastIndex(); first != 91 || last != 100 {
		t.Errorf("log is %d to %d, want 91 to 100", first, last)
	}
}

// damage flips one byte inside the data of the given entry.
func damage(t *testing.T, dir, text string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if i := indexOf(b, text); i >= 0 {
			b[i] ^= 0x20
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%q is in none of %v", text, files)
}

func indexOf(b []byte, text string) int {
	for i := 0; i+len(text) <= len(b); i++ {
		if string(b[i:i+len(text)]) == text {
			return i
		}
	}
	return -1
}

// Rules R27, R28: damage to what had been stored is never passed over, wherever
// it is: the log does not open, or the entry is not served.
func TestLogDamageIsFound(t *testing.T) {
	for _, at := range []int{1, 50, 99} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			dir := t.TempDir()
			s := openLog(t, dir)
			for i := uint64(1); i <= 100; i++ {
				storeEntries(t, s, i, i) // a commit each, as recovery sees them
			}
			s.Close()
			damage(t, dir, fmt.Sprintf("entry %d", at))
			s, err := openLogStore(dir, testConfs(), func(error) {})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, ErrLogCorrupt) {
				t.Fatalf("open: %v, want %v", err, ErrLogCorrupt)
			}
		})
	}
}

// Damage that comes while the log is open ends the node, and nothing more is stored.
func TestLogDamageWhileOpen(t *testing.T) {
	dir := t.TempDir()
	fatal := false
	s, err := openLogStore(dir, testConfs(), func(error) { fatal = true })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storeEntries(t, s, 1, 100)
	damage(t, dir, "entry 50")
	var l raft.Log
	if err := s.GetLog(50, &l); !errors.Is(err, ErrLogCorrupt) {
		t.Errorf("entry 50 reads as %q, %v; want %v", l.Data, err, ErrLogCorrupt)
	}
	if !fatal {
		t.Error("the node was not told to stop")
	}
	if err := s.StoreLogs(entries(101, 101)); err == nil {
		t.Error("a damaged log took another entry")
	}
}

// A torn last write was never acknowledged: it is cut, and the node goes on.
func TestLogTornTailIsCut(t *testing.T) {
	dir := t.TempDir()
	s := openLog(t, dir)
	storeEntries(t, s, 1, 9)
	high, err := os.ReadFile(filepath.Join(dir, "high-water"))
	if err != nil {
		t.Fatal(err)
	}
	storeEntries(t, s, 10, 10)
	s.Close()
	damage(t, dir, "entry 10")
	if err := os.WriteFile(filepath.Join(dir, "high-water"), high, 0o600); err != nil { // as if the power went within the write
		t.Fatal(err)
	}
	s = openLog(t, dir)
	defer s.Close()
	if last, _ := s.LastIndex(); last != 9 {
		t.Errorf("log ends at %d, want 9", last)
	}
}

// A log that was lost or rolled back is found out.
func TestLogRolledBackIsFound(t *testing.T) {
	dir := t.TempDir()
	s := openLog(t, dir)
	storeEntries(t, s, 1, 10)
	s.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if filepath.Base(f) != "high-water" {
			os.RemoveAll(f)
		}
	}
	if _, err := openLogStore(dir, testConfs(), func(error) {}); !errors.Is(err, ErrLogCorrupt) {
		t.Errorf("open: %v, want %v", err, ErrLogCorrupt)
	}
}

func TestSnapshotStoreRoundTrip(t *testing.T) {
	from, err := openSnapshotStore(filepath.Join(t.TempDir(), "a"), testConfs())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"000001.sst": "some bytes", "MANIFEST-2": "", "OPTIONS": string(slices.Repeat([]byte("o"), 100_000))}
	k, err := from.Create(1, 42, 7, raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "a:1"}}}, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = k.(*sink).adopt(func(dir string) error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	to, err := openSnapshotStore(filepath.Join(t.TempDir(), "b"), testConfs())
	if err != nil {
		t.Fatal(err)
	}
	send(t, from, to)
	metas, err := to.List()
	if err != nil || len(metas) != 1 || metas[0].Index != 42 || metas[0].Term != 7 || metas[0].Configuration.Servers[0].ID != "n1" {
		t.Fatalf("received %+v, %v", metas, err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(to.stateDir(metas[0].ID), name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
}

// send streams the newest snapshot as raft does, checking the announced size.
func send(t *testing.T, from, to *snapshotStore) {
	t.Helper()
	metas, err := from.List()
	if err != nil || len(metas) == 0 {
		t.Fatalf("list: %v, %v", metas, err)
	}
	m, r, err := from.Open(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	k, err := to.Create(m.Version, m.Index, m.Term, m.Configuration, m.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := copyAll(k, r)
	if err != nil || n != m.Size {
		t.Fatalf("streamed %d bytes, %v; announced %d", n, err, m.Size)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
}

// A transfer that breaks off leaves nothing behind.
func TestSnapshotCancelled(t *testing.T) {
	s, err := openSnapshotStore(t.TempDir(), testConfs())
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Create(1, 1, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Write([]byte("the first bytes of no tar"))
	if err := k.Cancel(); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(s.dir)
	if metas, err := s.List(); err != nil || len(metas) != 0 || len(left) != 0 {
		t.Errorf("left %v, %v, %v", metas, left, err)
	}
}

func copyAll(k raft.SnapshotSink, r io.Reader) (int64, error) { return io.Copy(k, r) }
