package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// TestMain lets the test binary be wpfs itself, for commands that start it again.
func TestMain(m *testing.M) {
	if os.Getenv("WPFS_TEST_BE_WPFS") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// TestScripts runs the command line as a person would type it. A script is a
// txtar archive: its files are laid out in an empty directory $W first, then
// each line of its comment is one step:
//
//	wpfs ARG…           must exit with 0
//	exit N wpfs ARG…    must exit with N
//	stdout RE           the last command's output matches; ! stdout: does not
//	stderr RE           the same for its errors
//	env NAME=VALUE      for the following commands
//	mkdir DIR, tmpfs DIR SIZE (needs root), exists FILE
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			runScript(t, a)
		})
	}
}

type script struct {
	t        *testing.T
	w        string
	out, err string
	at       string
}

func runScript(t *testing.T, a *txtar.Archive) {
	s := &script{t: t, w: t.TempDir()}
	for _, f := range a.Files {
		path := filepath.Join(s.w, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(f.Data, []byte("$W"), []byte(s.w)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, line := range strings.Split(string(a.Comment), "\n") {
		line = strings.TrimSpace(strings.ReplaceAll(line, "$W", s.w))
		if line == "" || line[0] == '#' {
			continue
		}
		s.at = fmt.Sprintf("line %d, %s", i+1, line)
		s.step(line)
	}
}

func (s *script) step(line string) {
	s.t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "wpfs":
		s.exec(0, words(rest))
	case "exit":
		args := words(rest)
		code, err := strconv.Atoi(args[0])
		if err != nil || len(args) < 2 || args[1] != "wpfs" {
			s.t.Fatalf("%s: want exit N wpfs ARG…", s.at)
		}
		s.exec(Code(code), args[2:])
	case "stdout":
		s.match(s.out, rest, true)
	case "stderr":
		s.match(s.err, rest, true)
	case "!":
		what, re, _ := strings.Cut(rest, " ")
		s.match(map[string]string{"stdout": s.out, "stderr": s.err}[what], re, false)
	case "env":
		name, value, _ := strings.Cut(rest, "=")
		s.t.Setenv(name, value)
	case "mkdir":
		if err := os.MkdirAll(rest, 0o755); err != nil {
			s.t.Fatal(err)
		}
	case "tmpfs":
		dir, size, _ := strings.Cut(rest, " ")
		mountTmpfs(s.t, dir, size)
	case "exists":
		if _, err := os.Lstat(rest); err != nil {
			s.t.Fatalf("%s: %v", s.at, err)
		}
	default:
		s.t.Fatalf("%s: unknown verb", s.at)
	}
}

func (s *script) exec(want Code, args []string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	got := run(ctx, args, stdio{strings.NewReader(""), &out, &errs})
	s.out, s.err = out.String(), errs.String()
	if got != want {
		s.t.Fatalf("%s: exit code %d, want %d\n%s%s", s.at, got, want, s.out, s.err)
	}
}

func (s *script) match(text, re string, want bool) {
	s.t.Helper()
	r, err := regexp.Compile("(?s)" + strings.TrimSuffix(strings.TrimPrefix(re, "'"), "'"))
	if err != nil {
		s.t.Fatalf("%s: %v", s.at, err)
	}
	if r.MatchString(text) != want {
		s.t.Fatalf("%s: matches %v, want %v:\n%s", s.at, !want, want, text)
	}
}

// words splits at blanks; single quotes keep them.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return slices.Clip(out)
}
