package dir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/objecttest"
)

func open(t *testing.T) object.Store {
	t.Helper()
	s, err := New(Options{Root: filepath.Join(t.TempDir(), "bucket"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) { objecttest.Run(t, open) }

func put(t *testing.T, s object.Store, key string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(key), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestReopenKeepsObjects(t *testing.T) {
	s := open(t).(*Store)
	put(t, s, "c/ab/one")
	s, err := New(Options{Root: s.root})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Get(t.Context(), "c/ab/one", 0, -1)
	if err != nil || string(b) != "c/ab/one" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestOldTempFilesGo(t *testing.T) {
	s := open(t).(*Store)
	old, young := s.path(tempDir, "old"), s.path(tempDir, "young")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, []byte("torn"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * tempAgeMax)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Root: s.root}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old temporary file is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young temporary file, perhaps of another process, is gone: %v", err)
	}
}

func TestPutLeavesNoTempFile(t *testing.T) {
	s := open(t).(*Store)
	put(t, s, "k")
	for _, ifAbsent := range []bool{true, false} {
		_ = s.Put(t.Context(), "k", nil, object.PutOptions{IfAbsent: ifAbsent})
		_ = s.Put(t.Context(), "k/below", nil, object.PutOptions{IfAbsent: ifAbsent})
	}
	entries, err := os.ReadDir(s.path(tempDir))
	if err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestKeyThatIsADirectory(t *testing.T) {
	s := open(t)
	put(t, s, "a/b")
	for _, key := range []string{"a", "a/b/c"} {
		for _, ifAbsent := range []bool{false, true} {
			if err := s.Put(t.Context(), key, nil, object.PutOptions{IfAbsent: ifAbsent}); !errors.Is(err, object.Invalid) {
				t.Errorf("Put %s, IfAbsent %v: %v", key, ifAbsent, err)
			}
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete %s: %v", key, err)
		}
	}
	if _, err := s.Stat(t.Context(), "a/b"); err != nil {
		t.Error(err)
	}
}

func TestRootMissing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "bucket")
	for _, create := range []bool{false, true} {
		_, err := New(Options{Root: missing, Create: create})
		if !errors.Is(err, object.NoBucket) {
			t.Errorf("New with Create %v: %v", create, err)
		}
		if advice := object.Advice(err); !strings.Contains(advice, missing) || !strings.Contains(advice, "mount it") {
			t.Errorf("advice: %s", advice)
		}
	}
}

// TestRootVanishes: a bucket whose disk is unmounted says so. It is neither
// empty nor made anew in the mount point.
func TestRootVanishes(t *testing.T) {
	s := open(t).(*Store)
	put(t, s, "c/ab/one")
	if err := os.RemoveAll(s.root); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.root, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), "c/ab/one", 0, -1)
	wantNoBucket(t, "Get", err)
	_, err = s.Stat(t.Context(), "c/ab/one")
	wantNoBucket(t, "Stat", err)
	wantNoBucket(t, "Put", s.Put(t.Context(), "c/ab/two", nil, object.PutOptions{}))
	wantNoBucket(t, "Delete", s.Delete(t.Context(), "c/ab/one"))
	for _, err := range s.List(t.Context(), "", "") {
		wantNoBucket(t, "List", err)
	}
	if entries, err := os.ReadDir(s.root); err != nil || len(entries) != 0 {
		t.Errorf("the mount point was filled: %v, %v", entries, err)
	}
}

func wantNoBucket(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, object.NoBucket) {
		t.Errorf("%s: %v, want no such bucket", what, err)
	}
}

// TestDirectoryVanishes: what an administrator tidied away comes back.
func TestDirectoryVanishes(t *testing.T) {
	s := open(t).(*Store)
	put(t, s, "c/ab/one")
	if err := os.RemoveAll(s.path("c")); err != nil {
		t.Fatal(err)
	}
	put(t, s, "c/ab/two")
	if _, err := s.Stat(t.Context(), "c/ab/two"); err != nil {
		t.Error(err)
	}
}

func TestRootIsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Root: file}); !errors.Is(err, object.Invalid) {
		t.Errorf("New: %v", err)
	}
	if _, err := New(Options{Root: "relative"}); !errors.Is(err, object.Invalid) {
		t.Errorf("New with a relative root: %v", err)
	}
}

func TestParseURL(t *testing.T) {
	for _, row := range []struct {
		name, url string
		want      Options
		bad       bool
	}{
		{"plain", "file:///var/lib/b", Options{Root: "/var/lib/b"}, false},
		{"create", "file:///b/?create=true", Options{Root: "/b", Create: true}, false},
		{"relative", "file:b", Options{}, true},
		{"host", "file://b/c", Options{}, true},
		{"other scheme", "s3://b", Options{}, true},
		{"unknown parameter", "file:///b?creat=true", Options{}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseURL(row.url)
			if (err != nil) != row.bad || got != row.want {
				t.Errorf("ParseURL(%s) = %+v, %v", row.url, got, err)
			}
		})
	}
}
