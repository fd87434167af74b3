package main

import (
	"maps"
	"testing"
	"time"
)

func TestParseRequests(t *testing.T) {
	cases := []struct {
		name, page string
		want       requestCounts
		fails      bool
	}{
		{"a page", `# HELP wpfs_fuse_requests_total Requests of the kernel.
# TYPE wpfs_fuse_requests_total counter
wpfs_fuse_requests_total{op="getattr"} 12
wpfs_fuse_requests_total{op="lookup"} 1.234567e+06
wpfs_handles 3
`, requestCounts{"getattr": 12, "lookup": 1234567}, false},
		{"no requests", "wpfs_handles 3\n", nil, true},
		{"empty", "", nil, true},
		{"no number", `wpfs_fuse_requests_total{op="open"} many`, nil, true},
		{"another label", `wpfs_fuse_requests_total{op="open",node="n1"} 1`, nil, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseRequests([]byte(c.page))
			if !maps.Equal(got, c.want) || (err != nil) != c.fails {
				t.Errorf("%v, %v, want %v, an error: %v", got, err, c.want, c.fails)
			}
		})
	}
}

func TestRequestsSince(t *testing.T) {
	before := requestCounts{"lookup": 5, "open": 1}
	got := requestCounts{"lookup": 5, "open": 4, "read": 2}.since(before)
	if want := (requestCounts{"open": 3, "read": 2}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got.String() != "open 3 read 2" || before.since(before).String() != "nothing" {
		t.Errorf("as text: %q and %q", got, before.since(before))
	}
}

func TestRequestsOfAWarmPhase(t *testing.T) {
	const names = 100
	cases := []struct {
		name string
		took time.Duration // of each of two rounds
		got  requestCounts // in both
		want verdict
	}{
		{"silent", time.Second, nil, held},
		{"opens", time.Second, requestCounts{"open": 5000, "release": 4999, "opendir": 7, "releasedir": 7}, held},
		{"each lease ended once", time.Second, requestCounts{"lookup": 200, "getattr": 200}, held},
		{"and a name more", time.Second, requestCounts{"lookup": 201}, missed},
		{"two ways to ask for attributes", time.Second, requestCounts{"getattr": 150, "statx": 51}, missed},
		{"leases ended twice", 3 * time.Second, requestCounts{"lookup": 400}, held},
		{"a read", time.Second, requestCounts{"read": 1}, missed},
		{"a directory read", time.Second, requestCounts{"readdir": 1}, missed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := newBook().caused("warm", "leader", true)
			a.book(1000, names, c.took, c.got)
			a.book(1000, names, c.took, nil)
			if got := a.verdict(); got != c.want {
				t.Errorf("%v: %q, want %q", c.got, got, c.want)
			}
			if a.Calls != 2000 || a.Seconds != 2*c.took.Seconds() {
				t.Errorf("%d calls in %v s", a.Calls, a.Seconds)
			}
		})
	}
}

func TestRequestsAreBookedByPhaseAndTarget(t *testing.T) {
	b := newBook()
	a := b.caused("stat", "leader", true)
	if b.caused("stat", "leader", true) != a || b.caused("stat", "follower", true) == a || len(b.requests) != 2 {
		t.Errorf("%d accounts", len(b.requests))
	}
	if v := b.caused("first read", "leader", false).verdict(); v != noGoal {
		t.Errorf("a phase that is not warm: %q", v)
	}
}
