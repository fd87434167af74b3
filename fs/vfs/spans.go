package vfs

import "sort"

// span is the range of bytes [off, end).
type span struct{ off, end uint64 }

// spans is a sorted list of disjoint spans that do not touch each other.
type spans []span

// find returns the index of the first span that ends after off.
func (s spans) find(off uint64) int {
	// Sequential writers hit the end; do not search for it.
	if n := len(s); n == 0 || s[n-1].end <= off {
		return n
	}
	return sort.Search(len(s), func(i int) bool { return s[i].end > off })
}

// add returns s with [off, end) in it.
func (s spans) add(off, end uint64) spans {
	if off >= end {
		return s
	}
	i := s.find(off)
	if i > 0 && s[i-1].end == off {
		i--
	}
	j := i
	for j < len(s) && s[j].off <= end {
		off, end = min(off, s[j].off), max(end, s[j].end)
		j++
	}
	if i == j {
		s = append(s, span{})
		copy(s[i+1:], s[i:])
		s[i] = span{off, end}
		return s
	}
	s[i] = span{off, end}
	return append(s[:i+1], s[j:]...)
}

// cut returns s without what is at or after at.
func (s spans) cut(at uint64) spans {
	i := s.find(at)
	if i < len(s) && s[i].off < at {
		s[i].end = at
		i++
	}
	return s[:i]
}

// bytes is the sum of the lengths.
func (s spans) bytes() uint64 {
	var n uint64
	for _, x := range s {
		n += x.end - x.off
	}
	return n
}

// end is where the last span ends, 0 if there is none.
func (s spans) end() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].end
}

// within calls f with each part of s inside [off, end), in order, until f fails.
func (s spans) within(off, end uint64, f func(span) error) error {
	for _, x := range s[s.find(off):] {
		if x.off >= end {
			return nil
		}
		if err := f(span{max(x.off, off), min(x.end, end)}); err != nil {
			return err
		}
	}
	return nil
}

// gaps calls f with each part of [off, end) that is not in s, in order, until
// f fails.
func (s spans) gaps(off, end uint64, f func(span) error) error {
	for _, x := range s[s.find(off):] {
		if x.off >= end {
			break
		}
		if x.off > off {
			if err := f(span{off, x.off}); err != nil {
				return err
			}
		}
		off = x.end
	}
	if off < end {
		return f(span{off, end})
	}
	return nil
}
