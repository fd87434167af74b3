package bulk

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// filter decides which paths are looked at, on both sides alike: what is
// excluded is neither copied nor deleted.
type filter struct{ exclude, include []string }

func newFilter(exclude, include []string) (filter, error) {
	for _, p := range append(append([]string{}, exclude...), include...) {
		if !doublestar.ValidatePattern(p) {
			return filter{}, &UsageError{fmt.Errorf("the pattern %q cannot be read", p)}
		}
	}
	return filter{exclude, include}, nil
}

// leaves reports whether path, or for a directory all that is in it, is left out.
// A pattern with a slash is about the path below the root, one without about
// the name in any directory; an include beats an exclude.
func (f filter) leaves(path string) bool {
	return path != "" && matches(f.exclude, path) && !matches(f.include, path)
}

// left is leaves for a path whose directories have not been asked about.
func (f filter) left(path string) bool {
	if len(f.exclude) == 0 {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && f.leaves(path[:i]) {
			return true
		}
	}
	return f.leaves(path)
}

func matches(patterns []string, path string) bool {
	for _, p := range patterns {
		subject := path
		if !strings.Contains(p, "/") {
			subject = path[strings.LastIndexByte(path, '/')+1:]
		}
		if doublestar.MatchUnvalidated(strings.TrimPrefix(p, "/"), subject) {
			return true
		}
	}
	return false
}
