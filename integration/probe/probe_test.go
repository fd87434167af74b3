package probe

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func start(t *testing.T) *Client {
	t.Helper()
	c, err := Start(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestOpsDoWhatTheySay(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	c := start(t)
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	steps := []struct {
		name string
		op   Op
		want func(Result) bool
	}{
		{"write", WriteFile(at("f"), content), func(r Result) bool { return r.N == int64(len(content)) }},
		{"read", ReadFile(at("f")), func(r Result) bool { return bytes.Equal(r.Data, content) }},
		{"append", AppendFile(at("f"), []byte("end")), nil},
		{"stat", Lstat(at("f")), func(r Result) bool { return r.Stat.Size == int64(len(content))+3 }},
		{"create what is there", CreateExcl(at("f"), nil), failsWith(unix.EEXIST)},
		{"stat of nothing", Lstat(at("none")), failsWith(unix.ENOENT)},
		{"mkdir", Mkdir(at("d")), nil},
		{"fifo", Mkfifo(at("d/p")), nil},
		{"symlink", Symlink("f", at("l")), nil},
		{"readlink", Readlink(at("l")), func(r Result) bool { return r.Str == "f" }},
		{"link", Link(at("f"), at("d/g")), nil},
		{"readdir", Readdir(at("d")), func(r Result) bool { return r.Value() == `["g" "p"]` }},
		{"open a directory", Open(8, at("d"), unix.O_RDONLY, 0), nil},
		{"getdents", Getdents(8), func(r Result) bool { return r.Value() == `["g" "p"]` }},
		{"getdents from the beginning again", Getdents(8), func(r Result) bool { return r.Value() == `["g" "p"]` }},
		{"under the open directory", Op{Call: CallStat, Under: 8, Path: "g"}, func(r Result) bool { return r.Stat != nil && r.Stat.Nlink == 2 }},
		{"close the directory", Close(8), nil},
		{"rmdir of a full one", Rmdir(at("d")), failsWith(unix.ENOTEMPTY)},
		{"open", Open(7, at("d/g"), unix.O_RDWR, 0), nil},
		{"pread", Pread(7, 10, 5), func(r Result) bool { return string(r.Data) == "01234" }},
		{"mmap", Op{Call: CallMmapRead, H: 7, Len: 4}, func(r Result) bool { return string(r.Data) == "0123" }},
		{"close", Close(7), nil},
		{"close again", Close(7), failsWith(unix.EBADF)},
		{"exchange", Rename(at("l"), at("d/g"), unix.RENAME_EXCHANGE), nil},
		{"the link moved", Readlink(at("d/g")), func(r Result) bool { return r.Str == "f" }},
		{"scan", Scan(dir), func(r Result) bool { es, err := r.Entries(); return err == nil && len(es) == 6 }},
	}
	for _, s := range steps {
		r := c.Call(s.op)
		if s.want == nil {
			s.want = func(r Result) bool { return r.Err() == nil }
		}
		if !s.want(r) {
			t.Fatalf("%s: %v, %.100q", s.name, r.Err(), r.Value())
		}
		if r.Start == 0 || r.End < r.Start {
			t.Errorf("%s: from %d to %d", s.name, r.Start, r.End)
		}
	}
}

func failsWith(errno unix.Errno) func(Result) bool {
	return func(r Result) bool { return r.Errno == errno && r.Lost == "" }
}

func TestLanesDoNotWaitForEachOther(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	c := start(t)
	if err := c.Run(Mkfifo(fifo)); err != nil {
		t.Fatal(err)
	}
	blocked := c.Go(1, Open(1, fifo, unix.O_RDONLY, 0)) // waits for a writer
	if err := c.Run(WriteFile(filepath.Join(dir, "f"), []byte("x"))); err != nil {
		t.Fatalf("lane 0 while lane 1 hangs: %v", err)
	}
	if r := blocked.WaitFor(10 * time.Millisecond)[0]; r.Lost == "" {
		t.Fatalf("open of a fifo without a writer returned: %+v", r)
	}
	if err := c.Run(Open(2, fifo, unix.O_WRONLY, 0)); err != nil {
		t.Fatal(err)
	}
}

func TestWatchReportsEachChangeOnce(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	c := start(t)
	if err := c.Run(WriteFile(f, []byte("a"))); err != nil {
		t.Fatal(err)
	}
	p := c.Go(1, Watch(ReadFile(f), Now()+int64(800*time.Millisecond)))
	var acts []Result
	for _, v := range []string{"b", "c"} {
		at := Now() + int64(150*time.Millisecond)
		tmp := WriteFile(f+".tmp", []byte(v))
		mv := Rename(f+".tmp", f, 0)
		mv.At = at
		acts = append(acts, c.Do(tmp, mv)[1])
	}
	r := p.Wait()[0]
	if len(r.Spans) != 3 {
		t.Fatalf("spans: %+v", r.Spans)
	}
	for i, a := range acts {
		if r.Spans[i].LastStart > a.End {
			t.Errorf("span %d: an old value after the rename had returned", i)
		}
		if r.Spans[i+1].FirstEnd < a.Start {
			t.Errorf("span %d: a new value before the rename began", i+1)
		}
	}
}

func TestDeadChildIsReportedNotWaitedFor(t *testing.T) {
	c, err := Start("dead")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(Lstat("/")); err != nil {
		t.Fatal(err)
	}
	c.cmd.Process.Kill()
	if r := c.Call(Lstat("/")); r.Lost == "" {
		t.Errorf("a killed probe answered %+v", r)
	}
	if err := c.Close(); err == nil {
		t.Error("Close of a killed probe reports nothing")
	}
}
